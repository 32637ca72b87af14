"""Guidance methods by name. A new one is one file and one line here."""

from sds3d.guidance.base import Guidance
from sds3d.guidance.cfd import CFD
from sds3d.guidance.csd import CSD
from sds3d.guidance.ism import ISM
from sds3d.guidance.nfsd import NFSD
from sds3d.guidance.sdi import SDI
from sds3d.guidance.sds import SDS
from sds3d.guidance.sjc import SJC
from sds3d.guidance.ssd import SSD
from sds3d.guidance.vsd import VSD

GUIDANCE: dict[str, type[Guidance]] = {
    "sds": SDS,
    "sjc": SJC,
    "csd": CSD,
    "nfsd": NFSD,
    "ssd": SSD,
    "ism": ISM,
    "sdi": SDI,
    "vsd": VSD,
    "cfd": CFD,
}
