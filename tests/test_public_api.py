"""The names that people may rely on, and what importing them costs."""

import subprocess
import sys

import pytest

import sds3d

PUBLIC = {"RunConfig", "Session", "__version__", "errors", "events", "load_config"}
EVENTS = {
    "Changed",
    "Measured",
    "Started",
    "StepDone",
    "Preview",
    "CheckpointSaved",
    "Exported",
    "Warned",
    "Finished",
    "Event",
}
ERRORS = {  # exit code of each
    "Sds3dError": 1,
    "ConfigError": 2,
    "PriorUnavailable": 2,
    "CheckpointError": 2,
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


def test_events_are_these() -> None:
    found = {name for name in vars(sds3d.run.events) if name[0].isupper() and name not in {"Mapping", "Path", "Any"}}
    assert found == EVENTS


def test_errors_are_these_with_their_exit_codes() -> None:
    found = {name: kind.exit_code for name, kind in vars(sds3d.errors).items() if isinstance(kind, type)}
    assert found == ERRORS


def test_an_error_ends_with_its_hint() -> None:
    assert str(sds3d.errors.ConfigError("steps is 0", "at least 1")) == "steps is 0 (at least 1)"


@pytest.mark.parametrize(("module", "heavy"), [("sds3d", HEAVY), ("sds3d_app.cli", ["torch", "sds3d"])])
def test_importing_brings_in_nothing_heavy(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
