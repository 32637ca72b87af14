"""Stages of a run: what each of them is, a scene that takes over another, and a resume in each that changes nothing."""

import json

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.config import resolve
from sds3d.errors import ConfigError
from sds3d.run.events import CheckpointSaved, FinishEarly, Finished, StageBegun, StepDone, Stop, from_dict
from sds3d.scenes import GaussiansConfig, MeshConfig
from sds3d.scenes.mesh import Mesh
from sds3d.scenes.shading import Sun
from sds3d.training import take_over as module
from sds3d.training.session import Session
from sds3d.training.take_over import take_over

MESH = {"begin_at": 0.5, "options": {"scene": "mesh", "guidance.guidance_scale": 3, "cameras.views": 2}}


def staged(**options):
    return resolve({"prompt": "a red mug", "steps": 100, "stages": [MESH], **options})


def test_a_stage_is_the_run_s_options_with_its_own_over_them() -> None:
    config = staged(**{"cameras.size": 48, "loss_weights.opaque": 2.0})
    first, second = config.in_stage(0), config.in_stage(1)
    assert config.stage_begins == [0, 50]
    assert (first.scene.name, second.scene.name) == ("gaussians", "mesh")
    assert (first.steps, second.steps) == (50, 50)
    assert (second.guidance.guidance_scale, second.cameras.views, second.cameras.size) == (3, 2, 48)
    assert first.loss_weights["opaque"] == 2.0
    assert second.loss_weights == {}  # of the splats, and not of a mesh
    assert second.scene.light == Sun(**config.prior.light)  # defaults as for a run of its own
    assert config.final == second
    assert resolve({"prompt": "a red mug"}).final.scene.name == "gaussians"


def test_it_survives_files_and_keeps_what_was_said_apart_from_what_that_means() -> None:
    config = staged()
    assert config.said["stages"] == [MESH]
    assert config.to_dict()["stages"][0]["options"]["scene"]["samples"] == 3
    assert resolve(json.loads(json.dumps(config.to_dict()))) == config
    assert resolve(config.said) == config
    assert type(config).restore(config.said, config.to_dict()) == config


def test_options_of_the_search_for_a_surface_are_refused_where_the_run_ends_with_one() -> None:
    for config in (staged(), resolve({"prompt": "a red mug", "scene": "mesh"})):
        with pytest.raises(ConfigError, match=r"^export\.level = 5 .*leave it out") as caught:
            config.with_changes({"export.level": 5}, allowed=("export.level",))  # as `sds3d export` does
        assert caught.value.field == "export.level"
        assert config.with_changes({"export.faces": 500}, allowed=("export.faces",)).export.faces == 500
    more_splats = {"begin_at": 0.5, "options": {"guidance.guidance_scale": 3}}
    assert staged(**{"export.level": 5, "stages": [more_splats]}).export.level == 5


def test_a_change_on_the_way_reaches_the_stages_that_have_the_option() -> None:
    changed = staged().with_changes({"guidance.guidance_scale": 7, "prompt": "a blue mug"})
    assert [changed.in_stage(number).guidance.guidance_scale for number in (0, 1)] == [7, 7]
    assert changed.in_stage(1).prompt == "a blue mug"
    assert changed.in_stage(1).cameras.views == 2


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([{"begin_at": 0.5, "options": {"seed": 3}}], r"stages\[0\]: seed cannot change on the way"),
        ([MESH, {**MESH, "begin_at": 0.4}], r"stages\[1\].begin_at = 0.4: the stage before has no step"),
        ([{**MESH, "begin_at": 0.001}], r"stages\[0\].begin_at = 0.001: the stage before has no step"),
        ([{"begin_at": 0.5, "options": {"scene": "nerf"}}], r"of kind nerf cannot take over one of kind gaussians"),
        ([MESH, {"begin_at": 0.7, "options": {}}], r"stages\[1\]: a scene of kind gaussians cannot take over .* mesh"),
        ([{"begin_at": 0.5, "options": {"scene.count": "x"}}], r"stages\[0\]: scene.count = 'x'"),
        (
            [{"begin_at": 0.5, "options": {"loss_weights.nothing": 1}}],
            r"stages\[0\]: loss_weights.nothing is not a loss",
        ),
        ([{"begin_at": 1.5, "options": {}}], "begin_at"),
        ([{"options": {}}], "begin_at"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_place(stages, problem) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve({"prompt": "a red mug", "steps": 100, "stages": stages})


def ball_of_splats():
    """Opaque splats on a ball: red above, blue below."""
    scene = GaussiansConfig(count=2000).build(torch.Generator().manual_seed(0))
    with torch.no_grad():
        points = torch.nn.functional.normalize(scene.raw_means, dim=1) * 0.5
        scene.raw_means.copy_(points)
        scene.raw_opacities.fill_(4.0)
        scene.raw_scales.fill_(-3.2)
        red, blue = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8])
        scene.raw_colors.copy_(torch.where(points[:, 2:] > 0, red, blue).logit())
    return scene


@pytest.mark.slow
@pytest.mark.parametrize("light", [None, Sun(direction=(0, 0, 1), ambient=0.5, diffuse=0.5)])
def test_a_mesh_looks_like_the_splats_that_it_takes_over(light) -> None:
    """With a light as well: it is taken out of the colours, and falls on them again."""
    splats = ball_of_splats()
    mesh = MeshConfig(light=light).build(torch.Generator().manual_seed(1))
    take_over(splats, mesh)
    cameras, white = orbit(4, size=64), torch.ones(4, 3)
    with torch.no_grad():
        got, want = mesh.render(cameras, white), splats.render(cameras, white)
    a, b = got.opacity > 0.5, want.opacity > 0.5
    assert float((a & b).sum() / (a | b).sum()) > 0.95
    inside = torch.nn.functional.avg_pool2d((a & b).float().permute(0, 3, 1, 2), 9, 1, 4)[:, 0] > 0.99
    away = inside & ((torch.arange(64)[None, :, None] - 31.5).abs() > 6)  # from the border of the colours
    assert float((got.rgb - want.rgb).abs()[away].mean()) < 0.06
    if light is None:
        assert torch.allclose(mesh.color(torch.tensor([[0.0, 0.0, 0.5]])), torch.tensor([[0.8, 0.1, 0.1]]), atol=0.1)


def test_a_scene_of_the_same_kind_goes_on_from_the_state() -> None:
    old, new = ball_of_splats(), GaussiansConfig(count=50).build(torch.Generator().manual_seed(1))
    take_over(old, new)
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())


@pytest.fixture
def quick_take_over(monkeypatch):
    """A small ball instead of a search for the splats' surface, in colours that depend on the splats."""

    def become(mesh: Mesh, scene) -> None:
        mesh.color_field.biases[1].data += scene.raw_colors.mean(0)

    monkeypatch.setattr(module, "become_surface", become)


SMALL = {
    "prompt": "a red ball",
    "prior": {"name": "analytic", "size": 16},
    "cameras": {"size": 16, "views": 2},
    "scene": {"name": "gaussians", "count": 100},
    "steps": 12,
    "checkpoint_every": 4,
    "preview_every": 0,
    "stages": [
        {"begin_at": 0.25, "options": {"guidance.guidance_scale": 5}},
        {"begin_at": 0.5, "options": {"scene": {"name": "mesh", "samples": 1}, "cameras.views": 4}},
    ],
}


def run(session, until=None):
    """The events of a run; with `until` it is stopped after that step."""
    seen = []
    for event in session.run():
        seen.append(event)
        if isinstance(event, StepDone) and event.step == until:
            session.send(Stop())
    return seen


def tensors(folder):
    return folder.load_checkpoint()[0].tensors


def test_stages_follow_one_another_and_are_told_of(only_a_sheet, quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    seen = run(session)
    begun = [event for event in seen if isinstance(event, StageBegun)]
    assert [(event.step, event.stage, event.stages, event.scene) for event in begun] == [
        (3, 2, 3, "gaussians"),
        (6, 3, 3, "mesh"),
    ]
    assert from_dict(begun[0].to_dict()) == begun[0]
    assert [event.step for event in seen if isinstance(event, StepDone)] == list(range(1, 13))
    assert [event.step for event in seen if isinstance(event, CheckpointSaved)] == [3, 4, 6, 8, 12]
    assert isinstance(seen[-1], Finished)
    assert not seen[-1].interrupted
    assert isinstance(session.scene(), Mesh)
    assert isinstance(Session.resume(session.out_dir).scene(), Mesh)
    report = session.folder.report()
    assert report["parts"]["scene"] == "mesh"
    assert [stage["begin"] for stage in report["stages"]] == [0, 3, 6]


def test_a_run_that_is_ended_early_hands_over_what_its_stage_has(only_a_sheet, quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 4:
            session.send(FinishEarly())
    assert not isinstance(session.scene(), Mesh)
    assert session.folder.report()["parts"]["scene"] == "gaussians"


@pytest.mark.slow
@pytest.mark.parametrize("until", [2, 3, 5, 6, 9])
def test_a_run_that_is_stopped_in_any_stage_goes_on_bit_for_bit(only_a_sheet, quick_take_over, tmp_path, until) -> None:
    config = resolve(SMALL)
    whole = Session(config, tmp_path / "whole")
    run(whole)
    halves = Session(config, tmp_path / "halves")
    assert run(halves, until)[-1].interrupted
    assert not run(Session.resume(halves.out_dir))[-1].interrupted
    want, got = tensors(whole.folder), tensors(halves.folder)
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want), until
