import json
from pathlib import Path

import pytest

from sds3d.run.events import Changed, CheckpointSaved, Exported, Finished, Measured, Preview, Started, StepDone, Warned

EVENTS = [
    Started("a mug", Path("out"), "cpu", 0, 10),
    StepDone(3, {"guidance": 1.5}, 0.1),
    Preview(3, Path("out/previews/a.png")),
    CheckpointSaved(3, Path("out/checkpoints/step-000003")),
    Exported(Path("mesh.glb"), {"faces": 12}),
    Warned("careful"),
    Changed(3, {"prompt": "a blue mug"}),
    Measured(3, {"janus": {"agreement": 0.5}}),
    Finished({"steps": 10}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_event_is_json_and_says_its_kind(event) -> None:
    data = json.loads(json.dumps(event.to_dict()))
    assert data.pop("event") == type(event).__name__
    assert set(data) == set(event.__dataclass_fields__)


def test_paths_become_text() -> None:
    assert EVENTS[2].to_dict()["path"] == str(Path("out/previews/a.png"))
