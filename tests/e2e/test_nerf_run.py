"""A whole run of the radiance field: what it hands over, and that it can be taken up again."""

from pathlib import Path

import pytest

from sds3d import Session
from sds3d.errors import ConfigError
from sds3d.export.contact_sheet import render_sheet
from sds3d.export.formats import check_geometry
from sds3d.export.glb import read_glb
from sds3d.run.events import Stop
from sds3d.scenes import NerfConfig

SMALL = {
    "name": "nerf",
    "field": {"levels": 2, "finest_resolution": 16, "log2_table": 12},
    "step": 0.2,
}


@pytest.mark.exports
def test_a_run_hands_over_a_mesh_and_goes_on_where_it_stopped(small_config, tmp_path: Path, monkeypatch) -> None:
    assert NerfConfig.artifacts == ("sheet", "orbit", "glb")
    monkeypatch.setattr(NerfConfig, "artifacts", ("sheet", "glb"))  # a video takes its time
    monkeypatch.setattr("sds3d.run.artifacts.render_sheet", lambda scene: render_sheet(scene, size=32))
    config = small_config(scene=SMALL, loss_weights={}, steps=12, checkpoint_every=4, **{"export.level": 5.0})
    assert {"sparsity", "opaque", "z_variance"} <= config.loss_weights.keys()  # default_overrides of the scene
    whole, cut = Session(config, tmp_path / "whole"), Session(config, tmp_path / "cut")
    *_, finished = whole.run()
    assert {path.name for path in (tmp_path / "whole").glob("*.*")} == {
        *("config.json", "resolved.json", "run.lock", "events.jsonl", "report.json", "sheet.png", "mesh.glb")
    }
    assert finished.report["parts"]["scene"] == "nerf"
    assert check_geometry(read_glb(tmp_path / "whole" / "mesh.glb")).pieces == 1
    with pytest.raises(ConfigError, match="no format of the scene nerf"):
        whole.export("splat")

    for event in cut.run():
        if getattr(event, "step", 0) == 6:
            cut.send(Stop())
    assert not (tmp_path / "cut" / "mesh.glb").exists()
    list(Session.resume(tmp_path / "cut").run())
    for name in ("sheet.png", "mesh.glb"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
