"""Whether a scene still shows something: asked before each checkpoint, so that no ruined scene becomes a good one."""

from sds3d.cameras import orbit
from sds3d.export.views import render_views
from sds3d.scenes import Scene
from sds3d.scenes.image import ImageScene

SIDES, SIZE = 4, 48  # views all around, in pixels
GREY = (0.5, 0.5, 0.5)
SEEN = 0.05  # opacity that some pixel must have
FILLED = 0.9  # opacity of every pixel of a scene that fills its views
FLAT = 2.0 / 255.0  # standard deviation of colours below which nothing can be made out


def diagnose(scene: Scene) -> str | None:
    """What is wrong with the scene, seen from all sides; None where it shows something. A plain image may be anything.

    A dark object is none: it has an outline. Not to be asked of a scene that is not finite.
    """
    if isinstance(scene, ImageScene):
        return None
    seen = render_views(scene, orbit(SIDES, size=SIZE), GREY)
    if seen.opacity.max() < SEEN:
        return f"nothing can be seen of the scene from any side: its opacity is {seen.opacity.max():.3f} at most"
    if seen.opacity.min() > FILLED and seen.rgb.std(axis=(0, 1, 2)).max() < FLAT:
        color = ", ".join(f"{value:.2f}" for value in seen.rgb.mean(axis=(0, 1, 2)))
        return f"the scene fills all its views with one colour ({color})"
    return None
