"""3. Words and guidance scale can change while a run is under way: a red ball turns blue half way."""

from sds3d import Session, events, load_config

config = load_config(preset="draft", overrides={"prompt": "a red ball", "prior": "analytic", "preview_every": 25})
session = Session(config, "outputs/ball-that-turns-blue")
for event in session.run():
    if isinstance(event, events.StepDone) and event.step == config.steps // 2:
        session.send(events.Change({"prompt": "a blue ball"}))
    elif isinstance(event, events.Changed):
        print("from step", event.step + 1, "on:", dict(event.changes))
print("look at", session.out_dir / "previews")
