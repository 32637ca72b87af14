"""The Prior protocol, its extensions, and the conversions between parametrizations. Nothing here knows distillation."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.options import Options
from sds3d.types import Material, ViewCondition

# Shapes; the axes are those of sds3d/types.py.
Times = Float[Tensor, " B"]  # t, in (0, 1)
Images = Float[Tensor, "B 3 H W"]  # [0, 1]
Latents = Float[Tensor, "B C h w"]  # in the prior's space
Embeddings = Float[Tensor, "B N D"]
Factors = Float[Tensor, "B 1 1 1"]  # alpha or sigma
VIEW_WORDS = ("front view", "side view", "back view", "overhead view")  # ends of a text that say where it is seen from


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16 itself: from Ampere on. Before, torch emulates it, slower than float32."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@runtime_checkable
class Prior(Protocol):
    """A frozen 2D diffusion model, whatever it predicts, as eps_hat(x_t, t, y).

    x_t = alpha(t) x + sigma(t) eps, alpha^2 + sigma^2 = 1, with t in (0, 1) (Song et al. 2021, the VP process).
    A prior with discrete times rounds t to its nearest tick. alpha and sigma are float32 whatever the network is: in
    half precision sigma is off by 7% at t = 0.001.
    """

    latent_shape: tuple[int, int, int]  # C, h, w

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """Text embeddings. The empty text gives the null condition of classifier-free guidance."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """Words of `text` that the prior would ignore, in order, each once; empty for priors that read free text."""
        return []

    def cautions(self, text: str) -> list[str]:
        """Known weaknesses that `text` runs into, each as a short phrase; usually none."""
        return []

    def encode(self, image: Images) -> Latents:
        """Images in [0, 1], of any size, to the prior's space; differentiable."""
        ...

    def decode(self, x: Latents) -> Images:
        """The prior's space to images in [0, 1]."""
        ...

    def alpha_sigma(self, t: Times) -> tuple[Factors, Factors]:
        """alpha(t) and sigma(t)."""
        ...

    def predict_noise(
        self, x_t: Latents, t: Times, embeddings: Sequence[Embeddings], view: ViewCondition | None = None
    ) -> list[Latents]:
        """eps_hat for each of the conditions, in one batched network call, without gradient."""
        ...


@runtime_checkable
class TrainablePrior(Prior, Protocol):
    """A prior of which a copy can be trained: the critic of VSD (Wang et al. 2023)."""

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """A module whose forward(x_t, t, embeddings, view) is the eps_hat of one condition, with gradients.

        It starts equal to the prior. Only its own parameters are trained and only they are in its state_dict; the
        prior's predictions never change. `rank` is that of the LoRA update of each matrix, if the prior is a network.
        All random numbers come from `generator`.
        """
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A prior, or a trainable copy of one, that can evaluate its density and not only the score."""

    def log_density(
        self, x_t: Latents, t: Times, embeddings: Embeddings, view: ViewCondition | None = None
    ) -> Float[Tensor, " B"]:
        """log p_t(x_t | y), up to a constant that the copies share."""
        ...


@runtime_checkable
class DensityPrior(Prior, HasDensity, Protocol):
    """A prior with a density; its trainable copies have one too."""


@runtime_checkable
class HasLimit(Prior, Protocol):
    """A prior whose text encoders read no more than so many words."""

    def unread(self, text: str) -> str:
        """The end of a text, before its view words, that none of them reads; empty where all is read."""
        ...


@runtime_checkable
class MemoryModes(Prior, Protocol):
    """A prior that can trade time for memory."""

    plans: bool  # whether a run may choose the mode; otherwise it stays as configured
    memory_mode: int  # index of the mode in use

    def memory_modes(self) -> list[str]:
        """The modes that can be set now, each as a short phrase, from the fastest (as configured) to the smallest."""
        ...

    def set_memory_mode(self, level: int) -> None:
        """Use a mode of `memory_modes` from the next call on; predictions change by rounding errors only.

        PriorUnavailable for a mode that cannot be used, such as offloading weights that a trainable copy shares.
        """
        ...


class PriorConfig(Options, ABC):
    """How a prior is chosen: its name and its options.

    `default_overrides` are options of other parts that the prior changes by default; `steps` and `stages` among them
    are left out where a person names a scene or stages. The facts below decide which combinations a config refuses,
    before anything is loaded.
    """

    name: str
    default_overrides: ClassVar[Mapping[str, Any]] = {}
    reads_cameras: ClassVar[bool] = False  # takes the camera of each view as an input
    reads_views: ClassVar[bool] = False  # understands words such as "front view"
    knows_density: ClassVar[bool] = False  # is a DensityPrior
    needs_orthogonal_views: ClassVar[bool] = False  # denoises groups of four views at right angles
    takes_reference_image: ClassVar[bool] = False  # conditioned on its option reference_image
    # the light that fell on all its training pictures, as sds3d.scenes.shading.Sun; None: it varied
    light: ClassVar[Mapping[str, Any] | None] = None
    simple_shapes: ClassVar[bool] = False  # they show things made of planes, spheres, cylinders and cones
    flat_colors: ClassVar[bool] = False  # its training pictures have few colours, each flat, with hard borders
    examples: ClassVar[tuple[str, ...]] = ()  # prompts that show what it can do

    def material(self, prompt: str) -> Material:
        """Of what its pictures of a prompt are drawn; the default where that is not known."""
        return Material()

    @abstractmethod
    def build(self, device: torch.device | str) -> Prior:
        """Load the prior onto the device; PriorUnavailable if that is not possible."""

    def knows(self) -> str:
        """What a prompt can ask for, in one line; empty for priors that read free text."""
        return ""

    def unknown_words(self, text: str) -> list[str]:
        """As `Prior.unknown_words`, as far as that is known without loading the prior."""
        return []

    def drawable(self, prompt: str) -> list[str] | None:
        """None for a prompt whose things the prior can draw, or that is to be taken as it is; else prompts near to it
        that it can draw, best first, if there are any."""
        return None

    def nearest(self, word: str) -> list[str]:
        """Known words to suggest for an unknown one, best first; usually none."""
        return []


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case, without accents on Latin letters, and no 's of a genitive."""
    plain = "".join(map(_without_accent, unicodedata.normalize("NFKC", text)))
    return re.findall(r"[^\W_]+", re.sub(r"['\u2019]s\b", "", plain.lower()))


def _without_accent(letter: str) -> str:
    base, *marks = list(unicodedata.normalize("NFD", letter))
    return base if base.isascii() and all(map(unicodedata.combining, marks)) else letter


def eps_from_sample(x0: Latents, x_t: Latents, alpha: Factors, sigma: Factors) -> Latents:
    """eps = (x_t - alpha x0) / sigma."""
    return (x_t - alpha * x0) / sigma


def eps_from_v(v: Latents, x_t: Latents, alpha: Factors, sigma: Factors) -> Latents:
    """eps = alpha v + sigma x_t, for v = alpha eps - sigma x (Salimans & Ho 2022)."""
    return alpha * v + sigma * x_t


def eps_from_velocity(velocity: Latents, x_t: Latents, alpha: Factors, sigma: Factors) -> Latents:
    """eps = (x_t + alpha velocity) / (alpha + sigma), for velocity = eps - x (Liu et al. 2022, rectified flow)."""
    return (x_t + alpha * velocity) / (alpha + sigma)


def sample_from_eps(eps: Latents, x_t: Latents, alpha: Factors, sigma: Factors) -> Latents:
    """x0 = (x_t - sigma eps) / alpha (Tweedie's formula)."""
    return (x_t - sigma * eps) / alpha
