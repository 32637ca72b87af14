"""The analytic prior: a Gaussian mixture over images, whose score is exact. It needs no weights.

It knows colours only ("red" is a red disc from every side), so it makes coloured balls: for trying the pipeline and for
testing a guidance against closed forms.
"""

import math
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.priors.base import Factors, Images, Latents, Prior, PriorConfig, Times, split_words
from sds3d.types import ViewCondition

Shares = Float[Tensor, "B 1 K"]  # an embedding: how much of the mixture each mode is
TICKS = 1000
DISC_RADIUS = 0.6  # in units of half the image
SPREAD = 0.2  # standard deviation of each mode, images in [-1, 1]
GAIN = 100.0  # scale of a copy's parameters: at LoRA's learning rate of 1e-4 a mean would take 1e4 steps to move by 1
COLORS = {
    "red": (0.85, 0.12, 0.10),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.95, 0.85, 0.15),
    "green": (0.15, 0.60, 0.20),
    "blue": (0.12, 0.30, 0.80),
    "purple": (0.50, 0.20, 0.65),
    "pink": (0.95, 0.55, 0.70),
    "brown": (0.45, 0.27, 0.13),
    "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.07),
}
FILLER = {"a", "an", "the", "ball", "sphere", "disc"}  # known words that select no mode


class AnalyticConfig(PriorConfig):
    """Coloured discs with isotropic Gaussian variation around them."""

    name: Literal["analytic"] = "analytic"
    knows_density: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("a red ball", "a blue ball", "a green ball")
    size: Annotated[int, Field(ge=8, le=256, description="image side in pixels")] = 64

    def build(self, device: torch.device | str) -> "AnalyticPrior":
        """One mode per colour, a centred disc; all equally likely under the empty text."""
        colors = 2 * torch.tensor(list(COLORS.values())) - 1
        place = torch.arange(self.size) + 0.5 - self.size / 2
        radius = (place[:, None].square() + place[None, :].square()).sqrt()
        mask = (0.5 + DISC_RADIUS * self.size / 2 - radius).clamp(0, 1)  # its edge is one pixel wide
        count = len(colors)
        means = colors[:, :, None, None] * mask
        stds, weights = torch.full((count,), SPREAD), torch.full((count,), 1 / count)
        return AnalyticPrior(means, stds, weights, words=tuple(COLORS), coverage=mask, device=device)

    def knows(self) -> str:
        """The colours."""
        return f"a ball in {', '.join(COLORS)}"

    def unknown_words(self, text: str) -> list[str]:
        """Everything but the colours and words for a ball."""
        return _unknown_words(text, COLORS)


class AnalyticPrior(Prior):
    """p(x | y) = sum_k weight_k(y) N(mean_k, std_k^2 I), diffused on Stable Diffusion's schedule.

    An embedding is the vector of mixture weights. A text selects the modes whose words it contains; a text with none
    of them, such as the empty one, selects all. With `coverage` (1 inside the object) the means are premultiplied
    foregrounds that are composited over each view's background; without it they are whole images.
    """

    def __init__(
        self,
        means: Float[Tensor, "K C h w"],
        stds: Float[Tensor, " K"],
        weights: Float[Tensor, " K"],
        words: Sequence[str] = (),
        coverage: Float[Tensor, "h w"] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.means, self.stds = means.to(device), stds.to(device)
        self.weights = (weights / weights.sum()).to(device)
        self.words = tuple(words) or tuple(f"mode{k}" for k in range(len(means)))
        self.coverage = None if coverage is None else coverage.to(device)
        self.latent_shape = (means.shape[1], means.shape[2], means.shape[3])
        betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), TICKS, dtype=torch.float64).square()
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0).to(torch.float32).to(device)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T 1 K"]:
        """Mixture weights of each text."""
        rows = []
        for text in texts:
            named = set(split_words(text)) & set(self.words)
            selected = torch.tensor([not named or word in named for word in self.words], device=self.weights.device)
            row = self.weights * selected
            rows.append(row / row.sum())
        return torch.stack(rows)[:, None]

    def unknown_words(self, text: str) -> list[str]:
        """Every word that names neither a mode nor a ball."""
        return _unknown_words(text, self.words)

    def encode(self, image: Images) -> Latents:
        """To [-1, 1], resized to the prior's size."""
        size = self.latent_shape[1:]
        if image.shape[2:] != size:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        return 2 * image - 1

    def decode(self, x: Latents) -> Images:
        """Back to [0, 1]."""
        return ((x + 1) / 2).clamp(0, 1)

    def alpha_sigma(self, t: Times) -> tuple[Factors, Factors]:
        """sqrt(alphas_cumprod) and sqrt(1 - alphas_cumprod) at the nearest of 1000 ticks; always float32."""
        tick = (t.double() * TICKS).round().long().clamp(0, TICKS - 1).to(self.alphas_cumprod.device)
        alpha_squared = self.alphas_cumprod[tick][:, None, None, None]
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt()

    def log_density(
        self, x_t: Latents, t: Times, embeddings: Shares, view: ViewCondition | None = None
    ) -> Float[Tensor, " B"]:
        """log p_t(x_t | y) up to a constant: the log-sum over modes of their diffused densities; differentiable."""
        return torch.logsumexp(self._log_modes(x_t, t, embeddings, view)[0], dim=1)

    @torch.no_grad()
    def predict_noise(
        self, x_t: Latents, t: Times, embeddings: Sequence[Shares], view: ViewCondition | None = None
    ) -> list[Latents]:
        """eps_hat of each condition by `noise`."""
        return [self.noise(x_t, t, embedding, view) for embedding in embeddings]

    def noise(self, x_t: Latents, t: Times, embeddings: Shares, view: ViewCondition | None = None) -> Latents:
        """eps_hat = -sigma grad log p_t(x_t | y) = sigma sum_k r_k (x_t - alpha mean_k) / v_k; differentiable.

        v_k = alpha^2 std_k^2 + sigma^2; r_k is the posterior probability of mode k.
        """
        _, sigma = self.alpha_sigma(t)
        log_modes, offsets, variances = self._log_modes(x_t, t, embeddings, view)
        share = (log_modes.softmax(dim=1) / variances).to(x_t.dtype)
        return sigma * torch.einsum("bk,bkchw->bchw", share, offsets)

    def trainable_copy(self, rank: int, generator: torch.Generator) -> "MixtureCopy":
        """The same mixture with trainable means and spreads; it has no matrices, so `rank` is not used."""
        return MixtureCopy(self)

    def _log_modes(
        self, x_t: Tensor, t: Tensor, embedding: Tensor, view: ViewCondition | None
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K C h w"], Float[Tensor, "B K"]]:
        """log(weight_k N(x_t; alpha mean_k, v_k)) without the 2 pi, x_t - alpha mean_k, and v_k."""
        alpha, sigma = self.alpha_sigma(t)
        offsets = x_t[:, None] - alpha[:, None] * self.means_for(view)
        variances = alpha[:, :, 0, 0].square() * self.stds.square() + sigma[:, :, 0, 0].square()
        distances = offsets.square().sum(dim=(2, 3, 4))
        size = math.prod(self.latent_shape)
        return embedding[:, 0].log() - 0.5 * (distances / variances + size * variances.log()), offsets, variances

    def means_for(self, view: ViewCondition | None) -> Float[Tensor, "V K C h w"]:
        """The modes' means for each view (V = B), or for all at once (V = 1)."""
        if self.coverage is None or view is None or view.background is None:
            return self.means[None]
        background = 2 * view.background.to(self.means) - 1
        return self.means[None] + background[:, None, :, None, None] * (1 - self.coverage)


class MixtureCopy(nn.Module):
    """A mixture that starts as the prior's and learns: mean_k + GAIN shift_k, std_k exp(GAIN growth_k)."""

    def __init__(self, prior: AnalyticPrior) -> None:
        super().__init__()
        self.prior = prior
        self.shift = nn.Parameter(torch.zeros_like(prior.means))
        self.growth = nn.Parameter(torch.zeros_like(prior.stds))

    def mixture(self) -> AnalyticPrior:
        """What it has learned so far, as a prior with the same words; differentiable in the parameters."""
        moved = copy(self.prior)
        moved.means = self.prior.means + GAIN * self.shift
        moved.stds = self.prior.stds * (GAIN * self.growth).exp()
        return moved

    def forward(self, x_t: Latents, t: Times, embeddings: Shares, view: ViewCondition | None = None) -> Latents:
        """eps_hat of one condition."""
        return self.mixture().noise(x_t, t, embeddings, view)

    def log_density(
        self, x_t: Latents, t: Times, embeddings: Shares, view: ViewCondition | None = None
    ) -> Float[Tensor, " B"]:
        """log q_t(x_t | y), up to the prior's constant."""
        return self.mixture().log_density(x_t, t, embeddings, view)


def _unknown_words(text: str, modes: Iterable[str]) -> list[str]:
    known = {*modes, *FILLER}
    return [word for word in dict.fromkeys(split_words(text)) if word not in known]
