"""Gradients of the emulated operators: the functions that sds3d.ops registers for the real ones."""

from functools import cache

import torch

from sds3d.ops.composite import composite_backward
from sds3d.ops.composite import save_for_backward as save_weights
from sds3d.ops.hash_encode import hash_backward
from sds3d.ops.hash_encode import save_for_backward as save_points
from sds3d.ops.outlines import blend_backward, save_blending
from sds3d.ops.project_gaussians import project_backward
from sds3d.ops.project_gaussians import save_for_backward as save_projection
from sds3d.ops.rasterize_gaussians import rasterize_backward
from sds3d.ops.rasterize_gaussians import save_for_backward as save_images
from sds3d.ops.rasterize_triangles import interpolate_backward, save_interpolation, save_triangles, triangles_backward
from sds3d.ops.spherical_harmonics import harmonics_backward
from sds3d.ops.spherical_harmonics import save_for_backward as save_harmonics

GRADIENTS = {
    "blend_outlines": (blend_backward, save_blending),
    "composite": (composite_backward, save_weights),
    "hash_encode": (hash_backward, save_points),
    "interpolate": (interpolate_backward, save_interpolation),
    "project_gaussians": (project_backward, save_projection),
    "rasterize_gaussians": (rasterize_backward, save_images),
    "rasterize_triangles": (triangles_backward, save_triangles),
    "spherical_harmonics": (harmonics_backward, save_harmonics),
}


@cache
def register_autograd() -> None:
    """Once, after the library is loaded."""
    for name, (backward, setup_context) in GRADIENTS.items():
        torch.library.register_autograd(f"sds3d_emulated::{name}", backward, setup_context=setup_context)
