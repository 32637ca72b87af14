"""Several scenes in one run, the particles of ProlificDreamer (Wang et al. 2023); each is an ordinary Scene."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import Optimizer

from sds3d.scenes.base import PICTURE, ParamGroup, RenderContext, Scene, SceneConfig
from sds3d.types import Cameras, RenderOutput, Scalar, ViewColors

MAPS = ("rgb", "opacity", "depth", "normal")


class Particles(nn.Module):
    """`scenes` of one kind that share the batch of views of every step, and no parameters.

    View i of step k shows particle (i + k) mod n. Cameras are stratified over the batch, so each particle is seen from
    all sides over n steps, and each step shows all particles. Every particle gets the gradient that it would get alone,
    whatever n is: the mean over its own views, and its own regularizers. With a stateless guidance they are n
    independent runs; otherwise they share the guidance's state, such as the critic of VSD.
    """

    def __init__(self, scenes: list[Scene]) -> None:
        super().__init__()
        self.scenes = nn.ModuleList([cast(nn.Module, scene) for scene in scenes])
        self.turn: Tensor = nn.Buffer(torch.zeros((), dtype=torch.long))  # k mod n

    def each(self) -> list[Scene]:
        """The particles."""
        return [cast(Scene, scene) for scene in self.scenes]

    def render(self, cameras: Cameras, background: ViewColors, context: RenderContext = PICTURE) -> RenderOutput:
        """Each particle in its own views, in the order of `cameras`; `aux` holds the particles' own renders.

        Losses are means over all B views, so gradients are multiplied by n on their way back to the particles.
        """
        count = len(self.scenes)
        assert len(cameras) % count == 0, f"{len(cameras)} views for {count} particles"
        particle = (torch.arange(len(cameras), device=background.device) + self.turn) % count
        order = particle.argsort(stable=True)
        parts = [
            scene.render(cameras.select(views), background[views], context)
            for scene, views in zip(self.each(), order.chunk(count), strict=True)
        ]
        maps = {name: _joined([getattr(part, name) for part in parts], order.argsort()) for name in MAPS}
        for values in maps.values():
            if values is not None and values.requires_grad:
                values.register_hook(lambda grad: count * grad)
        return RenderOutput(**cast(Any, maps), aux=parts, particle=particle)

    def param_groups(self) -> list[ParamGroup]:
        """The groups of one particle, each with the parameters of all."""
        groups = [scene.param_groups() for scene in self.each()]
        return [
            replace(alike[0], parameters=[parameter for group in alike for parameter in group.parameters])
            for alike in zip(*groups, strict=True)
        ]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Scalar]:
        """Sums over the particles, each with its own render."""
        each = [scene.regularizers(part) for scene, part in zip(self.each(), _parts(out), strict=True)]
        return {name: torch.stack([losses[name] for losses in each]).sum() for name in each[0]}

    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Each particle's own structural updates, by its own render; then the views move on by one particle."""
        for scene, part in zip(self.each(), _parts(out), strict=True):
            scene.after_step(step, steps, part, optimizer)
        self.turn.fill_((step + 1) % len(self.scenes))


def build_scene(config: SceneConfig, particles: int, generator: torch.Generator) -> Scene | Particles:
    """One scene, or several that differ by what they draw from `generator`."""
    scenes = [config.build(generator) for _ in range(particles)]
    return scenes[0] if particles == 1 else Particles(scenes)


def scenes_of(scene: Scene | Particles) -> list[Scene]:
    """The scene, or all the particles."""
    return scene.each() if isinstance(scene, Particles) else [scene]


def _joined(maps: list[Tensor | None], places: Int[Tensor, " B"]) -> Tensor | None:
    """The particles' maps in the order of the cameras; None if they have none."""
    present = [values for values in maps if values is not None]
    return torch.cat(present)[places] if present else None


def _parts(out: RenderOutput) -> list[RenderOutput]:
    assert isinstance(out.aux, list), f"not a render of particles: {type(out.aux)}"
    return out.aux
