"""Several scenes of one run: each gets what it would get alone, sees all sides, and is handed over by itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sds3d import Session
from sds3d.cameras import orbit, sample_cameras
from sds3d.errors import ConfigError, ExportError, NumericsError
from sds3d.guidance.noise import Fixed, NoiseRequest, Surface
from sds3d.run.events import Exported, Finished, StepDone, Stop
from sds3d.scenes import SCENES, GaussiansConfig
from sds3d.scenes.optimizer import build_optimizer
from sds3d.scenes.particles import Particles, build_scene, scenes_of
from sds3d.training.trainer import Trainer
from tests.e2e.test_combinations import SMALL
from tests.training.test_trainer import finish, same


def particles(config: Any) -> Particles:
    made = build_scene(config.scene, config.particles, torch.Generator().manual_seed(config.seed))
    assert isinstance(made, Particles)
    return made


def pulled(image: Tensor) -> Tensor:
    """A loss of one view: a distance from a target that no view shares with another part of the image."""
    return (image - torch.linspace(0, 1, image.numel()).view(image.shape)).square().sum()


@pytest.mark.parametrize("scene", ["gaussians", "image"])
def test_each_particle_gets_the_gradient_that_it_would_get_alone(small_config, scene: str) -> None:
    """The mean over its own views and its own regularizers, and for splats the same statistics for densification."""
    config = small_config(scene=scene, particles=3, **{"cameras.views": 6, "loss_weights": {}})
    together, alone = particles(config), particles(config).each()
    optimizer = build_optimizer(config.optim, together, None)
    for step in (0, 1):
        generator = torch.Generator().manual_seed(step)
        cameras, background = sample_cameras(config.cameras, generator), torch.rand(6, 3, generator=generator)
        out = together.render(cameras, background)
        losses = torch.stack([pulled(image) for image in out.image()]).mean() + (out.opacity * out.depth).mean()
        (losses + 50 * sum(together.regularizers(out).values())).backward()
        together.after_step(step, 100, out, optimizer)
        for number, (scene_alone, scene_together) in enumerate(zip(alone, together.each(), strict=True)):
            views = ((torch.arange(6) + step) % 3 == number).nonzero()[:, 0]
            own = scene_alone.render(cameras.select(views), background[views])
            assert torch.equal(own.rgb, out.rgb[views])
            assert torch.equal(own.depth, out.depth[views])
            expected = torch.stack([pulled(image) for image in own.image()]).mean() + (own.opacity * own.depth).mean()
            (expected + 50 * sum(scene_alone.regularizers(own).values())).backward()
            scene_alone.after_step(step, 100, own, build_optimizer(config.optim, scene_alone, None))
            for mine, theirs in zip(scene_alone.parameters(), scene_together.parameters(), strict=True):
                torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(dict(scene_together.named_buffers()), dict(scene_alone.named_buffers()))
            for parameter in (*scene_alone.parameters(), *scene_together.parameters()):
                parameter.grad = None


def test_every_particle_sees_all_sides_and_every_step_all_particles(small_config) -> None:
    """With as many views as particles, one view each: the quarter of the circle that is seen goes round."""
    config = small_config(particles=4, **{"cameras.views": 4})
    together, seen = particles(config), set()
    optimizer = build_optimizer(config.optim, together, None)
    for step in range(4):
        cameras = sample_cameras(config.cameras, torch.Generator().manual_seed(step))
        out = together.render(cameras, torch.zeros(4, 3))
        quarters = ((cameras.azimuth + torch.pi) / (torch.pi / 2)).long()
        assert sorted(out.particle.tolist()) == [0, 1, 2, 3]
        seen |= set(zip(out.particle.tolist(), quarters.tolist(), strict=True))
        together.after_step(step, 100, out, optimizer)
    assert len(seen) == 16


def test_particles_start_apart_and_one_is_a_scene_as_ever(small_config) -> None:
    config = small_config(particles=2)
    first, second = particles(config).each()
    assert not torch.equal(first.raw_means, second.raw_means)
    assert first.seed != second.seed
    only = build_scene(config.scene, 1, torch.Generator().manual_seed(config.seed))
    assert scenes_of(only) == [only]
    assert torch.equal(only.raw_means, first.raw_means)


def test_one_optimizer_group_has_the_parameters_of_all(small_config) -> None:
    """Else rates and checks that go by a group's name would reach one particle only."""
    together = particles(small_config(particles=2))
    groups = {group.name: group for group in together.param_groups()}
    assert list(groups) == [group.name for group in together.each()[0].param_groups()]
    assert [id(p) for p in groups["colors"].parameters] == [id(scene.raw_colors) for scene in together.each()]


def built(config: Any) -> Trainer:
    generator = torch.Generator().manual_seed(config.seed)
    scene = build_scene(config.scene, config.particles, generator)
    return Trainer(config, scene, config.prior.build("cpu"), generator, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("guidance", ["vsd", "cfd"])
def test_a_run_resumes_bit_for_bit_with_what_the_particles_share(small_config, guidance: str, scene: str) -> None:
    """The critic, the atlas, the splats of each after densification, and whose turn it is."""
    options = {"cameras.views": 6, "loss_weights": {}, "steps": 14, "optim.guidance_lr": 1e-3}
    config = small_config(scene=scene, guidance=guidance, particles=3, **SMALL[scene], **options)
    whole, first, second = (built(config) for _ in range(3))
    for _ in range(7):
        first.advance()
    second.restore(first.checkpoint())
    found, expected = finish(second), finish(whole)
    assert same(found, expected)
    assert whole.forwards() == 2 * config.views_until(14)
    if scene == "gaussians":  # each has grown, and has Adam's moments for what it has
        for particle in whole.scene.each():
            assert len(particle) != config.scene.count
            assert all(whole.optimizer.state[p]["exp_avg"].shape == p.shape for p in particle.parameters())


def test_a_bad_gradient_of_any_particle_is_noticed(small_config) -> None:
    run = built(small_config(particles=2))
    run.scene.each()[0].raw_colors.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NumericsError, match="gradient of colors"):
        run.advance()


def test_particles_share_no_noise_that_lasts(small_config) -> None:
    """Two particles that look the same, seen by the same camera, are given other noise each; two views of one agree."""
    config = small_config(scene="image", particles=2, loss_weights={}, **{"cameras.views": 4})
    for noise in (Surface(), Fixed()):
        generator, together = torch.Generator().manual_seed(0), particles(config)
        together.scenes[1].load_state_dict(together.scenes[0].state_dict())
        cameras = orbit(1, size=24).select(torch.zeros(4, dtype=torch.long))
        request = NoiseRequest(cameras, together.render(cameras, torch.zeros(4, 3)), (3, 24, 24), generator)
        eps = noise.sample(request, noise.init(request.shape, generator, 2))
        assert torch.equal(eps[0], eps[2])
        assert torch.equal(eps[1], eps[3])
        assert abs((eps[0] * eps[1]).mean()) < 0.08
        assert eps.var() == pytest.approx(1, abs=0.1)


def test_views_that_cannot_be_dealt_evenly_are_refused_with_the_reason(small_config) -> None:
    with pytest.raises(
        ConfigError, match="views = 4 does not go with particles = 3: each particle is rendered"
    ) as caught:
        small_config(particles=3, **{"cameras.views": 4})
    assert caught.value.hint == "use cameras.views=6"
    with pytest.raises(ConfigError, match="views = 2 does not go with particles = 4") as caught:
        small_config(particles=4)
    assert caught.value.hint == "use cameras.views=4"
    assert small_config(particles=2).to_dict()["particles"] == 2


ARTIFACTS = {"sheet.png", "orbit.mp4", "splats.ply", "mesh.glb"}


@pytest.mark.slow
@pytest.mark.exports
def test_a_run_hands_over_every_particle(small_config, tmp_path: Path) -> None:
    config = small_config(particles=2, preview_every=24, **{"export.color": "vertex"})
    folder = tmp_path / "run"
    events = list(Session(config, folder).run())
    exported = [event.path for event in events if isinstance(event, Exported)]
    assert exported[0] == folder / "particles.png"
    assert {path.name for path in (folder / "particle-2").iterdir()} == ARTIFACTS
    assert {path.name for path in folder.iterdir() if path.is_file()} >= ARTIFACTS
    for name in ARTIFACTS:
        assert (folder / name).read_bytes() != (folder / "particle-2" / name).read_bytes(), name
    with Image.open(folder / "previews" / "step-000024.png") as preview, Image.open(folder / "sheet.png") as sheet:
        assert preview.height > 2 * 128
        assert sheet.width > 4 * 256
    report = json.loads((folder / "report.json").read_text())
    assert report["particles"][0] == {"mesh": report["mesh"], "metrics": report["metrics"]}
    assert report["particles"][1]["mesh"]["faces"] > 0
    assert report["diversity"] > 0
    again = Session.resume(folder)
    path, before = folder / "particle-2" / "splats.ply", (folder / "particle-2" / "splats.ply").read_bytes()
    path.unlink()
    assert again.export("ply", particle=2) == path
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="particle 3 does not exist"):
        again.export("glb", particle=3)
    drawn = again.draw(views=2, size=48)
    assert [path.relative_to(folder) for path in drawn] == [
        *(Path("sheet.png"), Path("orbit.mp4"), Path("particle-2/sheet.png"), Path("particle-2/orbit.mp4")),
        Path("particles.png"),
    ]


def test_images_are_handed_over_each_and_side_by_side(small_config, tmp_path: Path) -> None:
    options = {"loss_weights": {}, "scene": {"name": "image", "size": 24}, "steps": 3, "cameras.views": 3}
    list(Session(small_config(particles=3, **options), tmp_path / "run").run())
    found = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*.png")}
    assert found == {"image.png", "particle-2/image.png", "particle-3/image.png", "particles.png"}
    with Image.open(tmp_path / "run" / "particles.png") as picture:
        assert picture.width > 3 * 192


def test_a_particle_unfit_for_a_mesh_is_reported_and_the_others_are_handed_over(
    small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("glb",))
    session = Session(small_config(particles=2, **{"export.color": "vertex"}), tmp_path / "run")

    def consume() -> None:
        for event in session.run():
            if isinstance(event, StepDone) and event.step == 24:
                session.scene(1).raw_opacities.data.fill_(-20)

    with pytest.raises(ExportError, match=r"^particle 1: there is no object"):
        consume()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "no object" in report["mesh"]["refused"]
    assert report["particles"][1]["mesh"]["faces"] > 0
    assert not (tmp_path / "run" / "mesh.glb").exists()
    assert (tmp_path / "run" / "particle-2" / "mesh.glb").exists()


def test_stopped_and_resumed_equals_uninterrupted(small_config, tmp_path: Path) -> None:
    config = small_config(particles=2, guidance="vsd", scene={"name": "image", "size": 24}, loss_weights={})
    list(Session(config, tmp_path / "whole").run())
    session = Session(config, tmp_path / "parts")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 11:
            session.send(Stop())
    assert list(Session.resume(tmp_path / "parts").run())[-1] == Finished(json.loads(report_of(tmp_path / "parts")))
    for name in ("image.png", "particle-2/image.png", "particles.png", "checkpoints/step-000024/tensors.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def report_of(folder: Path) -> str:
    return (folder / "report.json").read_text()
