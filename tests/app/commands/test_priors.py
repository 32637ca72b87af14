"""sds3d priors and the switches that every command understands."""

import json
import os
import shlex

import pytest

from sds3d_app.arguments import SWITCHES, take_switches
from sds3d_app.cli import invoke
from tests.priors.hub import tiny_models
from tests.priors.hub.conftest import cache, model_folder  # noqa: F401

FAMILIES = [*tiny_models.MODELS, *tiny_models.CAMERA_AWARE, "zero123"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in SWITCHES.values():
        monkeypatch.setenv(variable, "")


def test_the_list_names_every_known_model_and_whether_it_is_here(capsys):
    from sds3d.priors.hub.model_list import MODELS

    assert invoke(["priors", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in listed["models"]} == set(MODELS)
    assert not any(row["here"] for row in listed["models"])
    assert invoke(["priors", "list"]) == 0
    said = capsys.readouterr().out
    assert all(model in said for model in MODELS)


def test_what_show_says_to_do_can_be_done(capsys):
    """The command it prints is one that the command line takes."""
    from sds3d.priors.hub.model_list import MODELS

    for model in MODELS:
        assert invoke(["priors", "show", model, "--json"]) == 0
        command = json.loads(capsys.readouterr().out)["command"]
        assert invoke([*shlex.split(command)[1:], "--print-config", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["values"]["prior"]["model"] == model
    assert invoke(["priors", "show", "stabilityai/stable-diffusion-2-1-base"]) == 0
    assert "mirror sd2-community" in capsys.readouterr().out
    assert invoke(["priors", "show", "no/such-model"]) == 2
    assert "priors list" in capsys.readouterr().err


def test_check_looks_at_the_files(model_folder, capsys):  # noqa: F811
    folder = str(model_folder("sd3"))
    assert invoke(["priors", "check", folder, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["pipeline"] == "StableDiffusion3Pipeline"
    assert row["components"]["transformer"] == "diffusers.SD3Transformer2DModel"
    assert "dtype" not in row


@pytest.mark.parametrize("name", ["sd", "deepfloyd", "zero123"])
def test_check_with_load_runs_a_model(name, model_folder, capsys):  # noqa: F811
    assert invoke(["priors", "check", str(model_folder(name)), "--load", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["dtype"] == "float32"
    assert row["image_size"] == row["latent_shape"][1] * {"deepfloyd": 1}.get(name, 8)


def test_check_says_what_it_loaded(model_folder, capsys):  # noqa: F811
    assert invoke(["priors", "check", str(model_folder("sd3")), "--load"]) == 0
    assert "loads and runs: 64 px, latent [4, 8, 8], float32" in capsys.readouterr().out


def test_check_and_pull_never_go_online_when_told_not_to(capsys, no_network):
    assert invoke(["priors", "check", "someone/some-model"]) == 2
    assert "priors pull someone/some-model" in capsys.readouterr().err
    assert invoke(["priors", "pull", "someone/some-model", "--offline"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot load someone/some-model offline")
    assert error.count("\n") == 1
    assert no_network() == []


def test_pulling_a_folder_fetches_nothing(model_folder, capsys):  # noqa: F811
    assert invoke(["priors", "pull", str(model_folder("sd"))]) == 0
    said = capsys.readouterr()
    assert str(model_folder("sd")) in said.out
    assert "nothing to download" in said.err


@pytest.mark.parametrize("name", FAMILIES)
def test_doctor_measures_a_step_with_any_family(name, model_folder, capsys, monkeypatch):  # noqa: F811
    """A real step, at sizes that are quick: the recommended ones are for the real models."""
    from sds3d import config

    load = config.load_config
    quick = {"cameras.size": 16, "prior.image_size": 16 if name == "deepfloyd" else 64}
    monkeypatch.setattr(config, "load_config", lambda overrides: load(overrides={**overrides, **quick}))
    assert invoke(["doctor", "--prior", str(model_folder(name)), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"]
    assert plan["probes"][0]["seconds"] > 0


def test_doctor_lists_every_mode_that_is_too_big(model_folder, capsys, monkeypatch):  # noqa: F811
    from sds3d.training import memory

    monkeypatch.setattr(memory, "measure_step", lambda config, prior, device: (2**50, 1.0))
    assert invoke(["doctor", "--prior", str(model_folder("sd"))]) == 1
    printed = capsys.readouterr().out
    assert printed.count("too big") == 5
    assert "no memory mode fits" in printed


@pytest.mark.parametrize(("name", "prior"), [("sd", "diffusers"), ("mvdream", "multiview"), ("zero123", "zero123")])
def test_a_folder_after_prior_is_enough_whatever_its_family(name, prior, model_folder, capsys, tmp_path):  # noqa: F811
    line = ["generate", "a red mug", "--prior", str(model_folder(name)), "--print-config", "--json"]
    picture = ["reference_image.path=picture.png"] if name == "zero123" else []
    assert invoke([*line, *picture]) == 0
    assert json.loads(capsys.readouterr().out)["values"]["prior"]["name"] == prior


def test_a_folder_that_is_no_model_and_a_folder_named_like_a_prior(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "analytic").mkdir()
    assert invoke(["generate", "a red ball", "--prior", "mine", "--print-config"]) == 2
    assert "model_index.json" in capsys.readouterr().err
    assert invoke(["generate", "a red ball", "--prior", "analytic", "--print-config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"]["prior"]["name"] == "analytic"


@pytest.mark.parametrize(
    ("line", "left", "variables"),
    [
        (["generate", "a mug", "--offline"], ["generate", "a mug"], ["HF_HUB_OFFLINE"]),
        (["--allow-pickle", "doctor"], ["doctor"], ["SDS3D_ALLOW_PICKLE"]),
        (["generate", "--", "--offline"], ["generate", "--", "--offline"], []),
        (["--debug", "priors", "--offline", "list"], ["priors", "list"], ["SDS3D_DEBUG", "HF_HUB_OFFLINE"]),
    ],
)
def test_switches_are_taken_from_anywhere_on_the_line(line, left, variables):
    assert take_switches(line) == left
    assert [variable for variable in SWITCHES.values() if os.environ[variable] == "1"] == sorted(
        variables, key=list(SWITCHES.values()).index
    )


def test_help_shows_the_switches(capsys):
    assert invoke(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(switch in said for switch in SWITCHES)
