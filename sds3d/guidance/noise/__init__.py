"""The noise axis: which eps is added to each view before the prior judges it. A new kind is one line here."""

from sds3d.guidance.noise.base import Fixed, Fresh, Noise, NoiseRequest
from sds3d.guidance.noise.surface import Surface

__all__ = ["NOISE", "Fixed", "Fresh", "Noise", "NoiseRequest", "Surface"]

NOISE: dict[str, type[Noise]] = {"fresh": Fresh, "fixed": Fixed, "surface": Surface}
