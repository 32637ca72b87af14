"""A person's mesh, as a run needs it: triangles in the file's own coordinates, and how they stand in the world."""

import io
import logging
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from PIL import Image
from pydantic import Field

from sds3d.errors import ConfigError, first_line
from sds3d.mesh_files.gltf import Gltf, read_bytes, sibling
from sds3d.options import LocalFile, Options

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
GLTF_KINDS, OTHER_KINDS = (".glb", ".gltf"), (".obj", ".ply", ".stl")
RADIUS = 0.88  # world units, of the farthest point from the middle: as objects stand in the embedded prior's pictures
MOST_FACES = 1_000_000
MOST_PIXELS = 8192 * 8192  # of a texture that is looked into
LISTED = 12  # parts that are described
ON_GROUND = 0.01  # in sizes: from where on an object that begins at 0 stands there
UP = {".stl": "z", ".ply": "z", ".obj": "y", ".glb": "y", ".gltf": "y"}  # by convention; glTF says so
FRONT: dict[str, Axis] = {"x": "-y", "y": "z", "z": "-y"}  # for each axis that can be up, as Blender's front view
# Ours: +z up, +x front, +y the object's left. glTF: +Y up, +Z front, +X the object's left. A rotation: y, z, x.
WORLD_TO_GLTF = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, struct.error)


class MeshSource(Options):
    """A mesh file to begin with, and how it stands."""

    path: Annotated[str, Field(min_length=1, max_length=4096), LocalFile()]
    up: Annotated[Axis | None, Field(description="the file's axis that points up; null: found")] = None
    front: Annotated[Axis | None, Field(description="the file's axis that the front looks along; null: found")] = None


@dataclass(frozen=True)
class Part:
    """One primitive of the file at one of its places."""

    name: str
    mesh: int
    primitive: int
    material: int | None
    vertices: Float[ndarray, "V 3"]  # the file's own coordinates, after its nodes' transforms
    faces: Int[ndarray, "F 3"]
    normals: Float[ndarray, "V 3"] | None
    uvs: Float[ndarray, "V 2"] | None  # (0, 0) is the upper left corner of the image; the textures repeat
    colors: Float[ndarray, "V 3"] | None  # linear, of the vertices


@dataclass(frozen=True)
class UserMesh:
    """All that the file shows, and its place in the world: world = scale rotation (p - center)."""

    path: Path
    gltf: Gltf  # of another kind of file, the same as glTF
    parts: list[Part]
    files: list[str]  # beside `path`, that belong to it
    up: Axis
    front: Axis
    up_by: str  # how `up` was found
    rotation: Float[ndarray, "3 3"]
    center: Float[ndarray, "3"]
    scale: float
    notes: list[str] = field(default_factory=list)  # what a person should know

    def describe(self) -> list[str]:
        """What was read, in lines for a person: the whole, then each part."""
        points = np.concatenate([part.vertices for part in self.parts])
        size = " x ".join(f"{side:.4g}" for side in np.ptp(points, axis=0))
        total = sum(len(part.faces) for part in self.parts)
        up, front = (axis if axis[0] == "-" else f"+{axis}" for axis in (self.up, self.front))
        lines = [
            f"{self.path.name}: {total:,} triangles in {len(self.parts)} parts, {size} of its units",
            f"up is {up} ({self.up_by}), the front looks along {front}; --up and --front say otherwise",
        ]
        for part in self.parts[:LISTED]:
            picture = self.base_image(part.material)
            texture = "no texture" if picture is None else f"texture {picture.width} x {picture.height}"
            uvs = "no UVs" if part.uvs is None else "UVs"
            lines.append(f"  {part.name}: {len(part.faces):,} triangles, {uvs}, {texture}")
        return lines + ([f"  and {len(self.parts) - LISTED} more"] if len(self.parts) > LISTED else [])

    def to_world(self, points: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        """Points of the file in the world."""
        return self.scale * (points - self.center) @ self.rotation.T

    def corners(self) -> tuple[Float[ndarray, "C 3"], Float[ndarray, "C 3"], Int[ndarray, "F 3"]]:
        """World vertices, unit normals and faces of all parts; without faces of no area.

        Where the file has no normals, faces are flat, with corners of their own.
        """
        vertices, normals, faces, count = [], [], [], 0
        for part in self.parts:
            points, corners, shading = self.to_world(part.vertices), part.faces, part.normals
            across = np.cross(
                points[corners[:, 1]] - points[corners[:, 0]], points[corners[:, 2]] - points[corners[:, 0]]
            )
            area = np.linalg.norm(across, axis=1)
            corners = corners[area > 0]
            if shading is None:
                flat = (across[area > 0] / area[area > 0, None]).repeat(3, axis=0)
                points, corners = points[corners.ravel()], np.arange(corners.size).reshape(-1, 3)
            else:
                flat = shading @ self.rotation.T
            vertices.append(points)
            normals.append(flat)
            faces.append(corners + count)
            count += len(points)
        return np.concatenate(vertices), np.concatenate(normals), np.concatenate(faces)

    def samples(
        self, count: int, generator: np.random.Generator
    ) -> tuple[Float[ndarray, "P 3"], Float[ndarray, "P 3"]]:
        """About `count` world points of the surface, uniform by area, and the file's base colours there, sRGB."""
        areas = [_areas(part.vertices[part.faces]) for part in self.parts]
        total, points, colors = sum(float(area.sum()) for area in areas), [], []
        for part, area in zip(self.parts, areas, strict=True):
            share = round(count * float(area.sum()) / total)
            if share == 0:
                continue
            face = generator.choice(len(area), share, p=area / area.sum())
            weights = generator.exponential(size=(share, 3))  # uniform over each triangle
            weights /= weights.sum(axis=1, keepdims=True)
            points.append((part.vertices[part.faces[face]] * weights[..., None]).sum(axis=1))
            colors.append(self.colors_at(part, face, weights))
        return self.to_world(np.concatenate(points)), np.concatenate(colors)

    def base_image(self, material: int | None) -> Image.Image | None:
        """The picture of a material's base colour; None where there is none that can be read."""
        data, _ = _look_of(self.gltf, material)
        if data is None:
            return None
        try:
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels")
            picture.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            note = f"a texture of {self.path.name} is not looked into: {first_line(error)}"
            if note not in self.notes:
                self.notes.append(note)
            return None
        return picture

    def colors_at(self, part: Part, face: Int[ndarray, " P"], weights: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        """The file's own base colours, sRGB, at points of a part's faces."""
        corners = part.faces[face]
        linear = np.ones((len(face), 3)) * _look_of(self.gltf, part.material)[1]
        if part.colors is not None:
            linear = linear * (part.colors[corners] * weights[..., None]).sum(axis=1)
        picture = self.base_image(part.material) if part.uvs is not None else None
        if picture is not None and part.uvs is not None:
            pixels = np.asarray(picture.convert("RGB"))
            uv = (part.uvs[corners] * weights[..., None]).sum(axis=1) % 1.0
            column, row = (uv * [picture.width, picture.height]).astype(int).T
            inside = np.minimum(row, picture.height - 1), np.minimum(column, picture.width - 1)
            linear = linear * linear_from_srgb(pixels[inside] / 255.0)
        return srgb_from_linear(np.clip(linear, 0, 1))


def read_user_mesh(source: MeshSource) -> UserMesh:
    """The file with its place in the world. ConfigError, one line, for what cannot be used."""
    path = Path(os.path.expanduser(source.path))
    kind = path.suffix.lower()
    if kind not in GLTF_KINDS + OTHER_KINDS:
        raise ConfigError(f"{path} is no mesh that sds3d reads", hint="known: " + ", ".join(GLTF_KINDS + OTHER_KINDS))
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", field="scene.source.path")
    notes: list[str] = []
    try:
        gltf, files = Gltf.read(path) if kind in GLTF_KINDS else _read_other(path, kind, notes)
        parts = list(_parts(gltf, path, notes))
        for material in {part.material for part in parts}:  # now: later nobody expects a reference that leads nowhere
            _look_of(gltf, material)
        if kind in OTHER_KINDS:  # their colours are sRGB, by custom
            parts = [
                replace(part, colors=None if part.colors is None else linear_from_srgb(part.colors)) for part in parts
            ]
    except DAMAGED as error:
        raise ConfigError(f"{path} is damaged, or no {kind[1:]}: {first_line(error)}", hint="save it again") from error
    if not any(len(part.faces) for part in parts):
        raise ConfigError(f"{path} has no triangles", hint="points and lines have no surface to paint")
    count = sum(len(part.faces) for part in parts)
    if count > MOST_FACES:
        raise ConfigError(f"{path} has {count:,} triangles", hint=f"at most {MOST_FACES:,}: decimate it first")
    used = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts])
    if not np.isfinite(used).all():
        raise ConfigError(f"{path} has vertices that are not finite numbers", hint="repair it first")
    low, high = used.min(axis=0), used.max(axis=0)
    up, up_by = (source.up, "as you said") if source.up else _find_up(kind, low, high)
    front = source.front or FRONT[up[-1]]
    if front[-1] == up[-1]:
        raise ConfigError(f"up = {up} and front = {front} are the same axis", hint="they are at right angles")
    center = (low + high) / 2
    radius = float(np.linalg.norm(used - center, axis=1).max())
    if radius < 1e-30 or radius > 1e30:
        raise ConfigError(f"{path} is {2 * radius:g} across", hint="scale it to a usual size")
    if not any(_areas(part.vertices[part.faces]).any() for part in parts):
        raise ConfigError(f"{path} has only triangles of no area", hint="repair it first")
    rotation = rotation_of(up, front)
    if kind in OTHER_KINDS:  # as glTF, it stands on +Y
        (scene,) = gltf.tree["scenes"]
        matrix = np.eye(4)
        matrix[:3, :3] = WORLD_TO_GLTF @ rotation
        standing = {"name": path.stem, "children": scene["nodes"], "matrix": matrix.T.ravel().tolist()}
        scene["nodes"] = [gltf.add("nodes", standing)]
    return UserMesh(path, gltf, parts, files, up, front, up_by, rotation, center, RADIUS / radius, notes)


def _areas(corners: Float[ndarray, "F 3 3"]) -> Float[ndarray, " F"]:
    across: ndarray = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.linalg.norm(across, axis=1) / 2


def rotation_of(up: Axis, front: Axis) -> Float[ndarray, "3 3"]:
    """From the file's axes to the world's: the front becomes +x, up becomes +z."""
    x, z = (np.eye(3)["xyz".index(axis[-1])] * (-1 if axis[0] == "-" else 1) for axis in (front, up))
    return np.stack([x, np.cross(z, x), z])


def _find_up(kind: str, low: ndarray, high: ndarray) -> tuple[Axis, str]:
    """By what the format says; else the one of y and z at whose 0 the object stands; else by convention."""
    if kind in GLTF_KINDS:
        return "y", "as glTF says"
    size = float((high - low).max())
    axes: tuple[Axis, Axis] = ("y", "z")
    standing = [axis for axis in axes if abs(low["xyz".index(axis)]) < ON_GROUND * size]
    if len(standing) == 1:
        return standing[0], "because it stands on 0 there"
    return ("y" if UP[kind] == "y" else "z"), f"as is usual in {kind[1:]} files"


def base_texture(tree: dict[str, Any], material: int | None) -> dict[str, Any] | None:
    """The reference to a material's texture of base colours."""
    if material is None:
        return None
    entry = tree["materials"][material]
    old = entry.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    found: dict[str, Any] | None = old.get("diffuseTexture") or entry.get("pbrMetallicRoughness", {}).get(
        "baseColorTexture"
    )
    return found


def _image_of(texture: dict[str, Any]) -> int:
    webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
    return int(texture["source"] if "source" in texture else webp["source"])


def _look_of(gltf: Gltf, material: int | None) -> tuple[bytes | None, Float[ndarray, "3"]]:
    """(the file of the picture of a material's base colour, the colour that it is multiplied with)."""
    texture, tree = base_texture(gltf.tree, material), gltf.tree
    data = None
    if texture is not None:
        data = gltf.bytes_of(tree["images"][_image_of(tree["textures"][texture["index"]])]["bufferView"])
    surface = {} if material is None else tree["materials"][material].get("pbrMetallicRoughness", {})
    factor = np.array(surface.get("baseColorFactor", [1.0] * 4)[:3], dtype=np.float64)
    if factor.shape != (3,) or not np.isfinite(factor).all():
        raise ValueError(f"the colour of material {material} is no colour")
    return data, factor


def _parts(gltf: Gltf, path: Path, notes: list[str]) -> Iterator[Part]:
    tree = gltf.tree
    nodes, scenes = tree.get("nodes", []), tree.get("scenes")
    children = {child for node in nodes for child in node.get("children", [])}
    roots = scenes[tree.get("scene", 0)].get("nodes", []) if scenes else sorted({*range(len(nodes))} - children)
    places: dict[int, ndarray] = {}
    waiting = [(number, np.eye(4)) for number in reversed(roots)]
    while waiting:
        number, outer = waiting.pop()
        if number in places:
            raise ValueError(f"node {number} has two parents")
        places[number] = outer @ _matrix(nodes[number])
        waiting += [(child, places[number]) for child in reversed(nodes[number].get("children", []))]
    left_out = 0
    for number, place in places.items():
        node = nodes[number]
        if "mesh" not in node:
            continue
        mesh = tree["meshes"][node["mesh"]]
        name = str(node.get("name") or mesh.get("name") or f"mesh {node['mesh']}")
        skin = tree["skins"][node["skin"]] if "skin" in node else None
        for index, primitive in enumerate(mesh["primitives"]):
            if primitive.get("mode", 4) < 4 or "POSITION" not in primitive.get("attributes", {}):
                left_out += 1
                continue
            bones = None if skin is None else _bones(gltf, skin, places)
            yield _part(gltf, primitive, place, bones, name, node["mesh"], index)
    if left_out:
        notes.append(f"{left_out} parts of points or lines in {path.name} stay as they are")


def _part(
    gltf: Gltf, primitive: dict[str, Any], place: ndarray, bones: ndarray | None, name: str, mesh: int, index: int
) -> Part:
    attributes, tree = primitive["attributes"], gltf.tree
    vertices = gltf.numbers(attributes["POSITION"])[:, :3]
    faces = _faces(gltf, primitive, len(vertices))
    matrix: ndarray = np.broadcast_to(place, (len(vertices), 4, 4))
    if bones is not None and "JOINTS_0" in attributes:
        joints, weights = gltf.array(attributes["JOINTS_0"]).astype(np.int64), gltf.numbers(attributes["WEIGHTS_0"])
        matrix = np.einsum(
            "vj,vjab->vab", weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9), bones[joints]
        )
    moved = np.einsum("vab,vb->va", matrix[:, :3, :3], vertices) + matrix[:, :3, 3]
    normals = None
    if "NORMAL" in attributes:
        turn = np.linalg.pinv(matrix[:1, :3, :3] if bones is None else matrix[:, :3, :3])
        normals = np.einsum(
            "vba,vb->va", np.broadcast_to(turn, (len(vertices), 3, 3)), gltf.numbers(attributes["NORMAL"])
        )
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    if bones is None and np.linalg.det(place[:3, :3]) < 0:
        faces = faces[:, ::-1]
    material = primitive.get("material")
    texture = base_texture(tree, material) or {}
    transform = texture.get("extensions", {}).get("KHR_texture_transform", {})
    layer = f"TEXCOORD_{transform.get('texCoord', texture.get('texCoord', 0))}"
    uvs = _transformed(gltf.numbers(attributes[layer]), transform) if layer in attributes else None
    if uvs is not None and not np.isfinite(uvs).all():
        raise ValueError(f"{name}: UVs that are not finite numbers")
    colors = gltf.numbers(attributes["COLOR_0"])[:, :3] if "COLOR_0" in attributes else None
    return Part(name, mesh, index, material, moved, faces, normals, uvs, colors)


def _faces(gltf: Gltf, primitive: dict[str, Any], count: int) -> Int[ndarray, "F 3"]:
    """Lists, strips and fans as triangles; IndexError for corners that do not exist."""
    order = gltf.array(primitive["indices"])[:, 0].astype(np.int64) if "indices" in primitive else np.arange(count)
    if len(order) and order.max() >= count:
        raise IndexError(f"a face names vertex {order.max()}, and there are {count}")
    mode = primitive.get("mode", 4)
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    starts = np.arange(max(0, len(order) - 2))
    if mode == 6:
        return np.stack([np.zeros_like(order[2:]) + order[:1], order[1:-1], order[2:]], axis=1)
    odd = starts % 2
    return np.stack([order[starts], order[starts + 1 + odd], order[starts + 2 - odd]], axis=1)


def _transformed(uvs: ndarray, transform: dict[str, Any]) -> Float[ndarray, "V 2"]:
    """As KHR_texture_transform says: offset + rotation scale uv."""
    angle, scale = float(transform.get("rotation", 0.0)), np.array(transform.get("scale", [1.0, 1.0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (uvs[:, :2] * scale) @ turn.T + np.array(transform.get("offset", [0.0, 0.0]))


def _bones(gltf: Gltf, skin: dict[str, Any], places: dict[int, ndarray]) -> Float[ndarray, "J 4 4"]:
    """Where each joint takes a vertex, in the pose of the file's nodes."""
    joints = np.stack([places[joint] for joint in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return joints
    inverse = gltf.numbers(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    return joints @ inverse[: len(joints)]


def _matrix(node: dict[str, Any]) -> Float[ndarray, "4 4"]:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", [0.0, 0.0, 0.0, 1.0]), dtype=np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", [1.0, 1.0, 1.0]))
    matrix[:3, 3] = node.get("translation", [0.0, 0.0, 0.0])
    return matrix


class ObjFiles(Mapping[str, bytes]):
    """What an .obj refers to, by name: its materials, with those that are missing made up, and their pictures."""

    def __init__(self, path: Path, text: bytes) -> None:
        """ConfigError, see `sibling`."""
        self.notes, self.found, missing = list[str](), dict[str, bytes](), list[str]()
        self.libraries = _values(text, b"mtllib")
        self.used = _values(text, b"usemtl")
        for name in self.libraries:
            beside = sibling(path, name)
            if not beside.is_file():
                missing.append(name)
                continue
            self.found[name] = read_bytes(beside)
            for line in _values(self.found[name], rb"(?:map_\w+|bump|disp|decal|refl|norm)"):
                picture = line.split()[-1] if line.startswith("-") else line
                if sibling(path, picture).is_file():
                    self.found[picture] = read_bytes(sibling(path, picture))
                else:
                    missing.append(picture)
        self.files = [name for name in self.found if sibling(path, name).is_file()]
        self.notes += [f"{path.name} refers to {name[:100]}, which is not there" for name in dict.fromkeys(missing)]
        if not any(name in self.found for name in self.libraries):
            plain = "".join(f"newmtl {name}\nKd 1 1 1\n" for name in self.used).encode()
            self.found |= dict.fromkeys(self.libraries or ["materials.mtl"], plain)

    def __getitem__(self, name: str) -> bytes:
        return self.found[name.strip()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def _values(text: bytes, key: bytes) -> list[str]:
    """What follows `key` on the lines that begin with it, each once."""
    lines = re.findall(rb"^[ \t]*" + key + rb"[ \t]+(\S[^\r\n]*)", text, re.MULTILINE)
    return list(dict.fromkeys(line.decode("utf-8", "surrogateescape").strip() for line in lines))


def _read_other(path: Path, kind: str, notes: list[str]) -> tuple[Gltf, list[str]]:
    """An .obj, .ply or .stl as trimesh reads it, nothing merged, as glTF."""
    import trimesh  # slow to import

    data, files = read_bytes(path), list[str]()
    options: dict[str, Any] = {"file_type": kind[1:], "process": False}
    if kind == ".obj":
        beside = ObjFiles(path, data)
        files, options["resolver"] = beside.files, beside
        notes += beside.notes
        data = data if beside.libraries else b"mtllib materials.mtl\n" + data
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)  # what it cannot read becomes an error here
    try:
        scene = trimesh.load_scene(io.BytesIO(data), **options)
    except Exception as error:  # of any type, where it meets what it does not expect
        raise ValueError(first_line(error)) from error
    scene.delete_geometry([name for name, body in scene.geometry.items() if not len(getattr(body, "faces", ()))])
    if not scene.geometry:
        raise ConfigError(f"{path} has no triangles", hint="points and lines have no surface to paint")
    gltf = Gltf.from_glb(scene.export(file_type="glb", include_normals=kind != ".stl"))
    _name_materials(gltf, scene)
    return gltf, files


def _name_materials(gltf: Gltf, scene: Any) -> None:
    """One material for each name of the .obj: trimesh makes one of those that look alike, without a name."""
    named: dict[str, int] = {}
    for mesh in gltf.tree["meshes"]:
        name = getattr(getattr(scene.geometry[mesh["name"]].visual, "material", None), "name", None) or ""
        for primitive in mesh["primitives"] if name else []:
            looks = gltf.tree["materials"][primitive["material"]]
            if name not in named:
                named[name] = gltf.add("materials", {**looks, "name": name})
            primitive["material"] = named[name]


def linear_from_srgb(colors: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """The sRGB transfer function, decoded (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((np.maximum(colors, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(colors: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """The sRGB transfer function, encoded (IEC 61966-2-1)."""
    return np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * np.maximum(colors, 0.0031308) ** (1 / 2.4) - 0.055)
