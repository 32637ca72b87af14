"""8. Files for other programs: formats, sizes, axes. Every file is read again and checked before you get it."""

from sds3d import Session, load_config
from sds3d.training.session import export_run

config = load_config(preset="draft", overrides={"prompt": "a red ball", "prior": "analytic", "scene": "gaussians"})
session = Session(config, "outputs/ball-for-others")
for _ in session.run():
    pass

# for a slicer: 50 mm tall, standing on the plate; for a game: few triangles, y up
for written in export_run(session.out_dir, ["stl"], options={"size": 50, "pivot": "base"}):
    print(written.path.name, "-", written.stats["faces"], "triangles, closed:", written.stats["watertight"])
for written in export_run(session.out_dir, ["obj"], options={"faces": 500, "up": "y"}):
    print(written.path.name, "-", written.stats["faces"], "triangles")
