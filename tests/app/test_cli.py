"""Options and their mistakes, in this process; what a whole run does is in test_runs.py and test_process.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sds3d.config import PRESETS
from sds3d.guidance import GUIDANCE
from sds3d.priors import PRIORS
from sds3d.scenes import SCENES
from sds3d_app.cli import app, invoke


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", ""], "prompt"),
        (["generate", "   "], "prompt"),
        (["generate", "a" * 10_000], "10000 characters"),
        (["generate", "a red\x1b[31m mug"], "control character"),
        (["generate", "a red\x00mug"], "control character"),
        (["generate", "a mug", "--steps", "0"], "steps"),
        (["generate", "a mug", "--steps", "many"], "--steps"),
        (["generate", "a mug", "--seed", "-1"], "seed"),
        (["generate", "a mug", "--device", "tpu"], "device"),
        (["generate", "a mug", "--rasterizer", "opengl"], "scene.rasterizer"),
        (["generate", "a mug", "--prior", "analitic"], "did you mean analytic"),
        (["generate", "a mug", "--guidance", "sdss"], "did you mean sds"),
        (["generate", "a mug", "--scene", "gaussian"], "did you mean gaussians"),
        (["generate", "a mug", "--preset", "drafty"], "did you mean draft"),
        (["generate", "a mug", "--set", "guidance.guidance_scal=3"], "did you mean guidance.guidance_scale"),
        (["generate", "a mug", "--set", "setps=3"], "did you mean steps"),
        (["generate", "a mug", "--set", "steps"], "KEY=VALUE"),
        (["generate", "a", "red", "mug"], "quotes around the prompt"),
        (["generate", "a mug", "--config", "nowhere.json"], "nowhere.json"),
        (["generate", "a mug", "--stesp", "3"], "--steps"),
        (["generate"], "PROMPT"),
        (["genrate", "a mug"], "generate"),
        (["resume", "nowhere"], "nowhere"),
        (["render", "nowhere"], "nowhere"),
        (["export", "nowhere"], "nowhere"),
        (["render", "nowhere", "--size", "3"], "--size"),
    ],
)
def test_a_mistake_is_one_line_and_2_and_leaves_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == 2
    assert said.lower() in one_error_line(capsys).lower()
    assert list(tmp_path.iterdir()) == []


def printed_config(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    assert invoke(["generate", *arguments, "--print-config", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_print_config_resolves_preset_file_options_and_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"steps": 7, "seed": 3, "cameras": {"views": 2}}))
    arguments = ["a red ball", "--prior", "analytic", "--config", str(file), "--preset", "draft", "--seed", "5"]
    printed = printed_config([*arguments, "--set", "guidance.guidance_scale=12.5", "cameras.size=32"], capsys)
    config, sources = printed["values"], printed["sources"]
    assert (config["prompt"], sources["prompt"]) == ("a red ball", "you")
    assert (config["steps"], sources["steps"]) == (7, str(file))
    assert (config["seed"], sources["seed"]) == (5, "you")
    assert (config["cameras"]["views"], sources["cameras.views"]) == (2, str(file))
    assert (config["cameras"]["size"], sources["cameras.size"]) == (32, "you")
    assert config["guidance"]["guidance_scale"] == 12.5
    assert config["prior"]["name"] == "analytic"
    assert config["preview_every"] == PRESETS["draft"]["preview_every"]
    assert sources["preview_every"] == "preset draft"


def test_a_printed_config_is_a_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = printed_config(["a ball", "--prior", "analytic", "--steps", "7"], capsys)
    file = tmp_path / "options.json"
    file.write_text(json.dumps(first))
    assert printed_config(["a ball", "--config", str(file)], capsys)["values"] == first["values"]
    other = printed_config(["a ball", "--config", str(file), "--guidance", "cfd"], capsys)["values"]
    assert (other["noise"]["name"], other["steps"]) == ("surface", 7)


def test_print_config_shows_a_line_for_each_option_that_set_takes(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["a größer mug", "--scene", "nerf", "--guidance", "cfd", "--set", "cameras.elevation_deg=[0, 30]"]
    assert invoke(["generate", *arguments, "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    pairs, sources = zip(*(line.split("  # ") for line in lines), strict=True)
    rows = dict(zip((pair.strip() for pair in pairs), sources, strict=True))
    assert rows['prompt = "a größer mug"'] == "you"
    assert rows["cameras.elevation_deg = [0.0, 30.0]"] == "you"
    assert rows['noise.name = "surface"'] == "guidance cfd"
    assert rows["loss_weights.sparsity = 20.0"] == "scene nerf"
    assert rows["seed = 0"] == "default"
    assert len({line.index("  # ") for line in lines if len(line.split("  # ")[0]) <= 60}) == 1
    settings = [pair.strip().replace(" = ", "=", 1) for pair in pairs if "prompt = " not in pair]
    again = printed_config(["a größer mug", *(text for text in settings if not text.endswith("={}"))], capsys)
    assert again["values"] == printed_config(arguments, capsys)["values"]


def test_words_stay_words(capsys: pytest.CaptureFixture[str]) -> None:
    config = printed_config(["7", "--prior", "analytic", "--negative-prompt", "null"], capsys)["values"]
    assert (config["prompt"], config["negative_prompt"]) == ("7", "null")


def test_help_names_every_choice(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert invoke(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    for name in [*PRIORS, *GUIDANCE, *SCENES, *PRESETS]:
        assert name in text


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield before
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*before, name))


@pytest.mark.parametrize("words", commands(get_command(app)), ids=" ".join)
def test_every_help_fits_one_screen(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert invoke([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if "…" in line]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import sds3d

    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"sds3d {sds3d.__version__}\n"


def test_without_a_command_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([]) == 2
    captured = capsys.readouterr()
    assert "generate" in captured.out + captured.err
    assert "error" not in captured.err


def test_a_config_file_that_is_not_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "options.json"
    for text in ["{", "[]", '{"steps": NaN}', "[" * 100_000]:
        file.write_text(text)
        assert invoke(["generate", "a ball", "--config", str(file)]) == 2
        one_error_line(capsys)


@pytest.mark.parametrize(("yours", "policy"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_leave_the_cores_to_others_unless_you_say_otherwise(yours: str | None, policy: str) -> None:
    """OpenMP reads it as torch is loaded, so it has to be there before; workers inherit it."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if yours is not None:
        environment["OMP_WAIT_POLICY"] = yours
    code = "import os, sys, sds3d_app.cli; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert output.split() == [policy, "False"]
