"""Options and their mistakes, in this process; what a whole run does is in test_runs.py and test_process.py."""

import json
from pathlib import Path

import pytest

from sds3d.config.presets import PRESETS
from sds3d.guidance import GUIDANCE
from sds3d.priors import PRIORS
from sds3d.scenes import SCENES
from sds3d_app.cli import invoke


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
    assert invoke(["generate", *arguments, "--print-config"]) == 0
    return json.loads(capsys.readouterr().out)


def test_print_config_resolves_preset_file_options_and_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"steps": 7, "seed": 3, "cameras": {"views": 2}}))
    arguments = ["a red ball", "--prior", "analytic", "--config", str(file), "--preset", "draft", "--seed", "5"]
    config = printed_config([*arguments, "--set", "guidance.guidance_scale=12.5", "cameras.size=32"], capsys)
    assert config["prompt"] == "a red ball"
    assert (config["steps"], config["seed"]) == (7, 5)
    assert config["cameras"]["views"] == 2
    assert config["cameras"]["size"] == 32
    assert config["guidance"]["guidance_scale"] == 12.5
    assert config["prior"]["name"] == "analytic"
    assert config["preview_every"] == PRESETS["draft"]["preview_every"]


def test_a_printed_config_is_a_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = printed_config(["a ball", "--prior", "analytic", "--steps", "7"], capsys)
    file = tmp_path / "options.json"
    file.write_text(json.dumps(first))
    assert printed_config(["a ball", "--config", str(file)], capsys) == first


def test_words_stay_words(capsys: pytest.CaptureFixture[str]) -> None:
    config = printed_config(["7", "--prior", "analytic", "--negative-prompt", "null"], capsys)
    assert (config["prompt"], config["negative_prompt"]) == ("7", "null")


def test_help_names_every_choice(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert invoke(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    for name in [*PRIORS, *GUIDANCE, *SCENES, *PRESETS]:
        assert name in text


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
