"""Compiled ops: one module each, with its public function, pure-torch reference and autograd registration."""

from sds3d.ops.extension import BackendInfo, backend_info
from sds3d.ops.project_gaussians import ProjectedGaussians, project_gaussians, project_gaussians_reference
from sds3d.ops.rasterize_gaussians import rasterize_gaussians, rasterize_gaussians_reference
from sds3d.ops.selective_adam import selective_adam_, selective_adam_reference_
from sds3d.ops.spherical_harmonics import spherical_harmonics, spherical_harmonics_reference

__all__ = [
    "BackendInfo",
    "ProjectedGaussians",
    "backend_info",
    "project_gaussians",
    "project_gaussians_reference",
    "rasterize_gaussians",
    "rasterize_gaussians_reference",
    "selective_adam_",
    "selective_adam_reference_",
    "spherical_harmonics",
    "spherical_harmonics_reference",
]
