"""The batch's page and table."""

import json
from pathlib import Path

from sds3d import load_config
from sds3d.jobs import Ledger
from sds3d.jobs.gallery import outcomes, write_summary


def test_every_job_has_its_row_and_no_prompt_becomes_markup(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    jobs = [
        ledger.add(load_config(overrides={"prompt": prompt, "prior": "analytic"}))
        for prompt in ("<script>alert(1)</script>", "a red ball", "a blue ball")
    ]
    ledger.tell(jobs[0], "stop")
    claim = ledger.claim(jobs[1])
    assert claim is not None
    jobs[1].run.mkdir()
    (jobs[1].run / "sheet.png").touch()
    report = {"seconds": {"total": 12.3}, "mesh": {"faces": 4000}}
    (jobs[1].run / "report.json").write_text(json.dumps(report))
    ledger.finish(jobs[1], claim, "done")
    write_summary(ledger, outcomes(ledger, jobs))
    table = json.loads((tmp_path / "summary.json").read_text())
    assert table["counts"] == {"stopped": 1, "done": 1, "queued": 1}
    assert [row["state"] for row in table["jobs"]] == ["stopped", "done", "queued"]
    assert table["jobs"][1]["mesh"] == {"faces": 4000}
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert f'src="{jobs[1].name}/run/sheet.png"' in page
    assert "4000 triangles" in page


def test_a_damaged_report_is_shown_as_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    job = ledger.add(load_config(overrides={"prompt": "a red ball", "prior": "analytic"}))
    job.run.mkdir()
    (job.run / "report.json").write_text("[1, 2")
    (outcome,) = outcomes(ledger, [job])
    assert outcome.seconds is None
    assert outcome.mesh == {}
