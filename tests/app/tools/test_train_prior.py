"""The tool that trains the embedded prior: a new folder, going on elsewhere from two files, and weights to ship."""

import json
import shutil

import pytest

from sds3d_app.tools import train_prior


@pytest.mark.slow
def test_a_run_begins_in_a_new_folder_goes_on_elsewhere_and_is_released(tmp_path, monkeypatch):
    monkeypatch.setattr("sds3d.priors.embedded.training.PROBE_IMAGES", 2)

    def run(folder, *words):
        monkeypatch.setattr("sys.argv", ["train_prior", str(tmp_path / folder), "--threads", "1", *words])
        train_prior.main()

    run("new/here", "--steps", "1", "--batch", "2", "--seed", "7", "--part-weight", "2")
    (tmp_path / "there").mkdir()
    for name in ("state.json", "state.safetensors"):
        shutil.copy(tmp_path / "new" / "here" / name, tmp_path / "there")
    run("there", "--steps", "1")
    [line] = map(json.loads, (tmp_path / "there" / "log.jsonl").read_text().splitlines())
    assert (line["step"], line["images"]) == (2, 4)
    assert line["average"] > 0
    run("there", "--release", str(tmp_path / "weights"))
    made = json.loads((tmp_path / "weights" / "training.json").read_text())
    assert made["images"] == 4
    assert (made["settings"]["seed"], made["settings"]["part_weight"]) == (7, 2.0)
    assert (tmp_path / "weights" / "unet" / "diffusion_pytorch_model.safetensors").is_file()
