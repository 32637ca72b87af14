"""A run on disk: who gets a folder, who works on it, what state it is in, and what is in it."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from sds3d import Session
from sds3d.errors import CheckpointError, ConfigError, OutputError, RunBusy
from sds3d.run.events import Failed, FinishEarly, Finished, Pause, Paused, Resumed, Started, StepDone, Stop, Warned
from sds3d.run.folder import RunFolder, run_name
from sds3d.scenes import GaussiansConfig
from tests.reliability.children import PATIENCE, context, ended, started


def hold(folder: Path, held: Event) -> None:
    with RunFolder(folder).lock():
        held.set()
        time.sleep(600.0)


def claim_twenty(wanted: Path, all_here: Barrier, names: Path) -> None:
    all_here.wait(PATIENCE)
    for _ in range(20):
        with RunFolder.claim(wanted) as folder, names.open("a") as file:
            (folder.path / "mine").write_text("")
            file.write(f"{folder.path}\n")


def claimed(wanted: Path) -> Path:
    with RunFolder.claim(wanted) as folder:
        return folder.path


def test_a_folder_that_is_empty_or_not_there_is_taken_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert claimed(tmp_path / "run") == tmp_path / "run-2"
    assert claimed(tmp_path / "run-2") == tmp_path / "run-2"  # nothing but a lock that nobody holds
    (tmp_path / "new").mkdir()
    assert claimed(tmp_path / "new") == tmp_path / "new"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_folder_that_is_claimed_at_this_moment_is_not_taken(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run") as first, RunFolder.claim(tmp_path / "run") as second:
        assert (first.path.name, second.path.name) == ("run", "run-2")


@pytest.mark.slow
@pytest.mark.xdist_group("children")
def test_processes_that_claim_the_same_folder_at_once_all_get_one_of_their_own(tmp_path: Path) -> None:
    all_here, said = context.Barrier(3), [tmp_path / f"names-{number}" for number in range(3)]
    processes = [started(claim_twenty, tmp_path / "run", all_here, path) for path in said]
    assert [ended(process) for process in processes] == [0, 0, 0]
    names = [line for path in said for line in path.read_text().splitlines()]
    assert len(names) == len(set(names)) == 60


@pytest.mark.xdist_group("children")
def test_a_lock_holds_between_processes_and_says_whose_it_is(tmp_path: Path) -> None:
    folder, held = RunFolder(tmp_path), context.Event()
    assert folder.holder() is None
    process = started(hold, tmp_path, held)
    assert held.wait(PATIENCE)
    holder = folder.holder()
    assert holder is not None
    assert holder.pid == process.pid
    with pytest.raises(RunBusy, match=rf"in use by process {process.pid} on ") as caught, folder.lock():
        pass
    assert caught.value.exit_code == 2
    with pytest.raises(RunBusy):
        folder.delete()
    process.kill()  # the system lets go of the lock of a process that is killed
    ended(process)
    assert folder.holder() is None
    with folder.lock():
        assert folder.holder().pid == os.getpid()  # type: ignore[union-attr]


def test_asking_for_the_holder_never_keeps_anybody_from_the_lock(tmp_path: Path) -> None:
    folder, done = RunFolder(tmp_path), False

    def ask() -> None:
        while not done:
            folder.holder()

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask)
        for _ in range(200):
            with folder.lock():
                pass
        done = True
        asking.result()


def test_what_was_deleted_while_one_waited_for_it_is_not_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with folder.lock():
        folder.path.rename(tmp_path / "gone")
        folder.path.mkdir()
        assert folder.holder() is None
        with RunFolder(folder.path).lock():  # another file, another lock
            pass


def test_a_run_is_in_one_state_from_its_beginning_to_its_end(small_config, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.status().state == "new"
    session, states = Session(small_config(), tmp_path / "run"), {}
    session.send(Pause())
    for event in session.run():
        status = folder.status()
        states[type(event).__name__] = (status.state, status.step)
        if isinstance(event, Paused):
            session.send(Stop())
    assert states["Started"] == ("running", 0)
    assert states["Paused"] == ("paused", 0)
    assert folder.status().state == "interrupted"

    session = Session.resume(tmp_path / "run")
    for event in session.run():
        if isinstance(event, Started | StepDone):
            assert folder.status().state == "running"
        if isinstance(event, StepDone) and event.step == 9:
            session.send(FinishEarly())
    assert folder.status().state == "stopped"
    assert folder.status().step == 9
    list(Session.resume(tmp_path / "run").run())
    assert folder.status().state == "done"
    assert folder.status().step == 24


def test_a_run_that_was_cut_off_is_interrupted_and_one_that_failed_says_why(small_config, tmp_path: Path) -> None:
    events = Session(small_config(), tmp_path / "cut").run()
    for event in events:
        if isinstance(event, StepDone) and event.step == 9:
            break
    events.close()
    assert RunFolder(tmp_path / "cut").status().state == "interrupted"

    session = Session(small_config(), tmp_path / "failed")
    session.prior().encode = lambda image: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        list(session.run())
    status = RunFolder(tmp_path / "failed").status()
    assert (status.state, status.reason) == ("failed", "unexpected ZeroDivisionError: division by zero")
    assert isinstance(list(RunFolder(tmp_path / "failed").follow())[-1], Failed)


def test_two_sessions_of_one_run_do_not_both_run(small_config, tmp_path: Path) -> None:
    first = Session(small_config(), tmp_path / "run")
    events = first.run()
    next(events)
    with pytest.raises(RunBusy, match=str(os.getpid())):
        list(Session.resume(tmp_path / "run").run())
    with pytest.raises(RunBusy):
        RunFolder(tmp_path / "run").delete()
    assert isinstance(list(events)[-1], Finished)
    RunFolder(tmp_path / "run").delete()
    assert not (tmp_path / "run").exists()


def test_reading_a_state_writes_nothing(small_config, tmp_path: Path) -> None:
    """B19: a full disk must not end the display of a run."""
    session = Session(small_config(steps=2), tmp_path / "run")
    list(session.run())
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    folder = RunFolder(tmp_path / "run")
    folder.status(), folder.holder(), folder.reader().read(), folder.files(), folder.report()
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_the_log_is_followed_from_its_beginning_to_the_end_of_the_run(small_config, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        session = Session(small_config(), tmp_path / "run")
        session.send(Pause())
        running = pool.submit(lambda: list(session.run()))
        while RunFolder(tmp_path / "run").status().state != "paused":
            pass
        following = pool.submit(lambda: list(RunFolder(tmp_path / "run").follow(poll=0.01)))
        from sds3d.run.events import Resume

        session.send(Resume())
        logged = [event for event in running.result() if not isinstance(event, StepDone) or event.losses]
        assert [type(event) for event in following.result()] == [type(event) for event in logged]
        assert {Paused, Resumed} <= {type(event) for event in logged}


def test_what_a_person_said_and_what_was_used_are_kept_apart(small_config, tmp_path: Path) -> None:
    config = small_config(guidance="cfd", steps=1)
    list(Session(config, tmp_path / "run").run())
    folder = RunFolder(tmp_path / "run")
    said = json.loads(folder.config_file.read_text())
    assert said["guidance"]["name"] == "cfd"
    assert "noise" not in said  # CFD brings it
    assert json.loads((tmp_path / "run" / "resolved.json").read_text())["noise"]["name"] == "surface"
    assert folder.config() == config
    assert folder.config().said == config.said


def test_a_folder_is_made_whole_or_not_at_all(small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B18: a fork that a full disk cuts off can be made again."""
    list(Session(small_config(), tmp_path / "run").run())
    source, _ = RunFolder(tmp_path / "run").load_checkpoint(16)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sds3d.run.checkpoint.write_synced", full)
        with pytest.raises(OutputError, match="No space left"):
            RunFolder.create(tmp_path / "fork", small_config(), source)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    fork = RunFolder.create(tmp_path / "fork", small_config(), source)
    assert fork.checkpoint_steps() == [16]
    assert next(Session.resume(fork.path).run()).step == 16
    with pytest.raises(OutputError):
        RunFolder.create(tmp_path / "fork", small_config(), source)


@pytest.mark.slow
def test_files_of_a_run_are_those_that_are_there_with_what_belongs_to_them(
    small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GaussiansConfig, "artifacts", ("sheet", "glb"))
    session = Session(small_config(), tmp_path / "run")
    list(session.run())
    session.export("gltf")
    files = session.folder.files()
    assert {"mesh.gltf", "mesh.bin", "mesh_color.png", "mesh.glb", "config.json", "report.json"} <= set(files)
    assert all(path.is_file() for path in files.values())
    assert "events.jsonl" not in files
    assert session.folder.picture() == tmp_path / "run" / "sheet.png"
    assert session.folder.preview("../../etc/passwd") is None


@pytest.mark.parametrize("name", [".", "..", "x/.."])
def test_a_folder_without_a_name_of_its_own_is_not_claimed(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is no name for a run folder"), RunFolder.claim(name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_run_was_killed_while_it_wrote_its_first_file_is_taken_again(tmp_path: Path) -> None:
    """Else the same command would begin a second folder beside it, and a resume find no run in the first."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.0a1b2c3d.tmp").write_text('{"prompt": "a re')
    with RunFolder.claim(tmp_path / "run") as folder:
        assert folder.path.name == "run"
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with RunFolder.claim(tmp_path / "run") as folder:
        assert folder.path.name == "run-2"


def test_a_config_is_written_whole_or_the_folder_stays_free(small_config, tmp_path: Path, monkeypatch) -> None:
    from sds3d.run import folder as module

    write, writes = module.write_json, []

    def full(path: Path, value: object) -> None:
        writes.append(path)
        if len(writes) == 2:
            raise OutputError("cannot write: No space left on device")
        write(path, value)

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(OutputError), RunFolder.claim(tmp_path / "run") as folder:
        folder.write_config(small_config())
    assert folder.is_free()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run folder: it has no resolved\.json"):
        RunFolder(tmp_path).config()


def test_only_the_run_folder_knows_the_names_of_its_files() -> None:
    root = Path(__file__).resolve().parents[2]
    names = re.compile(r'"(resolved\.json|run\.lock|events\.jsonl|report\.json|checkpoints|previews)"')
    allowed = {root / "sds3d" / "run" / "folder.py"}
    others = [path for folder in ("sds3d", "app") for path in (root / folder).rglob("*.py") if path not in allowed]
    assert [str(path.relative_to(root)) for path in others if names.search(path.read_text())] == []


def test_the_name_of_a_run_is_never_a_path(small_config) -> None:
    assert run_name(small_config(prompt="../../etc/passwd", seed=7)) == "etc-passwd-7"


def test_warnings_are_events_like_others(small_config, tmp_path: Path) -> None:
    session = Session(small_config(prompt="a shiny red ball", steps=1), tmp_path / "run")
    list(session.run())
    assert any(isinstance(event, Warned) and "shiny" in event.message for event in session.folder.follow())
