"""Stages of a run: what each of them is, a scene that takes over another, and a resume in each that changes nothing."""

import json

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.config import in_all_stages, resolve
from sds3d.config.layers import flatten
from sds3d.errors import CheckpointError, ConfigError, ExportError, NumericsError
from sds3d.run.events import (
    Change,
    Changed,
    CheckpointSaved,
    FinishEarly,
    Finished,
    StageBegun,
    StepDone,
    Stop,
    Warned,
    from_dict,
)
from sds3d.scenes import SCENES, GaussiansConfig, MeshConfig
from sds3d.scenes import mesh as mesh_module
from sds3d.scenes.background import SolidBackground
from sds3d.scenes.mesh import Mesh
from sds3d.scenes.shading import Sun
from sds3d.training import take_over as module
from sds3d.training.recovery import Recovery, Unwell
from sds3d.training.session import Session, export_run
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
    assert set(second.loss_weights) == {"border", "anchor", "anchor_color"}  # not those of the splats, but a mesh's own
    assert second.scene.light == Sun(**config.prior.light)  # defaults as for a run of its own
    assert config.final == second
    alone = resolve({"prompt": "a red mug", "stages": []})
    assert alone.final is alone


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
    "options",
    [
        {"scene": "mesh", "guidance.guidance_scale": 3},
        {"guidance.guidance_scale": 3, "guidance": {"name": "sds", "guidance_scale": 2}},
        {"guidance": {"name": "vsd"}},
        {"guidance": "sjc"},
        {"cameras": {"views": 2}},
    ],
)
def test_what_was_changed_on_the_way_was_said(options) -> None:
    """So that config.json makes the run again, and a fork of it goes on with the same."""
    config = staged(stages=[{"begin_at": 0.5, "options": options}, {"begin_at": 0.7, "options": options}])
    changed = config.with_changes({"guidance.guidance_scale": "7", "prompt": "a blue mug"})
    assert {*in_all_stages(changed, "guidance.guidance_scale")} == {7}
    assert resolve(json.loads(json.dumps(changed.said))) == changed
    assert config.said["stages"][0]["options"] == options
    again = type(config).restore(changed.said, changed.to_dict()).with_changes({"guidance.guidance_scale": 8})
    assert resolve(again.said) == again
    assert {*in_all_stages(again, "guidance.guidance_scale")} == {8}


def test_an_option_that_only_a_later_stage_has_can_be_changed() -> None:
    config = staged(guidance="csd", stages=[{"begin_at": 0.5, "options": {"guidance": "sds"}}])
    changed = config.with_changes({"guidance.guidance_scale": 7})
    assert in_all_stages(changed, "guidance.guidance_scale") == [7]
    assert resolve(changed.said) == changed


def test_another_scene_keeps_the_background_unless_it_says_its_own() -> None:
    white = {"scene.background": {"name": "solid", "color": [1, 1, 1]}}
    assert staged(**white).in_stage(1).scene.background == SolidBackground(color=(1, 1, 1))
    black = {"name": "solid", "color": [0, 0, 0]}
    own = {"begin_at": 0.5, "options": {"scene": {"name": "mesh", "background": black}}}
    assert staged(**white, stages=[own]).in_stage(1).scene.background == SolidBackground(color=(0, 0, 0))
    assert resolve(staged(**white).said) == staged(**white)


def test_where_a_run_is_and_what_it_has_rendered_until_then() -> None:
    config = staged()  # 4 views in the first 50 steps, 2 in the others
    assert [config.views_until(step) for step in (0, 10, 50, 60, 100)] == [0, 40, 200, 220, 300]
    for stage, step in ((0, 0), (0, 50), (1, 50), (1, 100), (1, 120)):
        config.check_stage(stage, step)
    for stage, step in ((0, 51), (1, 49), (2, 100), (-1, 0)):
        with pytest.raises(CheckpointError, match=rf"step {step} is of stage {stage + 1}.*stage 2 from step 50"):
            config.check_stage(stage, step)


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
        ([{"begin_at": 0.5, "options": {"scene.count": 50}}], r"scene.count = 50 cannot change on the way .*leave"),
        (
            [MESH, {"begin_at": 0.7, "options": {"scene": {"name": "mesh", "colors": {"hidden": 16}}}}],
            r"stages\[1\]: scene.colors.hidden = 16 cannot change",
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


@pytest.mark.parametrize("kind", SCENES)
def test_options_that_the_size_of_a_state_depends_on_are_named(kind) -> None:
    """A new one has to join `state_shape`, or a stage that changes it would end in the middle of a run."""

    def shapes(config):
        state = config.build(torch.Generator().manual_seed(0)).state_dict()
        return {name: value.shape for name, value in state.items()}

    scene = resolve({"prompt": "a red mug", "scene": kind}).scene
    usual, found = shapes(scene), []
    for key, value in flatten(scene.model_dump(mode="json")).items():
        if isinstance(value, int):
            another = not value if isinstance(value, bool) else value + 1
            other = resolve({"prompt": "a red mug", "scene": kind, f"scene.{key}": another}).scene
            if shapes(other) != usual:
                found.append(key)
    named = SCENES[kind].state_shape
    assert found
    assert [key for key in found if not any(f"{key}.".startswith(f"{name}.") for name in named)] == []


def test_a_mesh_of_another_stiffness_has_the_same_vertices() -> None:
    old, new = (MeshConfig(smoothness=s).build(torch.Generator().manual_seed(0)) for s in (10.0, 3.0))
    with torch.no_grad():
        old.raw_vertices.mul_(torch.linspace(0.8, 1.2, len(old.raw_vertices))[:, None])
    take_over(old, new)
    torch.testing.assert_close(new.vertices(), old.vertices(), atol=1e-5, rtol=0)


@pytest.fixture
def quick_take_over(monkeypatch):
    """A small ball instead of a search for the splats' surface, in colours that depend on the splats, and a finish that
    changes nothing. A list of the finish's calls."""
    calls = []

    def become(mesh: Mesh, scene) -> None:
        mesh.color_field.biases[1].data += scene.raw_colors.mean()

    def finish(vertices, faces, count, rounds):
        calls.append(rounds)
        return vertices, faces

    monkeypatch.setattr(module, "become_surface", become)
    monkeypatch.setattr(mesh_module, "finish", finish)
    return calls


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
    return told(session, until, Stop())


def told(session, step, command):
    """The events of a run that is told something after a step."""
    seen = []
    for event in session.run():
        seen.append(event)
        if isinstance(event, StepDone) and event.step == step:
            session.send(command)
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
    assert [event.step for event in seen if isinstance(event, CheckpointSaved)] == [3, 3, 4, 6, 6, 8, 12, 12]
    assert isinstance(seen[-1], Finished)
    assert not seen[-1].interrupted
    assert isinstance(session.scene(), Mesh)
    assert isinstance(Session.resume(session.out_dir).scene(), Mesh)
    report = session.folder.report()
    assert report["parts"]["scene"] == "mesh"
    assert [stage["begin"] for stage in report["stages"]] == [0, 3, 6]
    assert report["prior_forwards_per_step"] == 2  # for each view, of which the last stage has twice as many


def test_a_run_that_is_ended_early_hands_over_what_its_stage_has(only_a_sheet, quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 4:
            session.send(FinishEarly())
    assert not isinstance(session.scene(), Mesh)
    assert session.folder.report()["parts"]["scene"] == "gaussians"
    assert quick_take_over == []


@pytest.mark.slow
def test_a_run_that_is_stopped_in_any_stage_goes_on_bit_for_bit(only_a_sheet, quick_take_over, tmp_path) -> None:
    config = resolve(SMALL)
    whole = Session(config, tmp_path / "whole")
    run(whole)
    want = tensors(whole.folder)
    for until in (2, 3, 5, 6, 9):
        halves = Session(config, tmp_path / str(until))
        assert run(halves, until)[-1].interrupted
        assert not run(Session.resume(halves.out_dir))[-1].interrupted
        got = tensors(halves.folder)
        assert want.keys() == got.keys(), until
        assert all(torch.equal(want[name], got[name]) for name in want), until


@pytest.mark.parametrize(("until", "stage"), [(3, 0), (4, 1), (6, 1), (8, 2)])
def test_a_checkpoint_says_its_stage_and_gives_its_scene(quick_take_over, tmp_path, until, stage) -> None:
    """At a border it is the old scene's until the new one has taken over."""
    session = Session(resolve(SMALL), tmp_path / "run")
    run(session, until)
    checkpoint = session.folder.load_checkpoint()[0]
    assert (checkpoint.step, checkpoint.stage, session.folder.stage()) == (until, stage, stage)
    made = Session.resume(session.out_dir).made()
    assert (made.step, isinstance(made.scene, Mesh)) == (until, stage == 2)
    assert made.parts.scene.name == made.metadata()["scene"] == ("mesh" if stage == 2 else "gaussians")
    assert made.metadata()["guidance"]["guidance_scale"] == (5 if stage == 1 else 4)


@pytest.mark.exports
def test_splats_of_an_early_checkpoint_are_exported_as_splats(quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    run(session, 4)
    (written,) = export_run(session.out_dir, ["ply"])
    assert written.path.name == "splats.ply"
    run(Session.resume(session.out_dir), 8)
    with pytest.raises(ConfigError, match="format 'splat' is no format of the scene mesh"):
        list(export_run(session.out_dir, ["splat"]))


def test_a_take_over_that_fails_loses_nothing(quick_take_over, tmp_path, monkeypatch) -> None:
    def fail(mesh, scene):
        raise ExportError("there is no object to export", hint="more steps")

    session = Session(resolve(SMALL), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(module, "become_surface", fail)
        with pytest.raises(ExportError, match="stage 3 cannot begin from the scene at step 6: there is no object"):
            run(session)
    assert session.folder.load_checkpoint()[0].stage == 1
    resumed = Session.resume(session.out_dir)
    assert resumed.made().parts.scene.name == "gaussians"
    assert not run(resumed)[-1].interrupted


def test_a_checkpoint_that_the_run_cannot_have_is_refused(quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    run(session, 4)
    options = {**SMALL, "stages": SMALL["stages"][1:]}
    session.folder.write_config(resolve(options))
    for use in (Session.check, Session.scenes):
        with pytest.raises(CheckpointError, match="step 4 is of stage 2, which this run is not in at that step"):
            use(Session.resume(session.out_dir))


def test_going_back_never_crosses_into_another_stage(quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    run(session, 4)
    generator = torch.Generator().manual_seed(0)
    trainer = Session.resume(session.out_dir)._trainer(2, generator)
    recovery = Recovery(trainer, session.folder)
    recovery.save()
    checkpoint = trainer.checkpoint()
    session.folder.save_checkpoint(type(checkpoint)(**{**vars(checkpoint), "stage": 1}))
    with pytest.raises(NumericsError, match="no checkpoint of stage 3 to go back to"):
        recovery.recover(Unwell("the scene is not finite"))


def test_lower_learning_rates_stay_low_in_the_next_stage(tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    first, second = (session._trainer(stage, torch.Generator().manual_seed(0)) for stage in (0, 1))
    first.rate = 0.25
    second.go_on_from(first)
    assert second.rate == 0.25


def test_a_mesh_is_finished_once_at_the_end_also_when_that_comes_early(quick_take_over, tmp_path) -> None:
    early = Session(resolve(SMALL), tmp_path / "run")
    told(early, 9, FinishEarly())
    assert quick_take_over == [3]
    assert Session.resume(early.out_dir).scene().is_finished
    assert early.folder.report()["steps"] == 9
    run(Session.resume(early.out_dir))  # goes on to the end: it moves, and is finished again
    assert quick_take_over == [3, 3]
    run(Session.resume(early.out_dir))  # nothing is left to do
    assert quick_take_over == [3, 3]


def test_a_run_that_is_stopped_is_not_finished_before_its_end(quick_take_over, tmp_path) -> None:
    session = Session(resolve(SMALL), tmp_path / "run")
    run(session, 9)
    assert quick_take_over == []
    assert not Session.resume(session.out_dir).scene().is_finished


def test_a_surface_that_cannot_be_finished_is_handed_over_with_a_warning(
    quick_take_over, tmp_path, monkeypatch
) -> None:
    def refuse(*surface):
        raise ConfigError("finish: an edge has three faces")

    monkeypatch.setattr(mesh_module, "finish", refuse)
    seen = run(Session(resolve(SMALL), tmp_path / "run"))
    assert Warned("the surface is not finished: finish: an edge has three faces") in seen
    assert not seen[-1].interrupted


def test_what_this_machine_cannot_do_is_said_before_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "compiled", lambda: False)
    stages = [{"begin_at": 0.5, "options": {"scene": {"name": "mesh", "finish": 0}}}]
    session = Session(resolve({**SMALL, "stages": stages}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"stages\[0\]: a mesh that takes over needs sds3d's compiled kernels"):
        run(session)
    monkeypatch.setattr(mesh_module, "compiled", lambda: False)
    with pytest.raises(ConfigError, match=r"scene.finish = 3 needs"):
        run(Session(resolve({**SMALL, "scene": "mesh", "stages": []}), tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_change_to_what_a_later_stage_does_not_say_is_made(quick_take_over, tmp_path) -> None:
    """To the run's own value, which the second stage's is not."""
    session = Session(resolve(SMALL), tmp_path / "run")
    change = Change({"guidance.guidance_scale": session.config.guidance.guidance_scale})
    seen = told(session, 1, change)
    assert [event.changes for event in seen if isinstance(event, Changed)] == [dict(change.changes)]
    assert in_all_stages(session.folder.config(), "guidance.guidance_scale") == [4, 4, 4]
    assert resolve(session.folder.config().said) == session.config
