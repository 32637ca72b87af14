"""Priors by name: each entry is the prior's configuration, whose `build(device)` loads it."""

from typing import Protocol

import torch

from sds3d.options import Options
from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import Prior
from sds3d.priors.embedded.config import EmbeddedConfig


class PriorConfig(Protocol):
    """What every entry can do."""

    name: str

    def build(self, device: torch.device | str) -> Prior:
        """Load the prior onto the device."""
        ...


PRIORS: dict[str, type[Options]] = {"embedded": EmbeddedConfig, "analytic": AnalyticConfig}
