"""Models of the hub that are known to fit: where they are, what they cost, their licence, how to distil from them.

The list is models.json; there, a model's family goes by its pipeline, as in FAMILIES.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from sds3d.priors.hub.families import FAMILIES
from sds3d.priors.hub.families.base import Family


@dataclass(frozen=True)
class ModelEntry:
    """One model of the hub.

    `revision` is the commit that is downloaded by default; empty if none is pinned, then it is main.
    `options` are the recommended changes to `RunConfig`, by dotted keys.
    """

    model: str
    family: Family
    revision: str
    parameters: float  # of the network that denoises, in billions; twice that is its size in GB in half precision
    side: int  # pixels
    licence: str
    mirror: str = ""  # a repository with the same weights, in case the model is gone
    gated: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON, its family by name."""
        return {**vars(self), "family": self.family.name, "options": dict(self.options)}


def _read_models() -> Mapping[str, ModelEntry]:
    rows = json.loads((resources.files(__package__) / "models.json").read_text(encoding="utf-8"))
    models = {}
    for row in rows:
        family = FAMILIES[row.pop("pipeline")]
        models[row["model"]] = ModelEntry(family=family, **row)
    return models


MODELS = _read_models()
