"""How the embedded prior is named in a run's configuration."""

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from sds3d.priors.base import PriorConfig

if TYPE_CHECKING:
    from sds3d.priors.embedded.prior import EmbeddedPrior


class EmbeddedConfig(PriorConfig):
    """The small prior that ships with sds3d."""

    name: Literal["embedded"] = "embedded"
    weights: Annotated[str | None, Field(description="folder with other weights of the same networks")] = None

    def build(self, device: torch.device | str) -> "EmbeddedPrior":
        """Load the weights; imports diffusers."""
        from sds3d.priors.embedded.prior import load_embedded

        return load_embedded(self.weights, device)

    def knows(self) -> str:
        """Colours, things and how to put them together."""
        from sds3d.priors.embedded.prior import known_things

        return known_things()
