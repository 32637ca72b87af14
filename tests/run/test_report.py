import torch

from sds3d.run.report import build_report, device_facts, peak_memory, versions, view_metrics


def test_the_report_says_what_the_run_was(small_config) -> None:
    config = small_config()
    scene = config.scene.build(torch.Generator().manual_seed(0))
    report = build_report(
        config,
        [scene],
        torch.device("cpu"),
        {"render": 1.23456, "total": 2.0},
        7,
        0,
        2 * 7 * config.cameras.views,
        [{"faces": 3}],
        config.prior.build("cpu"),
    )
    assert (report["prompt"], report["seed"], report["steps"]) == (config.prompt, config.seed, 7)
    assert report["seconds"] == {"render": 1.235, "total": 2.0}
    assert report["mesh"] == {"faces": 3}
    assert report["prior_forwards_per_step"] == 2
    assert report["parts"]["guidance"] == "sds"
    assert 0 < report["metrics"]["coverage"] < 1
    assert "particles" not in report


def test_it_says_which_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert device_facts(torch.device("cuda", 1)) == {"device": "cuda:1", "gpu": "card 1"}
    assert device_facts(torch.device("cpu")) == {"device": "cpu"}


def test_several_scenes_are_reported_each_and_how_different_they_are(small_config) -> None:
    config = small_config(**{"scene.init_opacity": 0.9})
    dark, light, again = (config.scene.build(torch.Generator().manual_seed(0)) for _ in range(3))
    dark.raw_colors.data.fill_(-20)
    light.raw_colors.data.fill_(20)

    def reported(*scenes):
        meshes = [{"faces": number} for number in range(len(scenes))]
        return build_report(config, scenes, torch.device("cpu"), {}, 7, 0, 28, meshes, config.prior.build("cpu"))

    report = reported(dark, light)
    assert [particle["mesh"]["faces"] for particle in report["particles"]] == [0, 1]
    assert report["particles"][1]["metrics"] == view_metrics(light, torch.device("cpu"))
    assert report["diversity"] > 0.2
    again.load_state_dict(dark.state_dict())
    assert reported(dark, again)["diversity"] == 0


def test_memory_is_in_bytes() -> None:
    assert 50e6 < peak_memory(torch.device("cpu"))["host"] < 1e12


def test_versions_name_what_decides_the_result() -> None:
    assert {"python", "torch", "numpy"} <= set(versions())
    assert versions()["torch"] == torch.__version__


def test_a_faint_cloud_is_translucent_and_an_opaque_ball_is_not(small_config) -> None:
    faint = small_config(**{"scene.init_opacity": 0.02}).scene.build(torch.Generator().manual_seed(0))
    solid = small_config(**{"scene.init_opacity": 0.99, "scene.count": 3000}).scene.build(
        torch.Generator().manual_seed(0)
    )
    faint_metrics, clear = (view_metrics(scene, torch.device("cpu")) for scene in (faint, solid))
    assert faint_metrics["translucency"] > 0.9
    assert clear["translucency"] < 0.4
    assert clear["coverage"] > faint_metrics["coverage"]
