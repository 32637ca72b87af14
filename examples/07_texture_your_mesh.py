"""7. Colours for a mesh that you have: its positions, normals and UVs stay as they are, to the byte."""

import trimesh

from sds3d import Session, load_config

trimesh.creation.icosphere(subdivisions=3).export("plain-ball.glb")

config = load_config(
    overrides={
        "prompt": "a red ball",
        "steps": 60,
        "stages": [],
        "scene": {"name": "mesh", "geometry": "fixed", "source": {"path": "plain-ball.glb", "up": "z"}},
    }
)
session = Session(config, "outputs/painted-ball")
for event in session.run():
    if type(event).__name__ == "Exported":
        print("wrote", event.path)

painted = trimesh.load(session.out_dir / "textured.glb", force="mesh")
print("base colours:", painted.visual.material.baseColorTexture.size, "on", len(painted.faces), "triangles")
