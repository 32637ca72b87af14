"""Events and commands as JSON and back, and the log that carries events."""

import json
from pathlib import Path

import pytest

from sds3d.run import events as module
from sds3d.run.events import (
    Change,
    Changed,
    CheckpointSaved,
    EventLog,
    EventReader,
    Exported,
    Exporting,
    Failed,
    FinishEarly,
    Finished,
    Measured,
    Pause,
    Paused,
    Preview,
    Resume,
    Resumed,
    StageBegun,
    Started,
    StepDone,
    Stop,
    Warned,
    command_from_dict,
    from_dict,
    latest,
)

EVENTS = [
    Started("a mug", Path("out"), "cpu", 0, 10),
    StepDone(3, {"guidance": 1.5}, 0.1),
    Preview(3, Path("out/previews/a.png")),
    CheckpointSaved(3, Path("out/checkpoints/step-000003")),
    Exporting(10),
    Exported(Path("mesh.glb"), {"faces": 12}),
    Warned("careful"),
    Changed(3, {"prompt": "a blue mug"}),
    Measured(3, {"janus": {"agreement": 0.5}}),
    StageBegun(3, 2, 2, "mesh"),
    Paused(4),
    Resumed(4),
    Finished({"steps": 10}),
    Finished(interrupted=True),
    Failed("the disk is full", "OutputError"),
]
COMMANDS = [Change({"prompt": "a blue mug"}), Pause(), Resume(), Stop(), FinishEarly()]


def test_all_kinds_are_here() -> None:
    assert {type(event) for event in EVENTS} == set(module.Event.__args__)
    assert {type(command) for command in COMMANDS} == set(module.Command.__args__)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_event_is_json_and_comes_back_as_it_was(event) -> None:
    data = json.loads(json.dumps(event.to_dict()))
    assert from_dict({**data, "time": 1.0}) == event
    assert data.pop("event") == type(event).__name__
    assert set(data) == set(event.__dataclass_fields__)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_every_command_comes_back_as_it_was(command) -> None:
    assert command_from_dict(json.loads(json.dumps(command.to_dict()))) == command


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"event": "Nothing"},
        {"event": "Paused"},
        {"event": "Paused", "step": "4"},
        {"event": "Paused", "step": True},
        {"event": "Finished", "report": [1]},
        {"event": "Preview", "step": 1, "path": 7},
        {"event": "Stop"},
    ],
)
def test_anything_else_is_no_event(data: dict) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        from_dict(data)


def test_commands_are_no_events_and_events_no_commands() -> None:
    with pytest.raises(ValueError, match="'Paused'"):
        command_from_dict(Paused(1).to_dict())


def test_a_reader_gives_each_event_once_as_the_file_grows(tmp_path: Path) -> None:
    log, reader = EventLog(tmp_path / "events.jsonl"), EventReader(tmp_path / "events.jsonl")
    assert reader.read() == []
    log.append(EVENTS[0])
    log.append(StepDone(1))  # without losses: not written
    assert [event for _, event in reader.read()] == [EVENTS[0]]
    with log.path.open("ab") as file:
        file.write(b'{"event": "Warned", "mess')
    assert reader.read() == []
    with log.path.open("ab") as file:
        file.write(b'age": "whole"}\nnonsense\n[1]\n{"event": "Unknown"}\n')
    assert [event for _, event in reader.read()] == [Warned("whole")]
    log.path.unlink()
    assert reader.read() == []
    EventLog(log.path).append(Warned("another file"))
    assert [event for _, event in reader.read()] == [Warned("another file")]


def test_the_latest_events_are_found_at_the_end_of_a_long_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.path.write_bytes(b'{"event": "Warned", "message": "x"}\n' * 100_000)
    log.append(Paused(7))
    assert next(latest(log.path))[1] == Paused(7)
    assert list(latest(tmp_path / "none")) == []


def test_a_log_that_was_cut_off_goes_on_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "Paused", "step": 1}\n{"event": "Pau')
    EventLog(path).append(Paused(2))
    assert [event for _, event in EventReader(path).read()] == [Paused(1), Paused(2)]
