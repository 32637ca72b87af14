"""1. Words become an object: a run is a stream of events, and leaves a folder with a sheet of views and a mesh."""

from sds3d import Session, events, load_config

config = load_config(preset="draft", overrides={"prompt": "a red mug", "seed": 1})
session = Session(config, "outputs/first-object")

for event in session.run():
    if isinstance(event, events.StepDone) and event.step % 50 == 0:
        print(f"step {event.step} of {config.steps}")
    elif isinstance(event, events.Exported):
        print("wrote", event.path)
