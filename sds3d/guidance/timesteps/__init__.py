"""The timestep axis: the diffusion time at which each view is judged. A new rule is one line here."""

from sds3d.guidance.timesteps.base import Annealed, Timesteps, Uniform
from sds3d.guidance.timesteps.descending import Descending, DreamTime, HiFA

__all__ = ["TIMESTEPS", "Annealed", "Descending", "DreamTime", "HiFA", "Timesteps", "Uniform"]

TIMESTEPS: dict[str, type[Timesteps]] = {
    "uniform": Uniform,
    "annealed": Annealed,
    "descending": Descending,
    "hifa": HiFA,
    "dreamtime": DreamTime,
}
