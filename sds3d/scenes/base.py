"""The Scene protocol: what is optimized. Scenes are torch modules and never see a prior."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer

from sds3d.options import Options
from sds3d.scenes.background import Background, RandomBackground
from sds3d.types import Cameras, RenderOutput, Scalar, ViewColors

INIT_COLOR_JITTER = 0.1  # start colours are drawn from 0.5 +- this: grey, but not one flat colour


@dataclass(frozen=True)
class ParamGroup:
    """One optimizer group: named parameters and their learning rate."""

    name: str
    parameters: list[Any]  # list[nn.Parameter]
    lr: float
    eps: float = 1e-15
    uniform: bool = False  # one second moment for all, so that a step keeps the gradient's direction everywhere


@dataclass(frozen=True)
class RenderContext:
    """What a render is for. The defaults are those of a picture: no draws, no light, no losses."""

    progress: float = 1.0  # part of the run that is done
    losses: Collection[str] = ()  # regularizers that have a weight in this step
    generator: torch.Generator | None = None  # of a training step, on the CPU whatever the device; None: a picture
    normals: bool = False  # whether RenderOutput.normal is wanted
    lit: bool = True  # whether light may fall on it: not where its own colours are wanted


PICTURE = RenderContext()


@runtime_checkable
class Scene(Protocol):
    """An nn.Module that can be rendered, optimized and asked for its density."""

    def render(self, cameras: Cameras, background: ViewColors, context: RenderContext = PICTURE) -> RenderOutput:
        """All cameras at once, composited over one solid colour per view."""

    def param_groups(self) -> list[ParamGroup]:
        """Parameters with their learning rates, for the optimizer."""

    def regularizers(self, out: RenderOutput) -> Mapping[str, Scalar]:
        """Named scalar losses on a render or on the parameters, to be weighted by `loss_weights`.

        Has at least those that the render's `context.losses` named; expensive ones may be missing otherwise.
        """

    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Structural updates after the optimizer's step number `step` (from 0) of `steps`: densification, occupancy."""

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        """Density at world points, >= 0; its unit is the scene's own."""

    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Diffuse sRGB colour at world points, [0, 1]."""


@runtime_checkable
class SplitRendering(Protocol):
    """A scene that can render with less memory in more time."""

    def reduce_memory(self) -> str | None:
        """Render in smaller parts from now on, to the same result; says how. None: the parts are as small as can be."""


@runtime_checkable
class HasSurface(Protocol):
    """A scene that is a surface: what is exported of it is that, and not what a search in its density finds."""

    @property
    def is_finished(self) -> bool:
        """Whether it is as it is to be handed over: nothing is left to `finish`."""
        ...

    def finish(self) -> str | None:
        """Make it what an artist would hand over; why it stays as it is, where it does. An optimizer of the old surface
        is void."""

    def surface(self) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
        """Vertices in world units, and faces; corners are counter-clockwise seen from outside."""
        ...


class SceneConfig(Options, ABC):
    """How a scene is chosen: its name, its options, and what it is rendered over in training.

    `losses` names all its regularizers. `artifacts` names the files that a finished run exports (keys of
    sds3d.run.artifacts.ARTIFACTS), in the order of writing. `default_overrides` are defaults for options of other
    parts. `is_flat` says that there is no depth, no normal and no mesh; `has_surface` that its scenes are HasSurface.
    `state_shape` names the options, or groups of them, that a scene's state depends on: a later stage with the same
    scene has to keep them.
    """

    name: str
    default_overrides: ClassVar[Mapping[str, Any]] = {}
    is_flat: ClassVar[bool] = False  # one picture from all sides: no views, no mesh
    has_surface: ClassVar[bool] = False
    losses: ClassVar[tuple[str, ...]] = ()
    artifacts: ClassVar[tuple[str, ...]] = ("sheet", "orbit", "ply", "glb")
    state_shape: ClassVar[tuple[str, ...]] = ()
    background: Background = RandomBackground()

    @property
    def results(self) -> tuple[str, ...]:
        """The `artifacts` of a scene with these options."""
        return self.artifacts

    def check(self, device: torch.device) -> None:
        """ConfigError or ExtensionUnavailable, before a run begins, where this machine cannot do what it needs."""

    @abstractmethod
    def build(self, generator: torch.Generator) -> Scene:
        """A fresh scene on the CPU; every random number it will ever need descends from `generator`."""
