"""The batch's page and table."""

import json
from pathlib import Path

from sds3d import load_config
from sds3d.jobs import Queue
from sds3d.jobs.gallery import write_summary
from sds3d.jobs.processes import WorkerId
from sds3d.run.events import Stop
from sds3d.run.folder import RunFolder


def test_every_job_has_its_row_and_no_prompt_becomes_markup(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    prompts = ("<script>alert(1)</script>", "a red ball", "a blue ball")
    jobs = queue.add_many([load_config(overrides={"prompt": prompt, "prior": "analytic"}) for prompt in prompts])
    queue.command(jobs[0], Stop())
    claimed = queue.claim(WorkerId.here())
    assert claimed is not None
    run = RunFolder.create(claimed.run.path, claimed.config)
    run.artifact("sheet").touch()
    run.write_report({"seconds": {"total": 12.3}, "mesh": {"faces": 4000}})
    queue.finish(claimed, "done")
    write_summary(tmp_path, queue.jobs())
    table = json.loads((tmp_path / "summary.json").read_text())
    assert table["counts"] == {"stopped": 1, "done": 1, "queued": 1}
    assert [row["state"] for row in table["jobs"]] == ["stopped", "done", "queued"]
    assert table["jobs"][1]["mesh"] == {"faces": 4000}
    page = (tmp_path / "index.html").read_text()
    assert "1 stopped, 1 done, 1 queued" in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert f'src="{jobs[1].name}/run/sheet.png"' in page
    assert "4000 triangles" in page
    assert "12 s" in page


def test_a_damaged_report_is_shown_as_none(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    job = queue.add(load_config(overrides={"prompt": "a red ball", "prior": "analytic"}))
    for text in ("[1, 2", '{"seconds": {"total": "<b>"}, "mesh": {"refused": "<i>"}}'):
        job.run.path.mkdir(exist_ok=True)
        (job.run.path / "report.json").write_text(text)
        write_summary(tmp_path, [job])
    assert "<b>&" not in (page := (tmp_path / "index.html").read_text())
    assert "&lt;i&gt;" in page
    (job.run.path / "report.json").write_text("[1, 2")
    write_summary(tmp_path, [job])
    (row,) = json.loads((tmp_path / "summary.json").read_text())["jobs"]
    assert row["seconds"] is None
    assert row["mesh"] == {}
