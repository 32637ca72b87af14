"""The Prior protocol and the conversions between parametrizations. Nothing here knows what distillation is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.options import Options
from sds3d.types import ViewCondition


@runtime_checkable
class Prior(Protocol):
    """A frozen 2D diffusion model behind one parametrization.

    x_t = alpha(t) x + sigma(t) eps with t in (0, 1); each prior snaps t to its own ticks. alpha, sigma are float32.
    """

    latent_shape: tuple[int, int, int]  # C, h, w

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """Text embeddings; the empty text is the null condition."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """Words of `text` that the prior has never seen and would ignore; empty for priors that read free text."""
        ...

    def cautions(self, text: str) -> list[str]:
        """What the prior is known to do badly of what `text` asks for, each in a few words; mostly none."""
        ...

    def encode(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Image in [0, 1] to prior space; differentiable."""
        ...

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Prior space to an image in [0, 1]."""
        ...

    def alpha_sigma(self, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """Diffusion coefficients at t, alpha^2 + sigma^2 = 1."""
        ...

    def predict_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        embeddings: Sequence[Float[Tensor, "B N D"]],
        view: ViewCondition | None = None,
    ) -> list[Float[Tensor, "B C h w"]]:
        """eps_hat for each condition, in one batched network call; no gradient; eps whatever the network predicts."""
        ...


@runtime_checkable
class TrainablePrior(Prior, Protocol):
    """A prior that can be copied into a network of the same kind that goes on learning."""

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """A module whose forward(x_t, t, embeddings, view) is one condition's eps_hat, with gradients.

        It starts as the prior itself and learns by its own parameters only, which are all that its state_dict holds;
        the prior's predictions never change with it. `rank` bounds what is added to each matrix where the prior is a
        network. Every random number descends from `generator`.
        """
        ...


@runtime_checkable
class DensityPrior(Prior, Protocol):
    """A prior that knows its density and not only its score; so do its trainable copies."""

    def log_density(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        embeddings: Float[Tensor, "B N D"],
        view: ViewCondition | None = None,
    ) -> Float[Tensor, "B"]:
        """log p_t(x_t | y) up to a constant that is the same for the copies."""
        ...


@runtime_checkable
class MemoryModes(Prior, Protocol):
    """A prior that can do with less memory, for more time."""

    plans: bool  # whether a run is to find out what it needs; else it is used as it was configured
    memory_mode: int  # the level in use

    def memory_modes(self) -> list[str]:
        """Ways to ask it, each in a few words, from the fastest (as configured) to the smallest."""
        ...

    def set_memory_mode(self, level: int) -> None:
        """Be asked in that way from now on; its answers change by no more than rounding."""
        ...


class PriorConfig(Options, ABC):
    """How a prior is chosen: its name and its options.

    `default_overrides` are options of other parts that the prior wants where the person says nothing else. The facts below
    decide which combinations a config refuses before anything is loaded.
    """

    name: str
    default_overrides: ClassVar[Mapping[str, Any]] = {}
    reads_cameras: ClassVar[bool] = False  # is told where a view is taken from
    reads_views: ClassVar[bool] = False  # understands words such as "front view"
    knows_density: ClassVar[bool] = False  # is a DensityPrior
    needs_orthogonal_views: ClassVar[bool] = False  # judges groups of four views at right angles
    takes_reference_image: ClassVar[bool] = False  # has an option reference_image, and goes by that
    examples: ClassVar[tuple[str, ...]] = ()  # prompts that show what it can do

    @abstractmethod
    def build(self, device: torch.device | str) -> Prior:
        """Load the prior onto the device; PriorUnavailable where that cannot be done."""

    def knows(self) -> str:
        """What can be asked for, in one line; empty for priors that read free text."""
        return ""

    def unknown_words(self, text: str) -> list[str]:
        """Words that the prior would ignore, as far as that is known without loading it."""
        return []

    def nearest(self, word: str) -> list[str]:
        """What to say instead of a word that the prior does not know, best first; mostly nothing."""
        return []


def eps_from_sample(
    x0: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """eps = (x_t - alpha x0) / sigma."""
    return (x_t - alpha * x0) / sigma


def eps_from_v(
    v: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """eps = alpha v + sigma x_t, for v = alpha eps - sigma x (Salimans & Ho 2022)."""
    return alpha * v + sigma * x_t


def eps_from_velocity(
    velocity: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """eps = (x_t + alpha velocity) / (alpha + sigma), for velocity = eps - x (Liu et al. 2022, rectified flow)."""
    return (x_t + alpha * velocity) / (alpha + sigma)


def sample_from_eps(
    eps: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """x0 = (x_t - sigma eps) / alpha (Tweedie's formula)."""
    return (x_t - sigma * eps) / alpha
