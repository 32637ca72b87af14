"""What is done to Blender's scene: a mesh is put in, one is taken out, and gets its colours back."""

import json
import struct
from pathlib import Path

import bpy
from mathutils import Vector


def add_mesh(path: Path, name: str, location: Vector) -> bpy.types.Object:
    """Import a glb; its origin, the middle of its base, comes to `location`. The new object is the selected one."""
    leave_edit_mode()
    before = set(bpy.data.objects)
    bpy.ops.import_scene.gltf(filepath=str(path))
    new = [thing for thing in bpy.data.objects if thing not in before]
    (body,) = [thing for thing in new if thing.type == "MESH"]
    for thing in new:
        thing.select_set(thing is body)
        if thing is not body:
            body.matrix_world = body.matrix_world.copy()
            body.parent = None
            bpy.data.objects.remove(thing)
    body.name = body.data.name = name
    body.location = location
    bpy.context.view_layer.objects.active = body
    bpy.ops.ed.undo_push(message="sds3d: add")
    return body


def mesh_to_send(body: bpy.types.Object, path: Path) -> Path:
    """Export one object as glb, as it stands; UVs are made where it has none, because colours need a place."""
    leave_edit_mode()
    for thing in bpy.context.selected_objects:
        thing.select_set(False)
    body.select_set(True)
    bpy.context.view_layer.objects.active = body
    if not body.data.uv_layers:
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.select_all(action="SELECT")
        bpy.ops.uv.smart_project()
        bpy.ops.object.mode_set(mode="OBJECT")
    bpy.ops.export_scene.gltf(filepath=str(path), export_format="GLB", use_selection=True)
    return path


def paint(body: bpy.types.Object, textured: Path) -> None:
    """Give the object the base colours of a file that was made of it by `mesh_to_send`; all else stays.

    A material that other objects have as well is copied first.
    """
    pictures = base_colors(textured)
    if not body.data.materials:
        body.data.materials.append(bpy.data.materials.new(body.name))
        pictures = {body.name: next(iter(pictures.values()))}
    done = set[str]()
    for slot in body.material_slots:
        if slot.material is None or slot.material.name not in pictures or slot.material.name in done:
            continue
        name = slot.material.name
        if slot.material.users > 1:
            slot.material = slot.material.copy()
        image_file = textured.with_name(f"{len(done)}-{textured.stem}.png")
        image_file.write_bytes(pictures[name])
        image = bpy.data.images.load(str(image_file))
        image.name = f"{body.name} colours"
        image.pack()  # into the .blend: the file is a temporary one
        _connect(slot.material, image)
        done.add(name)
    bpy.ops.ed.undo_push(message="sds3d: texture")


def base_colors(path: Path) -> dict[str, bytes]:
    """The picture of each material of a glb, by the material's name."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    gltf, blob = json.loads(data[20 : 20 + length]), 20 + length + 8
    found = {}
    for material in gltf.get("materials", []):
        texture = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        if texture is not None:
            view = gltf["bufferViews"][gltf["images"][gltf["textures"][texture["index"]]["source"]]["bufferView"]]
            begin = blob + view.get("byteOffset", 0)
            found[material.get("name", "")] = data[begin : begin + view["byteLength"]]
    return found


def _connect(material: bpy.types.Material, image: bpy.types.Image) -> None:
    """The image as the base colour of the material's main shader."""
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)
    if shader is None:
        shader = nodes.new("ShaderNodeBsdfPrincipled")
        end = next((node for node in nodes if node.type == "OUTPUT_MATERIAL"), None)
        end = end or nodes.new("ShaderNodeOutputMaterial")
        links.new(shader.outputs["BSDF"], end.inputs["Surface"])
    texture = nodes.new("ShaderNodeTexImage")
    texture.image, texture.location = image, (shader.location.x - 300, shader.location.y)
    links.new(texture.outputs["Color"], shader.inputs["Base Color"])


def size_and_base(body: bpy.types.Object) -> tuple[float, Vector]:
    """(longest side, middle of the base) of an object in the world."""
    corners = [body.matrix_world @ Vector(corner) for corner in body.bound_box]
    low = Vector(min(corner[axis] for corner in corners) for axis in range(3))
    high = Vector(max(corner[axis] for corner in corners) for axis in range(3))
    middle = (low + high) / 2
    return max(high - low), Vector((middle.x, middle.y, low.z))


def leave_edit_mode() -> None:
    """Blender imports and exports in object mode only."""
    if bpy.context.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
