"""sds3d priors and the switches that every command understands."""

import json
import os
import shlex

import pytest

from sds3d_app.arguments import SWITCHES, take_switches
from sds3d_app.cli import invoke
from tests.priors.hub.conftest import cache, model_folder  # noqa: F401


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in SWITCHES.values():
        monkeypatch.setenv(variable, "")


def test_the_list_names_every_known_model_and_whether_it_is_here(capsys):
    from sds3d.priors.hub.model_list import KNOWN

    assert invoke(["priors", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in listed["models"]} == set(KNOWN)
    assert not any(row["here"] for row in listed["models"])
    assert invoke(["priors", "list"]) == 0
    said = capsys.readouterr().out
    assert all(model in said for model in KNOWN)


def test_what_show_says_to_do_can_be_done(capsys):
    """The command it prints is one that the command line takes."""
    from sds3d.priors.hub.model_list import KNOWN

    for model in KNOWN:
        assert invoke(["priors", "show", model, "--json"]) == 0
        command = json.loads(capsys.readouterr().out)["command"]
        assert invoke([*shlex.split(command)[1:], "--print-config", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["values"]["prior"]["model"] == model
    assert invoke(["priors", "show", "stabilityai/stable-diffusion-2-1-base"]) == 0
    assert "mirror sd2-community" in capsys.readouterr().out
    assert invoke(["priors", "show", "no/such-model"]) == 2
    assert "priors list" in capsys.readouterr().err


def test_check_looks_at_the_files_and_with_load_asks_the_model(model_folder, capsys):  # noqa: F811
    folder = str(model_folder("sd3"))
    assert invoke(["priors", "check", folder, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["pipeline"] == "StableDiffusion3Pipeline"
    assert row["components"]["transformer"] == "diffusers.SD3Transformer2DModel"
    assert "dtype" not in row
    assert invoke(["priors", "check", folder, "--load"]) == 0
    assert "loads and answers: 64 px, latent [4, 8, 8], float32" in capsys.readouterr().out


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
    assert "nothing to fetch" in said.err


def test_doctor_measures_what_a_step_needs(model_folder, capsys, monkeypatch):  # noqa: F811
    from sds3d.training import memory as planning

    folder = str(model_folder("sd"))
    assert invoke(["doctor", "--prior", folder, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"]
    assert plan["probes"][0]["seconds"] > 0
    monkeypatch.setattr(planning, "measure_step", lambda config, prior, device: (2**50, 1.0))
    assert invoke(["doctor", "--prior", folder]) == 1
    said = capsys.readouterr().out
    assert said.count("too big") == 5
    assert "no way of asking it fits" in said


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
