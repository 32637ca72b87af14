"""Which kernels are found, and what happens without them."""

import os
import subprocess
import sys

import pytest
import torch

from sds3d.errors import ExtensionUnavailable
from sds3d.ops.extension import INSTRUCTION_SETS, backend_info, use_compiled

FALLBACK = """
import warnings
import torch
from sds3d.ops.extension import backend_info
from sds3d.ops.project_gaussians import project_gaussians
from sds3d.ops.rasterize_gaussians import rasterize_gaussians
from sds3d.types import Cameras

one = torch.ones(1)
cameras = Cameras(torch.eye(4)[None], torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]]), one, one, one, 16, 16)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        splat = torch.tensor([[0.0, 0, 2]]), torch.ones(1, 4), torch.full((1, 3), 0.2), one * 0.5
        p = project_gaussians(*splat, cameras)
        image, opacity = rasterize_gaussians(
            p.means2d, p.conics, one * 0.5, torch.ones(1, 1, 3), p.radii, p.depths, torch.zeros(1, 3), 16, 16
        )
assert 0.4 < opacity[0, 8, 8].item() <= 0.5, opacity
assert backend_info().cpu == "reference"
print(len([w for w in caught if "slow torch ops" in str(w.message)]))
"""


def test_disabled_extension_falls_back_with_one_warning():
    environment = {**os.environ, "SDS3D_DISABLE_EXTENSION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FALLBACK], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


def test_cuda_tensors_without_cuda_kernels_name_the_build_command():
    if backend_info().cuda:
        pytest.skip("the CUDA kernels are built here")
    with pytest.raises(ExtensionUnavailable, match="SDS3D_BUILD_CUDA=1 pip install"):
        use_compiled(torch.device("cuda"), "rasterize_gaussians")


def test_info_names_an_instruction_set_or_the_reason_for_none():
    info = backend_info()
    assert info.cpu in (*INSTRUCTION_SETS, "reference")
    assert (info.cpu == "reference") == bool(info.reason)
    assert (info.cpu == "reference") == (not info.path)
