"""Whole runs on a device that takes no tensor of another one: steps, saves, resumes, previews and exports."""

from typing import Any

import pytest

from sds3d.guidance import GUIDANCE
from sds3d.scenes import SCENES
from tests.sizes import FULL
from tests.strict_device import runs

pytestmark = pytest.mark.xdist_group("strict device")
PRIORS = {
    "analytic": {"prior": {"name": "analytic", "size": 24}, "prompt": "a red ball", "cameras.size": 24},
    "embedded": {"prior": "embedded", "prompt": "a red mug", "cameras.size": 32},
}
GRID = [(scene, guidance, prior) for scene in SCENES for guidance in GUIDANCE for prior in PRIORS]
SOME = [("gaussians", "vsd", "analytic"), ("mesh", "cfd", "analytic")]  # beside the runs below, which count


def options(scene: str, guidance: str, **more: Any) -> dict[str, Any]:
    return {"scene.name": scene, "guidance": guidance, **runs.SMALL[scene], **more}


@pytest.mark.parametrize(("scene", "guidance", "prior"), GRID if FULL else SOME)
def test_scenes_run_resume_and_draw(on_device, tmp_path, scene: str, guidance: str, prior: str) -> None:
    warnings, steps, _ = on_device(runs.run, options(scene, guidance, **PRIORS[prior]), str(tmp_path))
    assert warnings == []
    assert [*steps] == [1, 2, 3]


def test_the_default_run_goes_from_splats_to_an_exported_mesh(on_device, tmp_path) -> None:
    asked = {**PRIORS["embedded"], **runs.SMALL["gaussians"], "steps": 4}
    warnings, steps, made = on_device(runs.run, asked, str(tmp_path), ("obj",), results=("sheet", "glb"))
    assert [*steps] == [1, 2, 3, 4]
    assert made == ["mesh.obj"]
    assert (tmp_path / "run" / "mesh.glb").is_file()
    assert [text for text in warnings if "finished" not in text and "texture" not in text] == []


# What a step waits for that is no step of a log, a checkpoint or a preview: what comes to the host, and what goes to
# the device from memory that is not pinned. The finite loss and gradient are two of the first kind, the sizes of lists
# that our kernels make one each, and every look of the mesh's conjugate gradients one.
WAITS = {
    ("image", "analytic"): (2, 4),
    ("gaussians", "analytic"): (3, 5),
    ("gaussians", "embedded"): (3, 7),
    ("nerf", "analytic"): (4, 6),
    ("mesh", "analytic"): (9, 5),
}


@pytest.mark.parametrize(("scene", "prior"), WAITS)
def test_a_step_waits_for_the_device_no_more_often_than_this(on_device, tmp_path, scene: str, prior: str) -> None:
    _, steps, _ = on_device(runs.run, options(scene, "sds", **PRIORS[prior]), str(tmp_path))
    waits = steps[2]
    to_host = sum(count for (kind, _), count in waits.items() if kind.startswith(runs.COPIES))
    most = WAITS[scene, prior]
    assert to_host <= most[0], waits.most_common()
    assert waits.total() - to_host <= most[1], waits.most_common()


MODELS = ["sd", "sd-v", "sd-x0", "sdxl", "sd3", "sd3-without-t5", "flux", "flux-schnell", "pixart-alpha"]
MODELS += ["pixart-alpha-sizes", "pixart-sigma", "sana", "deepfloyd", "mvdream", "zero123"]
HALF = ("float16", "bfloat16")
HUB = [(model, dtype, guidance) for model in MODELS for dtype in (*HALF, "float32") for guidance in ("sds", "vsd")]


@pytest.mark.parametrize(("model", "dtype", "guidance"), HUB if FULL else [("sd", "float16", "vsd")])
def test_models_of_the_hub_in_half_precision(on_device, tmp_path, model: str, dtype: str, guidance: str) -> None:
    warnings, steps, _ = on_device(runs.hub_run, model, dtype, guidance, str(tmp_path))
    assert [*steps] == [1, 2, 3]
    assert [text for text in warnings if not text.startswith("memory: ")] == []
