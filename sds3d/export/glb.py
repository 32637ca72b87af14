"""glTF 2.0 with a texture or vertex colours, as one binary file or as several."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from sds3d.atomic import write_atomic
from sds3d.export.mesh import Mesh, images_of, split
from sds3d.export.normal_map import tangents
from sds3d.export.read_mesh import read_with_trimesh
from sds3d.mesh_files.gltf import BINARY_CHUNK, JSON_CHUNK, MAGIC, VERSION
from sds3d.mesh_files.reading import WORLD_TO_GLTF, linear_from_srgb
from sds3d.types import Material

FLOAT, UNSIGNED_INT, VERTEX_DATA, INDEX_DATA = 5126, 5125, 34962, 34963
# linear, with mip maps; clamped, because the atlas does not repeat
SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}


def write_glb(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """One mesh with normals and its colours; `metadata` goes to asset.extras."""
    write_atomic(path, glb_bytes(mesh, metadata))


def write_gltf(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """The same as several files: .gltf, and beside it .bin and, with a texture, _color.png and perhaps _normal.png."""
    tree, binary, images = gltf_parts(mesh, metadata)
    data = path.with_suffix(".bin")
    tree["buffers"][0]["uri"] = data.name
    write_atomic(data, binary)
    for name, image in images.items():
        image_path = path.with_name(f"{path.stem}_{name}.png")
        tree.setdefault("images", []).append({"uri": image_path.name})
        write_atomic(image_path, image)
    write_atomic(path, (json.dumps(tree, indent=1) + "\n").encode())


def glb_bytes(mesh: Mesh, metadata: Mapping[str, Any]) -> bytes:
    """The file's content; the same mesh and metadata always give the same bytes."""
    tree, binary, images = gltf_parts(mesh, metadata)
    for name, image in images.items():
        tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(image)})
        picture = {"name": name, "bufferView": len(tree["bufferViews"]) - 1, "mimeType": "image/png"}
        tree.setdefault("images", []).append(picture)
        binary += image + b"\0" * (-len(image) % 4)
        tree["buffers"][0]["byteLength"] = len(binary)
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(binary), BINARY_CHUNK) + binary
    return struct.pack("<III", MAGIC, VERSION, 12 + len(chunks)) + chunks


def gltf_parts(mesh: Mesh, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bytes, dict[str, bytes]]:
    """The JSON tree without its images, the buffer, and the images as PNG: color and normal, as far as there are.

    COLOR_0 multiplies the material's white and is linear in glTF: sRGB vertex colours are decoded. Textures are sRGB.
    """
    arrays = _arrays(mesh)
    views, accessors, binary = [], [], b""
    for index, (name, array) in enumerate(arrays.items()):
        kind, target = (UNSIGNED_INT, INDEX_DATA) if name == "indices" else (FLOAT, VERTEX_DATA)
        shape = "SCALAR" if name == "indices" else f"VEC{array.shape[1]}"
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes, "target": target})
        accessors.append({"bufferView": index, "componentType": kind, "count": len(array), "type": shape})
        binary += array.tobytes()  # of 4-byte numbers, so every view starts aligned
    accessors[0] |= {"min": arrays["POSITION"].min(axis=0).tolist(), "max": arrays["POSITION"].max(axis=0).tolist()}
    attributes = {name: index for index, name in enumerate(arrays) if name != "indices"}
    primitive = {"attributes": attributes, "indices": len(attributes), "material": 0, "mode": 4}
    surface: dict[str, Any] = gltf_factors(mesh.material)
    surface["baseColorFactor"], textures, images = [1.0, 1.0, 1.0, 1.0], dict[str, Any](), images_of(mesh)
    material = {"name": "surface", "pbrMetallicRoughness": surface}
    if images:
        surface["baseColorTexture"] = {"index": 0}
        pictures = [{"source": number, "sampler": 0} for number in range(len(images))]
        textures = {"textures": pictures, "samplers": [SAMPLER]}
    if "normal" in images:
        material["normalTexture"] = {"index": 1}
    tree = {
        "asset": {"version": "2.0", "generator": "sds3d", "extras": dict(metadata)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "object"}],
        "meshes": [{"name": "object", "primitives": [primitive]}],
        "materials": [material],
        **textures,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return tree, binary, images


def gltf_factors(material: Material) -> dict[str, float]:
    """Entries of pbrMetallicRoughness."""
    return {f"{name}Factor": value for name, value in material._asdict().items()}


def _arrays(mesh: Mesh) -> dict[str, ndarray]:
    """Vertex attributes in glTF's axes and the indices last."""
    parts = split(mesh)
    positions = (mesh.vertices[parts.vertices] @ WORLD_TO_GLTF.T).astype("<f4")
    normals = (parts.normals @ WORLD_TO_GLTF.T).astype("<f4")
    if mesh.texture is None:
        colors = {"COLOR_0": linear_from_srgb(mesh.colors[parts.vertices]).astype("<f4")}
    else:
        colors = {"TEXCOORD_0": mesh.texture.uvs[parts.uvs].astype("<f4")}
        if mesh.texture.normals is not None:
            towards = tangents(mesh, parts)
            colors["TANGENT"] = np.concatenate([towards[:, :3] @ WORLD_TO_GLTF.T, towards[:, 3:]], axis=1).astype("<f4")
    return {"POSITION": positions, "NORMAL": normals, **colors, "indices": parts.faces.astype("<u4").ravel()}


def read_glb(path: Path) -> Mesh:
    """The mesh of a .glb or .gltf as written here, in world axes and sRGB, with its seams welded."""
    return read_with_trimesh(path, WORLD_TO_GLTF, linear_colors=True)
