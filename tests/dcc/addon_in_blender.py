"""Runs inside Blender's Python: installs the add-on's zip, works with it as a person does, prints what came of it.

python addon_in_blender.py '{"zip": path, "server": address, "out": folder, "command": sds3d}'
"""

import json
import sys
import time
from pathlib import Path

import bpy
import numpy as np

PATIENCE = 300.0  # seconds


def install(path: str) -> str:
    """The name of the add-on's module."""
    repository = bpy.context.preferences.extensions.repos["User Default"]
    bpy.ops.extensions.package_install_files(repo=repository.module, filepath=path, enable_on_install=True)
    return f"bl_ext.{repository.module}.sds3d"


def wait(addon, while_waiting=lambda: None) -> str:
    """Blender's timers do not run without its window, so this is its clock; what the panel says in the end."""
    end = time.monotonic() + PATIENCE
    while addon.State.work is not None:
        addon.tick()
        while_waiting()
        assert time.monotonic() < end, addon.State.work.status
        time.sleep(0.05)
    return addon.State.said.text


def bounds(body) -> list[list[float]]:
    places = np.array([body.matrix_world @ vertex.co for vertex in body.data.vertices])
    return [places.min(axis=0).tolist(), places.max(axis=0).tolist()]


def uvs(body) -> list[float]:
    return [value for each in body.data.uv_layers.active.data for value in each.uv]


def main(job: dict) -> dict:  # noqa: PLR0915  # a visit, from beginning to end
    found = {}
    module = install(job["zip"])
    addon = sys.modules[module]
    chosen = bpy.context.preferences.addons[module].preferences
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.preferences.addon_enable(module=module)
    chosen = bpy.context.preferences.addons[module].preferences
    settings = bpy.context.scene.sds3d

    # nobody there
    chosen.server = "http://127.0.0.1:9"
    found["nobody"] = [bpy.ops.sds3d.connect() == {"CANCELLED"}, addon.State.said.text]
    settings.prompt = "a red ball"
    bpy.ops.sds3d.make()
    found["nobody_works"] = [wait(addon), addon.State.said.is_problem]

    # a ball at the cursor
    chosen.server = job["server"]
    bpy.ops.sds3d.connect()
    found["connected"] = [addon.State.said.text, len(addon.State.recipes)]
    settings.further = job["options"]
    settings.seed, settings.size, settings.steps = 3, 2.5, 200
    bpy.context.scene.cursor.location = (4, -2, 1)
    states = set()
    bpy.ops.sds3d.make()
    found["busy"] = bpy.ops.sds3d.make.poll()
    found["made"] = wait(addon, lambda: states.add(addon.State.work.status.text if addon.State.work else ""))
    found["states"] = sorted(states)
    found["preview"] = list(addon.State.pictures["preview"].image_size)
    ball = bpy.context.object
    found["ball"] = {
        "name": ball.name, "bounds": bounds(ball), "origin": list(ball.matrix_world.translation),
        "images": [list(image.size) for image in bpy.data.images if image.size[0]],
        "objects": [thing.name for thing in bpy.data.objects],
    }  # fmt: skip

    # colours for an object that somebody made, with a material that another one has as well
    bpy.ops.mesh.primitive_uv_sphere_add(location=(1, 2, 3), rotation=(0.3, 0, 0.5))
    body = bpy.context.object
    shared = bpy.data.materials.new("shared")
    body.data.materials.append(shared)
    bpy.ops.mesh.primitive_cube_add()
    other = bpy.context.object
    other.data.materials.append(shared)
    bpy.context.view_layer.objects.active = body
    before = [bounds(body), uvs(body), [list(vertex.normal) for vertex in body.data.vertices]]
    settings.prompt, settings.steps, settings.further = "a blue ball", 4, job["texture_options"]
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.sds3d.texture()
    found["textured"] = wait(addon)
    after = [bounds(body), uvs(body), [list(vertex.normal) for vertex in body.data.vertices]]
    material = body.material_slots[0].material
    link = (
        next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED").inputs["Base Color"].links[0]
    )
    image = link.from_node.image
    found["texture"] = {
        "untouched": before == after, "size": list(image.size), "packed": image.packed_file is not None,
        "own": material != shared, "other": [slot.material.name for slot in other.material_slots],
        "spread": float(np.std(np.array(image.pixels[:]).reshape(-1, 4)[:, :3])),
    }  # fmt: skip

    # one without UVs and without material
    bpy.ops.mesh.primitive_cone_add()
    bare = bpy.context.object
    while bare.data.uv_layers:
        bare.data.uv_layers.remove(bare.data.uv_layers[0])
    bpy.ops.sds3d.texture()
    found["bare"] = [wait(addon), len(bare.data.uv_layers), len(bare.data.materials)]

    # go on from the ball
    bpy.context.view_layer.objects.active = ball
    settings.prompt, settings.further = "a red ball", job["refine_options"]
    bpy.ops.sds3d.refine()
    found["refined"] = [wait(addon), bpy.context.object.name, bounds(bpy.context.object), ball.hide_get()]

    # changed my mind
    settings.steps, settings.further = 100_000, job["options"]
    bpy.ops.sds3d.make()
    count = len(bpy.data.objects)

    def cancel() -> None:
        if addon.State.work is not None and addon.State.work.status.text.startswith("step"):
            bpy.ops.sds3d.cancel()

    found["cancelled"] = [wait(addon, cancel), len(bpy.data.objects) == count]
    settings.steps, settings.further = 0, "guidance.guidance_scal=3"
    bpy.ops.sds3d.make()
    found["wrong"] = [wait(addon), addon.State.said.is_problem]

    bpy.ops.wm.save_as_mainfile(filepath=str(Path(job["out"]) / "scene.blend"))
    bpy.ops.preferences.addon_disable(module=module)
    found["disabled"] = hasattr(bpy.types.Scene, "sds3d")
    bpy.ops.preferences.addon_enable(module=module)
    found["enabled"] = hasattr(bpy.types.Scene, "sds3d")

    # a server of its own
    chosen = bpy.context.preferences.addons[module].preferences
    chosen.server, chosen.command = f"http://127.0.0.1:{job['port']}", job["command"]
    assert bpy.ops.sds3d.start_server() == {"FINISHED"}
    end = time.monotonic() + PATIENCE
    while bpy.ops.sds3d.connect() != {"FINISHED"}:
        assert time.monotonic() < end, addon.State.said
        time.sleep(0.5)
    found["own_server"] = addon.State.said.text
    bpy.ops.preferences.addon_disable(module=module)
    return found


if __name__ == "__main__":
    print("FOUND " + json.dumps(main(json.loads(sys.argv[1]))))
