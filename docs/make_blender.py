"""Draws blender.png: what the add-on made in Blender, rendered by Blender itself. Takes some minutes on two cores.

`.venv/bin/python docs/make_blender.py`, after `make test-dcc`, which installs Blender as a Python module.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BPY = os.environ.get("SDS3D_BPY", str(ROOT / "build" / "dcc" / "blender" / "bin" / "python"))
PICTURE = ROOT / "docs" / "blender.png"


def main() -> None:
    from PIL import Image

    from tests.app.ui.browser import Server
    from tests.test_docs import load

    with tempfile.TemporaryDirectory(prefix="sds3d-blender-docs-") as name:
        folder = Path(name)
        packed = load(ROOT / "app" / "blender" / "pack.py").pack(folder)
        server = Server(folder / "outputs")
        job = {"zip": str(packed), "server": server.address, "out": str(folder)}
        home = {"HOME": name, "PATH": os.environ["PATH"], "BLENDER_USER_RESOURCES": str(folder / "blender")}
        try:
            subprocess.run([BPY, __file__, json.dumps(job)], env=home, check=True)
        finally:
            server.end()
        pictures = [Image.open(folder / f"{number}.png").convert("RGB") for number in range(3)]
        width, height = pictures[0].size
        row = Image.new("RGB", (width * len(pictures), height))
        for number, picture in enumerate(pictures):
            row.paste(picture, (number * width, 0))
        row.quantize(128, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(PICTURE)


def in_blender(job: dict[str, str]) -> None:
    """A mug at the cursor; a torus, as it is and with its colours."""
    sys.path.insert(0, str(ROOT / "tests" / "dcc"))
    import bpy
    from addon_in_blender import install, wait

    bpy.ops.wm.read_factory_settings(use_empty=True)
    module = install(job["zip"])
    addon = sys.modules[module]
    bpy.context.preferences.addons[module].preferences.server = job["server"]
    settings = bpy.context.scene.sds3d
    stage(bpy)
    settings.prompt, settings.size = "a red mug", 1.8
    bpy.ops.sds3d.make()
    assert wait(addon) == "done", addon.State.said
    render(bpy, Path(job["out"]) / "0.png")
    bpy.data.objects.remove(bpy.context.object)

    bpy.ops.mesh.primitive_torus_add(location=(0, 0, 0.42), major_radius=0.85, minor_radius=0.42, major_segments=64)
    bpy.ops.object.shade_smooth()
    render(bpy, Path(job["out"]) / "1.png")
    settings.prompt = "a striped pink and white donut"
    bpy.ops.sds3d.texture()
    assert wait(addon) == "done", addon.State.said
    render(bpy, Path(job["out"]) / "2.png")


def stage(bpy: object) -> None:
    """A floor, two lights and a camera."""
    from mathutils import Vector

    scene = bpy.context.scene
    bpy.ops.mesh.primitive_plane_add(size=40)
    bpy.context.object.name = "floor"
    for place, power in (((4, -5, 6), 420), ((-5, -3, 3), 90)):
        light = bpy.data.objects.new("light", bpy.data.lights.new("light", "AREA"))
        light.data.energy, light.data.size, light.location = power, 3, place
        light.rotation_euler = (Vector((0, 0, 0.8)) - light.location).to_track_quat("-Z", "Y").to_euler()
        scene.collection.objects.link(light)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.8, 0.85, 0.9, 1)
    scene.world.node_tree.nodes["Background"].inputs[1].default_value = 0.18
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location = (2.6, -4.6, 2.6)
    camera.rotation_euler = (Vector((0, 0, 0.8)) - camera.location).to_track_quat("-Z", "Y").to_euler()
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.cycles.samples = "CYCLES", 48
    scene.render.resolution_x, scene.render.resolution_y = 420, 360
    scene.view_settings.view_transform = "Standard"


def render(bpy: object, path: Path) -> None:
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    in_blender(json.loads(sys.argv[1])) if len(sys.argv) > 1 else main()
