"""Runs inside Blender's Python: imports each file, and prints what it holds and how it renders, as JSON.

python in_blender.py '{"files": [...], "camera": [[16 numbers]], "fov": radians, "size": pixels, "out": folder}'
"""

import json
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

IMPORT = {
    ".glb": bpy.ops.import_scene.gltf,
    ".gltf": bpy.ops.import_scene.gltf,
    ".obj": bpy.ops.wm.obj_import,
    ".ply": bpy.ops.wm.ply_import,
    ".stl": bpy.ops.wm.stl_import,
    ".usdz": bpy.ops.wm.usd_import,
}


def main(job: dict) -> dict:
    return {file: look(Path(file), job) for file in job["files"]}


def look(path: Path, job: dict) -> dict:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    IMPORT[path.suffix](filepath=str(path))
    (body,) = [thing for thing in bpy.data.objects if thing.type == "MESH"]
    mesh = body.data
    places = np.array([body.matrix_world @ vertex.co for vertex in mesh.vertices])
    images = [image for image in bpy.data.images if image.size[0]]
    principled = next((n for m in mesh.materials if m for n in m.node_tree.nodes if n.type == "BSDF_PRINCIPLED"), None)
    found = {
        "vertices": len(mesh.vertices),
        "places": len({tuple(np.round(place, 5)) for place in places}),
        "faces": len(mesh.polygons),
        "uv_layers": len(mesh.uv_layers),
        "images": [[*image.size, image.colorspace_settings.name] for image in images],
        "low": places.min(axis=0).tolist(),
        "high": places.max(axis=0).tolist(),
        "roughness": principled.inputs["Roughness"].default_value if principled else None,
        "metallic": principled.inputs["Metallic"].default_value if principled else None,
    }
    if images and principled:
        found["picture"] = render(principled, mesh, path, job)
    return found


def render(principled, mesh, path: Path, job: dict) -> str:
    """A picture of the base colour alone, unlit, over nothing."""
    for material in mesh.materials:
        nodes, links = material.node_tree.nodes, material.node_tree.links
        glow = nodes.new("ShaderNodeEmission")
        links.new(principled.inputs["Base Color"].links[0].from_socket, glow.inputs["Color"])
        (end,) = [node for node in nodes if node.type == "OUTPUT_MATERIAL"]
        links.new(glow.outputs[0], end.inputs["Surface"])
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    camera.matrix_world = Matrix(job["camera"])
    camera.data.angle = job["fov"]
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 4
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = job["size"]
    scene.view_settings.view_transform = "Standard"
    picture = Path(job["out"]) / f"{path.name}.png"
    scene.render.filepath = str(picture)
    bpy.ops.render.render(write_still=True)
    return str(picture)


print("FOUND " + json.dumps(main(json.loads(sys.argv[1]))))
