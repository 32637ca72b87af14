"""Runs inside Blender's Python: writes primitives with UVs and two images each, or tells what files hold, as JSON.

python uvs_in_blender.py make FOLDER        python uvs_in_blender.py look FILE...
"""

import hashlib
import json
import sys
from pathlib import Path

import bpy
import numpy as np

PRIMITIVES = {
    "cube": bpy.ops.mesh.primitive_cube_add,
    "sphere": bpy.ops.mesh.primitive_uv_sphere_add,
    "cone": bpy.ops.mesh.primitive_cone_add,
    "torus": bpy.ops.mesh.primitive_torus_add,
    "monkey": bpy.ops.mesh.primitive_monkey_add,
}


def picture(name: str, seed: int):
    image = bpy.data.images.new(name, 16, 16)
    image.pixels[:] = np.random.default_rng(seed).random(16 * 16 * 4).astype(np.float32)
    image.pack()
    return image


def make(folder: Path) -> list[str]:
    files = []
    for name, add in PRIMITIVES.items():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        add(**({} if name == "monkey" else {"calc_uvs": True} if name != "torus" else {"generate_uvs": True}))
        body = bpy.context.object
        body.name = body.data.name = f"my {name}"
        material = bpy.data.materials.new(f"{name} skin")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        for seed, where in enumerate(("Base Color", "Emission Color")):
            texture = nodes.new("ShaderNodeTexImage")
            texture.image = picture(f"{name} {where}", seed)
            links.new(texture.outputs["Color"], nodes["Principled BSDF"].inputs[where])
        nodes["Principled BSDF"].inputs["Emission Strength"].default_value = 1.0
        body.data.materials.append(material)
        files.append(str(folder / f"{name}.glb"))
        bpy.ops.export_scene.gltf(filepath=files[-1], export_format="GLB")
    return files


def digest(values) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).hexdigest()


def read(collection, name: str, width: int) -> np.ndarray:
    found = np.empty(len(collection) * width, dtype=np.float32)
    collection.foreach_get(name, found)
    return found


def look(path: str) -> dict:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    objects = {}
    for thing in bpy.data.objects:
        if thing.type == "MESH":
            mesh = thing.data
            objects[thing.name] = {
                "mesh": mesh.name,
                "vertices": digest(read(mesh.vertices, "co", 3)),
                "corners": [loop.vertex_index for loop in mesh.loops],
                "uvs": {layer.name: digest(read(layer.uv, "vector", 2)) for layer in mesh.uv_layers},
                "normals": digest(read(mesh.corner_normals, "vector", 3)),
                "materials": [material.name for material in mesh.materials],
                "place": [list(row) for row in thing.matrix_world],
            }
    shown = {}
    for material in bpy.data.materials:
        if material.node_tree is not None:
            for link in material.node_tree.links:
                if link.from_node.type == "TEX_IMAGE":
                    image = link.from_node.image
                    shown[f"{material.name}: {link.to_socket.name}"] = digest(list(image.pixels))
    return {"objects": objects, "images": shown, "count": len([image for image in bpy.data.images if image.size[0]])}


if sys.argv[1] == "make":
    print("FOUND " + json.dumps(make(Path(sys.argv[2]))))
else:
    print("FOUND " + json.dumps({path: look(path) for path in sys.argv[2:]}))
