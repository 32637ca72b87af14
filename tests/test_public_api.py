"""The names that people may rely on, and what importing them costs."""

import subprocess
import sys
from typing import get_args

import pytest

import sds3d

PUBLIC = {
    *(
        "GUIDANCE",
        "PRIORS",
        "SCENES",
        "Cameras",
        "Guidance",
        "GuidanceInput",
        "GuidanceOutput",
        "Prior",
        "RenderOutput",
    ),
    *("RunConfig", "RunFolder", "Scene", "Session", "__version__", "errors", "events", "load_config", "resolve"),
}
EVENTS = {
    *("StageBegun", "Started", "StepDone", "Preview", "Measured", "CheckpointSaved", "Exported", "Warned", "Changed"),
    *("Exporting", "Paused", "Resumed", "Finished", "Failed"),
}
COMMANDS = {"Change", "Pause", "Resume", "Stop", "FinishEarly"}
ERRORS = {  # exit code of each
    "Sds3dError": 1,
    "ConfigError": 2,
    "PriorUnavailable": 2,
    "CheckpointError": 2,
    "RunBusy": 2,
    "ExtensionUnavailable": 1,
    "NumericsError": 1,
    "OutOfMemory": 1,
    "ExportError": 1,
    "OutputError": 1,
}
# What `import sds3d` must not bring in: slow, optional, or someone else's side effects.
HEAVY = ["diffusers", "transformers", "gradio", "trimesh", "skimage", "imageio_ffmpeg", "typer", "rich", "gsplat"]


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(sds3d.__all__) == PUBLIC
    assert all(hasattr(sds3d, name) for name in PUBLIC)


def test_events_and_commands_are_these() -> None:
    assert {kind.__name__ for kind in get_args(sds3d.events.Event)} == EVENTS
    assert {kind.__name__ for kind in get_args(sds3d.events.Command)} == COMMANDS


def test_errors_are_these_with_their_exit_codes() -> None:
    found = {name: kind.exit_code for name, kind in vars(sds3d.errors).items() if isinstance(kind, type)}
    assert found == ERRORS


def test_an_error_ends_with_its_hint() -> None:
    assert str(sds3d.errors.ConfigError("steps is 0", "at least 1")) == "steps is 0 (at least 1)"


@pytest.mark.parametrize(
    ("text", "line"), [("one\ntwo", "one"), ("  \n one \r\n two", "one"), ("", "ValueError"), (" \n", "ValueError")]
)
def test_the_first_line_of_an_error_is_never_empty(text: str, line: str) -> None:
    assert sds3d.errors.first_line(ValueError(text)) == line


@pytest.mark.parametrize(("module", "heavy"), [("sds3d", HEAVY), ("sds3d_app.cli", ["torch", "sds3d"])])
def test_importing_brings_in_nothing_heavy(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
