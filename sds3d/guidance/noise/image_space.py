"""Noise in image space, independent of the scene."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.noise.base import Noise, NoiseRequest


class Fresh(Noise[None]):
    """New noise for every view and step, as in DreamFusion."""

    name: Literal["fresh"] = "fresh"

    def sample(self, request: NoiseRequest, state: None) -> Float[Tensor, "B C h w"]:
        """Draws one number per element."""
        return torch.randn(len(request.cameras), *request.shape, generator=request.generator)


class Fixed(Noise[None]):
    """One noise image for all views and the whole run, each particle its own.

    Pitfall: less variance between steps, but also less variety between runs, because the seed is not the run's.
    """

    name: Literal["fixed"] = "fixed"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="seed of the noise image")] = 0

    def sample(self, request: NoiseRequest, state: None) -> Float[Tensor, "B C h w"]:
        """The same eps for each view of a particle; draws nothing from the run's generator."""
        own, particle = torch.Generator().manual_seed(self.seed), request.particle.cpu()
        return torch.randn(int(particle.max()) + 1, *request.shape, generator=own)[particle]
