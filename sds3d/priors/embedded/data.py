"""Training data: captioned renders, drawn when they are needed, each a function of a seed and its number alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from sds3d.cameras import orbit_cameras
from sds3d.priors.embedded.captions import Description, build_things, random_description
from sds3d.priors.embedded.render import draw
from sds3d.priors.embedded.solids import frame
from sds3d.priors.embedded.words import words_of
from sds3d.types import Cameras

SIZE = 64  # pixels
FOV_DEG = 40.0
ELEVATION_DEG = (-15.0, 60.0)
DISTANCE = (2.8, 3.2)  # world units
SAMPLES = 3  # a pixel has so many rays squared
# Factors by which captions with these words are shown more often: what they mean is learned late.
SHOWN = {"striped": 2.0, "checkered": 2.5, "dotted": 1.5, "beside": 3.0, "two": 4.0, "apple": 2.0}
MOST_SHOWN = 5.0


@dataclass(frozen=True)
class Batch:
    """Views of random objects; all those of one object in a row."""

    rgba: Float[Tensor, "B H W 4"]  # premultiplied
    depths: Float[Tensor, "B H W"]  # as `Drawn`
    parts: Int32[Tensor, "B H W"]
    angles: Float[Tensor, "B 3"]  # azimuth and elevation in radians, and the distance
    frames: Float[Tensor, "B 2 4"]  # `solids.frame` of both things; the same twice for a single thing
    captions: list[str]

    @classmethod
    def joined(cls, batches: list["Batch"]) -> "Batch":
        names = ("rgba", "depths", "parts", "angles", "frames")
        tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
        return cls(**tensors, captions=[caption for batch in batches for caption in batch.captions])


def make_batch(
    seed: int,
    first: int,
    count: int,
    views: int = 1,
    held_out: bool = False,
    chance: Callable[[str], float] = lambda caption: 1.0,
    size: int = SIZE,
) -> Batch:
    """Objects number `first` to `first + count` of the endless sequence `seed`, each from `views` random sides.

    A caption that was drawn is kept with the probability `chance(caption)`, else another is drawn. With `held_out`, all
    are combinations that the prior must not be trained on.
    """
    objects, angles, frames, captions = [], [], [], []
    for number in range(first, first + count):
        rng = Random(f"sds3d-{seed}-{number}")
        description = _chosen(rng, held_out, chance)
        things = build_things(description, rng)
        objects.append([solid for thing in things for solid in thing])
        angles += [_random_view(rng) for _ in range(views)]
        frames += [(frame(things[0]), frame(things[-1]))] * views
        captions += [description.caption()] * views
    cameras = angle_cameras(torch.tensor(angles), size)
    return Batch(*draw(objects, cameras, SAMPLES), torch.tensor(angles), torch.tensor(frames), captions)


def _chosen(rng: Random, held_out: bool, chance: Callable[[str], float]) -> Description:
    while True:
        description = random_description(rng, held_out)
        if rng.random() < chance(description.caption()):
            return description


def angle_cameras(angles: Float[Tensor, "B 3"], size: int = SIZE) -> Cameras:
    """The cameras behind azimuth, elevation (radians) and distance."""
    azimuth, elevation, distance = angles.unbind(1)
    return orbit_cameras(azimuth, elevation, distance, torch.full_like(azimuth, math.radians(FOV_DEG)), size)


def _random_view(rng: Random) -> tuple[float, float, float]:
    elevation = math.radians(rng.uniform(*ELEVATION_DEG))
    return rng.uniform(-math.pi, math.pi), elevation, rng.uniform(*DISTANCE)


def chance_of(caption: str) -> float:
    """How often a caption is kept, in proportion to SHOWN; the most are those shown MOST_SHOWN times as often."""
    return min(math.prod(SHOWN.get(word, 1.0) for word in words_of(caption)) / MOST_SHOWN, 1.0)


def random_backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
    """Uniform random colours, a third of them grey."""
    colors = torch.rand(count, 3, generator=generator)
    grey = torch.rand(count, 1, generator=generator) < 1.0 / 3.0
    return torch.where(grey, colors[:, :1].expand_as(colors), colors)
