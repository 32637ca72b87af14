"""Claims on a job: one owner at a time, whoever dies, and however many want it."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from sds3d.jobs import lease as module
from sds3d.jobs.lease import Claim, claims, failure_of, is_alive, owner_of, process_start, take


def test_one_of_many_gets_a_number(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        got = pool.starmap(take, [(tmp_path, 1)] * 40)
    assert sum(claim is not None for claim in got) == 1
    assert take(tmp_path, 1) is None
    assert [claim.number for claim in claims(tmp_path)] == [1]


def test_an_owner_notices_that_it_was_replaced(tmp_path: Path) -> None:
    first = take(tmp_path, 1)
    assert first is not None
    assert first.beat()
    assert take(tmp_path, 2) is not None
    assert not first.beat()


def test_an_ended_claim_says_whether_it_failed(tmp_path: Path) -> None:
    for number, failure in ((1, ""), (2, "no luck")):
        claim = take(tmp_path, number)
        assert claim is not None
        assert failure_of(claim) is None
        claim.end(failure)
        assert failure_of(claim) == failure


def test_a_process_that_is_gone_does_not_own_anything_whatever_the_lease(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from sds3d.jobs.lease import take; take(Path(sys.argv[1]), 1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    claim = Claim(tmp_path, 1)
    assert owner_of(claim)["pid"] != os.getpid()
    assert not is_alive(claim, lease=3600.0)


def test_a_number_that_the_system_gave_to_another_process_is_another_owner(tmp_path: Path, monkeypatch) -> None:
    claim = take(tmp_path, 1)
    assert claim is not None
    assert is_alive(claim, lease=3600.0)
    monkeypatch.setattr(module, "process_start", lambda pid: "0")
    assert not is_alive(claim, lease=3600.0)


def test_on_another_machine_the_heartbeat_decides(tmp_path: Path, monkeypatch) -> None:
    claim = take(tmp_path, 1)
    assert claim is not None
    monkeypatch.setattr(module, "machine", lambda: "elsewhere")
    assert is_alive(claim, lease=60.0)
    old = time.time() - 100.0
    os.utime(claim.path, (old, old))
    assert not is_alive(claim, lease=60.0)
    assert claim.beat()
    assert is_alive(claim, lease=60.0)


def test_a_claim_that_is_being_written_counts_as_alive(tmp_path: Path) -> None:
    (tmp_path / "claim-1").touch()
    assert is_alive(Claim(tmp_path, 1), lease=60.0)


def test_zombies_and_nonsense_are_no_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    while process_start(child.pid) is not None:
        time.sleep(0.01)
    child.wait()
    assert process_start("nonsense") is None
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
