"""2. A run that is stopped is saved, and goes on later, in this process or another, as if nothing had happened."""

from sds3d import Session, events, load_config

config = load_config(preset="draft", overrides={"prompt": "a blue chair", "scene": "gaussians", "checkpoint_every": 20})
session = Session(config, "outputs/blue-chair")
for event in session.run():
    if isinstance(event, events.CheckpointSaved):
        session.send(events.Stop())  # also: Pause, Resume, FinishEarly
print("stopped:", session.folder.status())

again = Session.resume(session.out_dir)
for event in again.run():
    if isinstance(event, events.Started):
        print("goes on at step", event.step)
print("now:", again.folder.status())
