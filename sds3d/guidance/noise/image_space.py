"""Noise that knows nothing of the scene."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.noise.base import Noise, NoiseRequest


class Fresh(Noise):
    """New noise for every view and step, as in DreamFusion."""

    name: Literal["fresh"] = "fresh"

    def sample(self, request: NoiseRequest, state: Any) -> Float[Tensor, "B C h w"]:
        """Draws as many numbers as there are elements."""
        return torch.randn(len(request.cameras), *request.shape, generator=request.generator)


class Fixed(Noise):
    """One noise image for all views and the whole run, drawn from its own seed: less variance, less variety.

    Where a run has several particles, each has its own image.
    """

    name: Literal["fixed"] = "fixed"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def sample(self, request: NoiseRequest, state: Any) -> Float[Tensor, "B C h w"]:
        """The same eps for each view of a particle; draws nothing from the run's generator."""
        own, particle = torch.Generator().manual_seed(self.seed), request.particle.cpu()
        return torch.randn(int(particle.max()) + 1, *request.shape, generator=own)[particle]
