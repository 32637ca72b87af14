"""glTF 2.0 binary files with vertex colours, and reading our own back."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.errors import ExportError
from sds3d.export.mesh import Mesh, vertex_normals
from sds3d.files import write_atomic

# Ours: +z up, +x front, +y the object's left. glTF: +Y up, +Z front, +X the object's left. A rotation: y, z, x.
WORLD_TO_GLTF = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
FLOAT, UNSIGNED_INT, VERTEX_DATA, INDEX_DATA = 5126, 5125, 34962, 34963


def write_glb(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """One mesh with normals, vertex colours and a plain rough white material; `metadata` goes to asset.extras.

    COLOR_0 multiplies the material's white and is linear by the standard, so the sRGB colours are decoded here.
    """
    write_atomic(path, glb_bytes(mesh, metadata))


def glb_bytes(mesh: Mesh, metadata: Mapping[str, Any]) -> bytes:
    """The file's content; the same mesh and metadata always give the same bytes."""
    arrays = {
        "POSITION": (mesh.vertices @ WORLD_TO_GLTF.T).astype("<f4"),
        "NORMAL": (vertex_normals(mesh.vertices, mesh.faces) @ WORLD_TO_GLTF.T).astype("<f4"),
        "COLOR_0": linear_from_srgb(mesh.colors).astype("<f4"),
        "indices": mesh.faces.astype("<u4").ravel(),
    }
    views, accessors, binary = [], [], b""
    for index, (name, array) in enumerate(arrays.items()):
        is_index = name == "indices"
        target = INDEX_DATA if is_index else VERTEX_DATA
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes, "target": target})
        accessors.append(
            {
                "bufferView": index,
                "componentType": UNSIGNED_INT if is_index else FLOAT,
                "count": len(array),
                "type": "SCALAR" if is_index else "VEC3",
            }
        )
        binary += array.tobytes()  # all of 4-byte numbers, so every view starts aligned
    accessors[0] |= {"min": arrays["POSITION"].min(axis=0).tolist(), "max": arrays["POSITION"].max(axis=0).tolist()}
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "indices": 3, "material": 0, "mode": 4}
    surface = {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}
    tree = {
        "asset": {"version": "2.0", "generator": "sds3d", "extras": dict(metadata)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "object"}],
        "meshes": [{"name": "object", "primitives": [primitive]}],
        "materials": [{"name": "vertex colours", "pbrMetallicRoughness": surface}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(binary), BINARY_CHUNK) + binary
    return struct.pack("<III", MAGIC, VERSION, 12 + len(chunks)) + chunks


def read_glb(path: Path) -> Mesh:
    """The mesh of a file as `write_glb` makes them, read through trimesh, in world axes and sRGB."""
    import trimesh  # here: `import sds3d` stays quick

    try:
        (loaded,) = trimesh.load_scene(path, file_type="glb", process=False).geometry.values()
        vertices, faces = np.asarray(loaded.vertices), np.asarray(loaded.faces)
        # beside a material trimesh keeps COLOR_0 as an attribute of the visual
        visual: Any = loaded.visual
        colors = np.asarray(visual.vertex_attributes["color"], dtype=np.float64)[:, :3]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, OSError) as error:
        raise ExportError(f"{path} cannot be read back as a mesh: {error}", hint="export again") from error
    world = vertices @ WORLD_TO_GLTF
    return Mesh(world.astype(np.float32), faces.astype(np.int64), srgb_from_linear(colors).astype(np.float32))


def linear_from_srgb(colors: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """The sRGB transfer function, decoded (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((np.maximum(colors, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(colors: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """The sRGB transfer function, encoded (IEC 61966-2-1)."""
    return np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * np.maximum(colors, 0.0031308) ** (1 / 2.4) - 0.055)
