"""The Scene protocol: what is optimized. Scenes are torch modules and never see a prior."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from sds3d.options import Options
from sds3d.scenes.background import Background, RandomBackground
from sds3d.types import Cameras, RenderOutput


@dataclass(frozen=True)
class ParamGroup:
    """One optimizer group: a named parameter and its learning rate."""

    name: str
    parameters: list[Any]  # list[nn.Parameter]
    lr: float
    eps: float = 1e-15


@dataclass(frozen=True)
class RenderContext:
    """What a render may know of the run it is a step of."""

    progress: float  # the part of the run that is done
    losses: Collection[str]  # regularizers that have a weight in this step
    generator: torch.Generator  # on the CPU whatever the device


@runtime_checkable
class Scene(Protocol):
    """An nn.Module that can be rendered, optimized and asked for its density."""

    def render(
        self, cameras: Cameras, background: Float[Tensor, "B 3"], context: RenderContext | None = None
    ) -> RenderOutput:
        """All cameras at once, composited over one solid colour per view.

        Without `context` it is a picture of the scene as it is: no draws, no shading, no losses.
        """
        ...

    def param_groups(self) -> list[ParamGroup]:
        """Parameters with their learning rates, for the optimizer."""
        ...

    def regularizers(self, out: RenderOutput) -> Mapping[str, Float[Tensor, ""]]:
        """Named scalar losses on a render or on the parameters; weighted by `loss_weights`.

        At least those that the render's `context.losses` asked for; dear ones need not be there unless asked for.
        """
        ...

    def after_step(self, step: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Structural updates after the optimizer's step: densification, pruning, occupancy."""
        ...

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """Unitless occupancy-like density at world points, >= 0."""
        ...

    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Diffuse sRGB colour at world points, [0, 1]."""
        ...


@runtime_checkable
class SplitRendering(Protocol):
    """A scene that can do with less memory, for more time."""

    def reduce_memory(self) -> str | None:
        """Render in smaller parts from now on, to the same result; how, or None where they are as small as can be."""
        ...


class SceneConfig(Options, ABC):
    """How a scene is chosen: its name, its options, and what it is rendered over in training.

    `losses` are the names of all regularizers there are. `artifacts` are the files that a finished run hands over (names
    of sds3d.run.artifacts.ARTIFACTS), in the order of writing. `default_overrides` are options of other parts that the scene wants
    where the person says nothing else.
    """

    name: str
    default_overrides: ClassVar[Mapping[str, Any]] = {}
    is_flat: ClassVar[bool] = False  # one picture from all sides: no views, no mesh
    losses: ClassVar[tuple[str, ...]] = ()
    artifacts: ClassVar[tuple[str, ...]] = ("sheet", "orbit", "ply", "glb")
    background: Background = RandomBackground()

    @abstractmethod
    def build(self, generator: torch.Generator) -> Scene:
        """A fresh scene on the CPU; every random number it will ever need descends from `generator`."""
