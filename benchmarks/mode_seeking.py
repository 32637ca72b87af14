"""Where each guidance method leads: `python benchmarks/mode_seeking.py --out docs/mode_seeking.png [--particles 300]`.

In two dimensions everything is known. The prompt is a mixture of three modes; the empty text adds a broad fourth mode,
"rest", which is the negative prompt. Each particle is a scene of two numbers that starts at a random place and is moved
by Adam along the gradient of the method, as in a run. The particles of a method that follows the density end spread
like the samples in the first panel; those of a method that seeks modes end in few points. Guidance scales are 1 (no
guidance), except for methods that are nothing but guidance, so that the density itself is followed.

Noise is new at every step, except that each particle keeps its own noise where the method's default is surface noise:
that is what the surface does for a scene. A critic learns from all particles together, as in a run with `particles`,
and not from one, as in a run with a single scene. Prints the share of each mode and the spread as a table.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sds3d.cameras import orbit
from sds3d.errors import Sds3dError
from sds3d.guidance import GUIDANCE
from sds3d.guidance.base import Guidance, GuidanceInput
from sds3d.guidance.timesteps import TIMESTEPS
from sds3d.priors.analytic import AnalyticPrior
from sds3d.types import Conditioning, ViewCondition

MODES, REST = ("west", "east", "north"), "rest"
MEANS = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5], [0.0, 0.8]])
STDS, WEIGHTS = torch.tensor([0.4, 0.6, 0.3, 2.5]), torch.tensor([0.15, 0.25, 0.1, 0.5])
START_STD, STEPS, LR, BETAS = 1.5, 800, 0.02, (0.9, 0.99)
WITHOUT_GUIDANCE = {"guidance_scale": 1.0, "inversion_scale": 1.0}

LEFT, RIGHT, BOTTOM, TOP = -4.5, 4.5, -2.6, 5.2  # of every panel
PANEL, COLUMNS, HEAD, GAP, TITLE = 300, 4, 62, 12, 56
INK, SOFT, DOT = (30, 32, 38), (110, 114, 122), (196, 52, 40)

LEGEND = (
    "Red: where {count} particles end, each a scene of two numbers, after {steps} steps of Adam, guidance scale 1. "
    "Blue: the prompt's density (50, 80 and 95 percent of it).",
    "In numbers: the share of particles nearest to each mode, and their spread within modes, which is 1 for samples.",
)


@dataclass(frozen=True)
class Panel:
    """Where the particles of one method ended."""

    title: str
    note: str
    places: Float[Tensor, "N 2"]


def mixture() -> AnalyticPrior:
    """The prior; an image has two numbers."""
    return AnalyticPrior(MEANS[:, :, None, None], STDS, WEIGHTS, words=(*MODES, REST))


def conditioning(prior: AnalyticPrior, count: int) -> Conditioning:
    """The three modes as the prompt and the rest as the negative prompt."""
    positive, null, negative = (row.expand(count, -1, -1) for row in prior.embed([" ".join(MODES), "", REST])[:, None])
    return Conditioning(positive, positive, null, negative)


def samples(count: int, generator: torch.Generator) -> Float[Tensor, "N 2"]:
    """Samples of the prompt's mixture."""
    kind = torch.multinomial(WEIGHTS[:3], count, replacement=True, generator=generator)
    return MEANS[kind] + STDS[kind, None] * torch.randn(count, 2, generator=generator)


def without_guidance(name: str) -> Guidance:
    """The method with its guidance scales at 1 and all other options at their defaults."""
    fields = GUIDANCE[name].model_fields
    return GUIDANCE[name](**{key: value for key, value in WITHOUT_GUIDANCE.items() if key in fields})


def distil(name: str, start: Float[Tensor, "N 2"]) -> Panel:
    """Move the particles along the gradient of the method."""
    prior, generator, count = mixture(), torch.Generator().manual_seed(0), len(start)
    method, cond = without_guidance(name), conditioning(prior, count)
    timesteps = TIMESTEPS[method.default_overrides.get("timesteps", "annealed")]()
    keeps_noise = method.default_overrides.get("noise") == "surface"
    state = method.init(prior, generator)
    x = start[:, :, None, None].clone().requires_grad_()
    groups = [{"params": [x], "lr": LR}]
    if state is not None:
        groups.append({"params": list(state.parameters()), "lr": 1e-4})
    optimizer = torch.optim.Adam(groups, betas=BETAS)
    noise, view = torch.randn(x.shape, generator=generator), ViewCondition(orbit(count, size=8))
    for step in range(STEPS):
        progress = step / STEPS
        if not keeps_noise:
            noise = torch.randn(x.shape, generator=generator)
        t = timesteps.sample(progress, count, generator)
        out = method.step(GuidanceInput(x, t, noise, prior, cond, view, progress, generator), state)
        optimizer.zero_grad()
        if out.loss is not None:
            out.loss.backward()
        x.grad = out.grad
        optimizer.step()
    notes = [f"t {method.default_overrides['timesteps']}"] if "timesteps" in method.default_overrides else []
    notes += ["each keeps its noise"] if keeps_noise else []
    notes += ["one critic for all"] if state is not None else []
    return Panel(name.upper(), ", ".join(notes), x.detach()[:, :, 0, 0])


def summary(places: Float[Tensor, "N 2"]) -> tuple[list[float], float, int]:
    """Share of each mode, root mean square distance within modes over that of the prompt's samples, and how many are
    outside the panels."""
    nearest = torch.cdist(places, MEANS[:3]).argmin(dim=1)
    share = nearest.bincount(minlength=3) / len(places)
    squares = sum(
        (places[nearest == mode] - places[nearest == mode].mean(dim=0)).square().sum() for mode in nearest.unique()
    )
    expected = 2 * (share * STDS[:3].square()).sum() * len(places)
    (x, y), limits = places.T, ((LEFT, RIGHT), (BOTTOM, TOP))
    inside = [(value >= low) & (value <= high) for value, (low, high) in zip((x, y), limits, strict=True)]
    return share.tolist(), float((squares / expected).sqrt()), len(places) - int((inside[0] & inside[1]).sum())


def shading(width: int, height: int) -> Image.Image:
    """The prompt's density: regions that hold 50, 80 and 95 percent of it, the darkest first."""
    x, y = torch.linspace(LEFT, RIGHT, width), torch.linspace(TOP, BOTTOM, height)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    distance = (grid[..., None, :] - MEANS[:3]).square().sum(dim=-1)
    density = (WEIGHTS[:3] / STDS[:3].square() * (-0.5 * distance / STDS[:3].square()).exp()).sum(dim=-1)
    ranked = density.flatten().sort(descending=True).values
    held = ranked.cumsum(0) / ranked.sum()
    picture = torch.full((height, width, 3), 250, dtype=torch.uint8)
    for part, color in ((0.95, (226, 234, 246)), (0.8, (200, 215, 238)), (0.5, (168, 191, 226))):
        picture[density >= ranked[(held < part).sum()]] = torch.tensor(color, dtype=torch.uint8)
    return Image.fromarray(picture.numpy())


def drawn(panel: Panel, scale: int) -> Image.Image:
    """One panel, `scale` times as large as it will be."""
    size = PANEL * scale
    height = round(size * (TOP - BOTTOM) / (RIGHT - LEFT))
    picture = Image.new("RGB", (size, height + HEAD * scale), "white")
    picture.paste(shading(size, height), (0, HEAD * scale))
    draw = ImageDraw.Draw(picture)
    shares, spread, outside = summary(panel.places)
    large, small = (ImageFont.load_default(size=points * scale) for points in (19, 13))
    draw.text((2 * scale, 0), panel.title, INK, large)
    draw.text((size, 4 * scale), panel.note, SOFT, small, anchor="ra")
    outer = f", {outside} outside" if outside else ""
    named = ", ".join(f"{name} {share:.2f}" for name, share in zip(MODES, shares, strict=True))
    draw.text((2 * scale, 25 * scale), named, INK, small)
    draw.text((2 * scale, 42 * scale), f"spread {spread:.2f}{outer}", INK, small)
    per_unit = size / (RIGHT - LEFT)
    for tick in range(-2, 5, 2):
        place = (tick - LEFT) * per_unit
        draw.line([(place, picture.height - 5 * scale), (place, picture.height)], SOFT, scale)
        draw.text((place, picture.height - 6 * scale), str(tick), SOFT, small, anchor="ms")
    for tick in range(-2, 5, 2):
        place = HEAD * scale + (TOP - tick) * per_unit
        draw.line([(0, place), (5 * scale, place)], SOFT, scale)
        draw.text((8 * scale, place), str(tick), SOFT, small, anchor="lm")
    radius = 1.8 * scale
    for x, y in panel.places.tolist():
        place = ((x - LEFT) * per_unit, HEAD * scale + (TOP - y) * per_unit)
        if place[1] > HEAD * scale:
            draw.ellipse([(value - radius, value + radius)[end] for end in (0, 1) for value in place], DOT)
    draw.rectangle([(0, HEAD * scale), (size - 1, picture.height - 1)], outline=SOFT, width=scale)
    return picture


def sheet(panels: list[Panel], scale: int = 2) -> Image.Image:
    """All panels, drawn large and made small, so that their dots have soft edges."""
    pictures = [drawn(panel, scale) for panel in panels]
    width, height = pictures[0].size
    gap, top, rows = GAP * scale, TITLE * scale, -(-len(panels) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * (width + gap) + gap, top + rows * (height + gap) + gap), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(size=15 * scale)
    for number, line in enumerate(LEGEND):
        draw.text((gap, gap + number * 22 * scale), line.format(count=len(panels[0].places), steps=STEPS), INK, font)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, COLUMNS)
        whole.paste(picture, (gap + column * (width + gap), top + gap + row * (height + gap)))
    small = whole.resize((whole.width // scale, whole.height // scale), Image.Resampling.LANCZOS)
    return small.quantize(128, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--particles", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, generator = options.particles, torch.Generator().manual_seed(1)
    start = START_STD * torch.randn(count, 2, generator=generator)
    panels = [Panel("samples of the prompt", "", samples(count, generator)), Panel("start of all", "", start)]
    for name in GUIDANCE:
        try:
            panels.append(distil(name, start))
        except Sds3dError as error:
            print(f"{name}: left out: {error}")
    for panel in panels:
        shares, spread, outside = summary(panel.places)
        print(f"{panel.title:22}", *(f"{share:.3f}" for share in shares), f"spread {spread:.3f}, {outside} outside")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(panels).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
