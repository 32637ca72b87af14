"""Training data: captioned multi-view renders in shards on disk, each a function of its index alone."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from jaxtyping import Float, Int8, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sds3d.atomic import write_atomic
from sds3d.cameras import orbit_cameras
from sds3d.errors import CheckpointError
from sds3d.priors.embedded.captions import build_things, random_description
from sds3d.priors.embedded.render import render_depths, render_solids
from sds3d.priors.embedded.solids import frame
from sds3d.types import Cameras

SIZE = 64  # pixels
FOV_DEG = 40.0
ELEVATION_DEG = (-15.0, 60.0)
DISTANCE = (2.8, 3.2)  # world units
SCENES_PER_SHARD = 250
VIEWS = 6
FIRST_OF_PAIRS = 1_000_000  # index from which shards hold pairs only: they vary most and are memorised from few scenes
REFRESH = 100  # batches after which new shards are included in the sampling
TENSORS = ("rgba", "depths", "angles", "frames")  # in a shard's file
DEPTH_STEPS = 127  # per world unit: objects lie within one of the origin


@dataclass(frozen=True)
class Shard:
    """Renders of some scenes; `angles` are azimuth and elevation in radians, and the distance.

    `depths` are those of `render_depths` in steps of 1 / DEPTH_STEPS; `frames` are `placing.frame` of both things, the
    same twice for a single thing.
    """

    rgba: UInt8[Tensor, "S V H W 4"]
    depths: Int8[Tensor, "S V H W"]
    angles: Float[Tensor, "S V 3"]
    frames: Float[Tensor, "S 2 4"]
    captions: list[str]


def make_shard(index: int, scenes: int = SCENES_PER_SHARD, held_out: bool = False) -> Shard:
    """Shard number `index` of an endless sequence; the same index gives the same renders.

    From FIRST_OF_PAIRS on, all scenes are of "beside" and "two". With `held_out`, all are combinations that the prior
    must not be trained on.
    """
    rows, captions = [], []
    for scene in range(scenes):
        rng = Random(f"sds3d-{index}-{scene}")
        description = random_description(rng, held_out)
        while index >= FIRST_OF_PAIRS and description.relation not in ("beside", "two"):
            description = random_description(rng, held_out)
        things = build_things(description, rng)
        solids = [solid for thing in things for solid in thing]
        views = torch.tensor([_random_view(rng) for _ in range(VIEWS)])
        rgba = (render_solids(solids, shard_cameras(views)) * 255.0 + 0.5).to(torch.uint8)
        depths = (render_depths(solids, shard_cameras(views)) * DEPTH_STEPS).round().to(torch.int8)
        rows.append((rgba, depths, views, torch.tensor([frame(things[0]), frame(things[-1])])))
        captions.append(description.caption())
    rgba, depths, angles, frames = (torch.stack(column) for column in zip(*rows, strict=True))
    return Shard(rgba, depths, angles, frames, captions)


def shard_cameras(angles: Float[Tensor, "V 3"]) -> Cameras:
    """The cameras behind azimuth, elevation (radians) and distance."""
    azimuth, elevation, distance = angles.unbind(1)
    return orbit_cameras(azimuth, elevation, distance, torch.full_like(azimuth, math.radians(FOV_DEG)), SIZE)


def _random_view(rng: Random) -> tuple[float, float, float]:
    elevation = math.radians(rng.uniform(*ELEVATION_DEG))
    return rng.uniform(-math.pi, math.pi), elevation, rng.uniform(*DISTANCE)


def write_shard(folder: Path, index: int, held_out: bool = False) -> Path:
    """Make a shard file unless it exists; several processes may share one folder."""
    path = folder / f"shard_{index:05d}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shard = make_shard(index, held_out=held_out)
        tensors = {name: getattr(shard, name) for name in TENSORS}
        write_atomic(path, save(tensors, {"captions": json.dumps(shard.captions)}))
    return path


def read_shard(path: Path) -> Shard:
    """CheckpointError for a damaged file, or one that lacks tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            captions = json.loads(file.metadata()["captions"])
            return Shard(**{name: file.get_tensor(name) for name in TENSORS}, captions=captions)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot read the renders in {path}: {error}", "delete it; --data-only makes it again"
        ) from error


class Dataset:
    """All shards of a folder in memory (about 100 KB a scene); `refresh` adds those written since.

    The last `leave` of the initial shards, not counting pairs, are left out for measuring: `left` has their paths.
    """

    def __init__(self, folder: Path, leave: int = 0) -> None:
        self.folder = folder
        present = sorted(folder.glob("shard_*.safetensors"))
        mixed = [path for path in present if int(path.stem.removeprefix("shard_")) < FIRST_OF_PAIRS]
        self.left = mixed[len(mixed) - leave :]
        self.paths: list[Path] = []
        self.shards: list[Shard] = []
        self.refresh()

    def refresh(self) -> None:
        for path in sorted(self.folder.glob("shard_*.safetensors")):
            if path not in self.paths and path not in self.left:
                self.paths.append(path)
                self.shards.append(read_shard(path))

    def __len__(self) -> int:
        return sum(shard.angles.shape[0] * shard.angles.shape[1] for shard in self.shards)

    def batches(
        self, size: int, generator: torch.Generator, how_often: Callable[[str], float] = lambda caption: 1.0
    ) -> Iterator["Batch"]:
        """Endless random batches, with scenes weighted by `how_often(caption)`; all draws come from `generator`."""
        while True:
            scenes = [(shard, scene) for shard in self.shards for scene in range(len(shard.captions))]
            weights = torch.tensor([how_often(shard.captions[scene]) for shard, scene in scenes])
            for _ in range(REFRESH):
                numbers = torch.multinomial(weights, size, replacement=True, generator=generator).tolist()
                yield _batch([scenes[number] for number in numbers], generator)


def _batch(scenes: list[tuple[Shard, int]], generator: torch.Generator) -> "Batch":
    """One random view of each scene."""
    views = [int(torch.randint(shard.angles.shape[1], (), generator=generator)) for shard, _ in scenes]
    rgba, depths, angles = (
        torch.stack([getattr(shard, name)[scene, view] for (shard, scene), view in zip(scenes, views, strict=True)])
        for name in ("rgba", "depths", "angles")
    )
    frames = torch.stack([shard.frames[scene] for shard, scene in scenes])
    captions = [shard.captions[scene] for shard, scene in scenes]
    return Batch(rgba.float() / 255.0, depths.float() / DEPTH_STEPS, angles, frames, captions)


@dataclass(frozen=True)
class Batch:
    rgba: Float[Tensor, "B H W 4"]  # premultiplied
    depths: Float[Tensor, "B H W"]  # as `render_depths`
    angles: Float[Tensor, "B 3"]
    frames: Float[Tensor, "B 2 4"]  # as a shard's
    captions: list[str]


def random_backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
    """Uniform random colours, a third of them grey."""
    colors = torch.rand(count, 3, generator=generator)
    grey = torch.rand(count, 1, generator=generator) < 1.0 / 3.0
    return torch.where(grey, colors[:, :1].expand_as(colors), colors)
