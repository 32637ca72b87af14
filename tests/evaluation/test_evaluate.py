"""A suite from its runs to the page, and the command; with the analytic prior, whose balls are spheres to the world."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sds3d.config import load_config
from sds3d.errors import ConfigError
from sds3d.evaluation.classifier import load_classifier
from sds3d.evaluation.html_report import contact_sheet, means, page, write_summary
from sds3d.evaluation.scores import LIMITS, Evaluated, Scores, missed
from sds3d.evaluation.suite import SECONDS, SUITES, Suite, run_folder
from sds3d.priors.embedded.captions import parse
from sds3d.scenes import GaussiansConfig
from sds3d.training.session import export_run
from sds3d_app.cli import invoke

pytestmark = pytest.mark.xdist_group("evaluate")  # the runs are made and scored once


def test_suites_are_half_held_out_and_speak_the_worlds_language():
    for name, prompts in SUITES.items():
        held = [parse(prompt).held_out() for prompt in prompts]
        half = 0 if name == "seen" else len(prompts) // 2
        assert held == [False] * (len(prompts) - half) + [True] * half
    assert SUITES["seen"] == SUITES["standard"][:12]
    standard = [parse(prompt) for prompt in SUITES["standard"]]
    assert len(standard) == 24
    assert {d.relation for d in standard} == {None, "on", "beside", "two"}
    assert any(d.thing.part_color for d in standard)
    assert len({d.thing.pattern for d in standard}) >= 3
    assert len({d.thing.kind for d in standard}) >= 14


@pytest.fixture(scope="module")
def done(small_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    configs = [small_config(seed=seed) for seed in (0, 1)]
    suite = Suite(configs, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GaussiansConfig, "artifacts", ("glb",))  # no video
        assert list(suite.runs.run())
    assert suite.runs.finished()
    return suite, configs, folder


@pytest.fixture(scope="module")
def results(done):
    return list(done[0].evaluate(load_classifier()))


def test_every_run_has_a_folder_and_is_done_once(done):
    _, configs, folder = done
    names = {path.name for path in folder.iterdir()}
    assert names == {"00-sds-gaussians-0", "00-sds-gaussians-1"}
    assert run_folder(7, configs[1]) == "07-sds-gaussians-1"
    assert list(Suite(configs, folder).runs.run()) == []
    changed = [config.model_copy(update={"steps": 25}) for config in configs]
    with pytest.raises(ConfigError, match="other options"):
        Suite(changed, folder)


def test_scores_summary_picture_and_page(results, tmp_path):
    scores = results[0].scores
    assert scores.split == "seen"
    assert {"accuracy", "silhouette_iou", "volume_iou", "chamfer", "floaters", "seconds", "forwards"} <= set(
        scores.values
    )
    assert scores.values["silhouette_iou"] > 0.5  # a ball
    assert scores.attributes["relation"] > 0.5
    assert scores.truth["accuracy"] > 0.8
    assert scores.values["forwards"] == 2 * 24 * 2
    (row,) = means(results)
    assert row.runs == 2
    assert row.diversity > 0
    expected = np.mean([one.scores.values["silhouette_iou"] for one in results])
    assert row.values["silhouette_iou"] == pytest.approx(expected, abs=1e-3)
    write_summary(results, load_classifier().accuracy, tmp_path, "a <test>")
    with Image.open(tmp_path / "evaluation.png") as sheet:
        assert sheet.width > 2 * 8 * 96
    said = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(said["runs"]) == 2
    text = (tmp_path / "evaluation.html").read_text()
    assert "a &lt;test&gt;" in text
    assert "<test>" not in text


@pytest.mark.exports
def test_an_export_that_stands_elsewhere_is_scored_where_the_object_is(done, results):
    (folder, *_) = done[0].runs.configs
    list(export_run(folder, ["glb"], options={"size": 40, "pivot": "base"}))
    again = next(iter(done[0].evaluate(load_classifier()))).scores.values
    for name in ("volume_iou", "chamfer", "mesh_psnr"):
        assert again[name] == pytest.approx(results[0].scores.values[name], rel=1e-2), name


def test_the_command_scores_runs_and_refuses_what_is_none(done, results, tmp_path, capsys, monkeypatch):
    runs = [str(path) for path in done[0].runs.configs]
    assert invoke(["evaluate", runs[0], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"][0]["prompt"] == "a red ball"
    with monkeypatch.context() as patch:
        patch.setattr("sds3d.evaluation.scores.evaluate_run", lambda *_: results[1])  # as above, it takes seconds
        assert invoke(["evaluate", runs[1], "--out", str(tmp_path / "page")]) == 0
    assert "sil. IoU" in capsys.readouterr().out
    assert (tmp_path / "page" / "evaluation.html").is_file()
    for arguments, word in (
        (["evaluate"], "--suite"),
        (["evaluate", runs[0], "--suite", "quick"], "--suite"),
        (["evaluate", "--suite", "slow"], "known: quick, standard"),
        (["evaluate", str(tmp_path / "nowhere")], "nowhere"),
        (["evaluate", runs[0], "--clip", str(tmp_path)], "--clip"),
    ):
        assert invoke(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert word in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "folder", "scenes"),
    [
        ([], "00-sds-mesh-0", ["gaussians", "mesh"]),
        (["--scene", "gaussians"], "00-sds-gaussians-0", ["gaussians"]),
        (["--set", "prior=analytic"], "00-sds-gaussians-0", ["gaussians"]),
    ],
)
def test_a_suite_is_of_default_runs_unless_a_scene_is_named(options, folder, scenes, tmp_path, monkeypatch):
    made = []

    def stop(configs, out):
        made.extend(configs)
        raise ConfigError("enough")

    monkeypatch.setattr("sds3d.evaluation.suite.Suite", stop)
    assert invoke(["evaluate", "--suite", "quick", "--out", str(tmp_path), *options]) == 2
    plain = load_config(overrides={"prompt": "a red mug", **({} if len(scenes) > 1 else {"stages": []})})
    first = made[0]
    assert (first.steps, first.stages) == (plain.steps, plain.stages)
    assert [first.in_stage(number).scene.name for number in range(len(first.stages) + 1)] == scenes
    assert run_folder(0, first) == folder
    assert SECONDS[first.final.scene.name] == 90


def test_limits_are_named_when_missed():
    good = {"accuracy": 0.9, "silhouette_iou": 0.8, "floaters": 0.0, "seconds": 10.0}
    assert missed("seen", good, 90.0, True) == []
    assert missed("held-out", {**good, "accuracy": LIMITS["held-out"]}, 90.0, True) == []
    bad = {"accuracy": 0.5, "silhouette_iou": 0.2, "floaters": 0.1, "seconds": 100.0}
    assert len(missed("seen", bad, 90.0, False)) == 5
    assert missed("unknown", {"floaters": 0.0, "seconds": 1.0}, None, True) == []


def test_failures_are_written_in_red():
    strip = np.full((96, 8 * 96, 3), 200, np.uint8)

    def result(failed):
        return Evaluated(Scores("run", "a red mug", "sds", "gaussians", 0, 8, "seen", failed=failed), strip)

    def red(sheet):
        return int(((sheet[..., 0] > 150) & (sheet[..., 1] < 80)).sum())

    assert red(contact_sheet([result([])])) == 0
    assert red(contact_sheet([result(["no mesh"])])) > 20
    assert "no mesh" in page([result(["no mesh"])], {}, "t")
    assert Path("evaluation.png").name in page([result([])], {}, "t")
