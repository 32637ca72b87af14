"""Guidances by name. A new one is one file and one line here."""

from sds3d.guidance.base import Guidance
from sds3d.guidance.sds import SDS

GUIDANCE: dict[str, type[Guidance]] = {"sds": SDS}
