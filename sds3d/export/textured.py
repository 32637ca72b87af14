"""A person's mesh again, with the scene's colours in its base-colour images and nothing else changed."""

import io
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from sds3d.atomic import write_atomic
from sds3d.errors import ExportError
from sds3d.export.colors import field_colors
from sds3d.export.contact_sheet import render_sheet
from sds3d.export.glb import gltf_factors
from sds3d.export.mesh import Texture
from sds3d.export.obj_ply_stl import obj_looks
from sds3d.export.png import to_uint8, write_png
from sds3d.export.render_mesh import sample_texture
from sds3d.export.texture import unwrap
from sds3d.mesh_files import MeshSource, Part, UserMesh, read_user_mesh
from sds3d.mesh_files.gltf import INDEX_DATA, VERTEX_DATA, Gltf
from sds3d.mesh_files.reading import ObjFiles, base_texture
from sds3d.ops.rasterize_triangles import rasterize_triangles
from sds3d.scenes.base import Scene
from sds3d.scenes.file_mesh import take_colors
from sds3d.scenes.mesh import FixedMesh, MeshConfig
from sds3d.scenes.shading import Sun
from sds3d.types import Material

LOOK_SIZE = 512  # texels a side, where only the share of texels is asked for
SHARED, REPEATED = 0.05, 1.5  # of the UVs' area, and in sides of the image: from where on it is said
COPIES = 3  # of a triangle that reaches over the image's border, along each side
PROBES = 4000  # points of the surface at which the images are compared with the scene
GOOD_DB = 22.0
PICTURE_LIGHT = Sun(direction=(1.0, 0.6, 1.2), ambient=0.55, diffuse=0.45)


@dataclass(frozen=True)
class Sheet:
    """All that shares one image: triangles of the file, in UVs and in the world."""

    uvs: Float[ndarray, "C 2"]
    points: Float[ndarray, "C 3"]
    faces: Int[ndarray, "F 3"]
    parts: list[Part]

    @property
    def turns(self) -> float:
        """How many images the largest triangle goes over along one side."""
        corners = self.uvs[self.faces]
        return float(np.ptp(corners, axis=1).max(initial=0.0))

    def triangles(self) -> tuple[Float[ndarray, "T 3 2"], Int[ndarray, " T"]]:
        """Corners in the unit square and their faces; what reaches over its border comes in again on the other side."""
        corners = self.uvs[self.faces]
        corners = corners - np.floor(corners.min(axis=1, keepdims=True))
        face, found, faces = np.arange(len(corners)), [corners], [np.arange(len(corners))]
        reach = np.ceil(corners.max(axis=1)).clip(1, COPIES)
        for row in range(COPIES):
            for column in range(COPIES):
                inside = (reach[:, 0] > column) & (reach[:, 1] > row) & (row + column > 0)
                found.append(corners[inside] - [column, row])
                faces.append(face[inside])
        return np.concatenate(found), np.concatenate(faces)

    def raster(self, height: int, width: int) -> tuple[Int[ndarray, "h w"], Float[ndarray, "h w 3"]]:
        """The face at each texel's centre, -1 for none, and the place in it."""
        corners, face = self.triangles()
        flat = torch.from_numpy(corners.reshape(-1, 2) * [width, height]).float()
        points = torch.cat([flat, torch.ones(len(flat), 1)], dim=1)[None]
        seen = rasterize_triangles(points, torch.arange(len(flat)).view(-1, 3).int(), height, width)
        hit = seen.face[0].numpy()
        return np.where(hit >= 0, face[hit], -1), seen.barycentric[0].numpy()


def sheets_of(mesh: UserMesh) -> dict[int | None, Sheet]:
    """One for each material, of its parts that have UVs."""
    by_material: dict[int | None, list[Part]] = {}
    for part in mesh.parts:
        if part.uvs is not None and len(part.faces):
            by_material.setdefault(part.material, []).append(part)
    return {material: _sheet(mesh, parts) for material, parts in by_material.items()}


def _sheet(mesh: UserMesh, parts: list[Part]) -> Sheet:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    points = mesh.to_world(np.concatenate([part.vertices for part in parts]))
    return Sheet(np.concatenate([part.uvs for part in parts if part.uvs is not None]), points, faces, parts)


def warnings_of(mesh: UserMesh) -> list[str]:
    """What a person should know before the file is textured."""
    warnings, bare = list(mesh.notes), [part.name for part in mesh.parts if part.uvs is None and len(part.faces)]
    if bare:
        warnings.append(
            f"{_names(bare)} of {mesh.path.name} without UVs: xatlas makes them, which splits vertices at seams"
        )
    for material, sheet in sheets_of(mesh).items():
        what = _names([part.name for part in sheet.parts])
        corners = sheet.uvs[sheet.faces]
        (ab_u, ab_v), (ac_u, ac_v) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
        area = float(np.abs(ab_u * ac_v - ab_v * ac_u).sum() / 2)
        if area == 0:
            warnings.append(f"the UVs of {what} have no area: it gets one colour")
            continue
        covered = float((sheet.raster(LOOK_SIZE, LOOK_SIZE)[0] >= 0).mean())
        shared = 1 - covered / area
        if sheet.turns > REPEATED:
            warnings.append(f"the texture of {what} repeats over its surface: all repeats look alike")
        elif shared > SHARED:
            warnings.append(
                f"UVs of {what} overlap: {100 * shared:.0f}% of them lie on others, where both get the same colours"
            )
        if material is not None and mesh.gltf.tree["materials"][material].get("alphaMode", "OPAQUE") != "OPAQUE":
            warnings.append(f"{what} is transparent in places: its transparency stays, but the run sees it opaque")
    if any(part.colors is not None for part in mesh.parts):
        warnings.append("colours of vertices would tint the texture: they are kept as _COLOR_0, which viewers ignore")
    return warnings


def _names(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def draw_as_read(source: MeshSource, path: Path) -> UserMesh:
    """A contact sheet of the file as a run would see it, with its own colours; what was read."""
    mesh = read_user_mesh(source)
    config = MeshConfig(source=source, geometry="fixed", light=PICTURE_LIGHT)
    scene = FixedMesh(config, torch.Generator().manual_seed(0))
    take_colors(scene.color_field, mesh)
    write_png(render_sheet(scene), path)
    return mesh


def write_textured(scene: Scene, source: MeshSource, size: int, path: Path, plain: Material) -> dict[str, Any]:
    """The file of `source` with the scene's colours, as a .glb; an .obj with UVs also as itself, in textured/ beside.

    Every material's base colour becomes an image of `size` texels a side. Parts without UVs get them from xatlas, those
    without a material get `plain`; all other data is the file's own, bit for bit. ExportError if what was written
    differs in more than it should.
    """
    mesh = read_user_mesh(source)
    warnings, gltf = warnings_of(mesh), Gltf(deepcopy(mesh.gltf.tree), bytes(mesh.gltf.binary))
    unwrapped = replace(mesh, gltf=gltf, parts=_with_uvs(mesh, gltf, size))
    errors, images, replaced = [], dict[int | None, Image.Image](), set[int]()
    for material, sheet in sheets_of(unwrapped).items():
        pixels = _bake(sheet, scene, size)
        errors.append(_probe(sheet, scene, pixels))
        images[material] = _with_alpha(pixels, mesh, material)
        replaced |= _put_image(gltf, material, sheet.parts, images[material], plain)
    _check(mesh, gltf, [part.uvs is None for part in mesh.parts], replaced)
    write_atomic(path, gltf.to_glb())
    facts: dict[str, Any] = {"parts": len(mesh.parts), "triangles": sum(len(part.faces) for part in mesh.parts)}
    if mesh.path.suffix.lower() == ".obj" and all(part.uvs is not None for part in mesh.parts):
        names = {material: _name_of(mesh, material) for material in images}
        folder = path.parent / "textured"
        _write_obj(mesh, {names[material]: image for material, image in images.items()}, folder, plain)
        facts["obj"] = f"textured/{mesh.path.name}"
    psnr = _psnr(float(np.concatenate(errors).mean()))
    if psnr < GOOD_DB:
        warnings.append(f"the images show the run's colours with {psnr:.1f} dB only (good is {GOOD_DB:g}): UVs overlap")
    return {**facts, "images": len(images), "texture": size, "psnr": round(psnr, 2), "warnings": warnings}


def _bake(sheet: Sheet, scene: Scene, size: int) -> UInt8[ndarray, "h w 3"]:
    """The scene's colours at the sheet's texels; between its triangles those of the nearest."""
    image, covered = np.zeros((size, size, 3), dtype=np.float32), np.zeros((size, size), dtype=bool)
    column, row = np.minimum(((sheet.uvs % 1.0) * size).astype(int), size - 1).T
    used = np.unique(sheet.faces)  # the corners first: triangles may be smaller than a texel
    image[row[used], column[used]] = field_colors(scene, sheet.points[used])
    covered[row[used], column[used]] = True
    face, weights = sheet.raster(size, size)
    hit = face >= 0
    places = (sheet.points[sheet.faces[face[hit]]] * weights[hit][..., None]).sum(axis=1)
    image[hit] = field_colors(scene, places)
    nearest = distance_transform_edt(~(covered | hit), return_distances=False, return_indices=True)
    return to_uint8(image[tuple(nearest)])


def _probe(sheet: Sheet, scene: Scene, pixels: UInt8[ndarray, "h w 3"]) -> Float[ndarray, " P"]:
    """Squared errors of the image against the scene at points of the surface."""
    generator, corners = np.random.default_rng(0), sheet.points[sheet.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = generator.choice(len(area), PROBES, p=area / area.sum()) if area.any() else np.zeros(0, dtype=np.int64)
    weights = generator.exponential(size=(len(face), 3, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    uvs, places = ((values[sheet.faces[face]] * weights).sum(axis=1) for values in (sheet.uvs, sheet.points))
    shown = sample_texture(Texture(pixels, uvs, sheet.faces, np.arange(len(uvs))), uvs % 1.0)
    errors: ndarray = np.square(shown - field_colors(scene, places)).mean(axis=1)
    return errors


def _psnr(error: float) -> float:
    return float(-10 * np.log10(max(error, 1e-10)))


def _with_alpha(pixels: UInt8[ndarray, "h w 3"], mesh: UserMesh, material: int | None) -> Image.Image:
    """The image, with the transparency of the one before where the material makes use of it."""
    image = Image.fromarray(pixels)
    opaque = material is None or mesh.gltf.tree["materials"][material].get("alphaMode", "OPAQUE") == "OPAQUE"
    before = None if opaque else mesh.base_image(material)
    if before is not None and before.mode in ("RGBA", "LA", "PA"):
        image.putalpha(before.convert("RGBA").getchannel("A").resize(image.size))
    return image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _name_of(mesh: UserMesh, material: int | None) -> str:
    return "" if material is None else str(mesh.gltf.tree["materials"][material].get("name", ""))


def _put_image(gltf: Gltf, material: int | None, parts: list[Part], image: Image.Image, plain: Material) -> set[int]:
    """The image as the material's base colour; a material of its own for parts that have none.

    It takes the numbers of what it replaces, where nothing else refers to that: its view, if so.
    """
    tree = gltf.tree
    primitives = [tree["meshes"][part.mesh]["primitives"][part.primitive] for part in parts]
    if material is None:
        material = gltf.add("materials", {"name": "textured", "pbrMetallicRoughness": gltf_factors(plain)})
        for primitive in primitives:
            primitive["material"] = material
    for primitive in primitives:
        if "COLOR_0" in primitive["attributes"]:
            primitive["attributes"]["_COLOR_0"] = primitive["attributes"].pop("COLOR_0")
    entry, before = tree["materials"][material], base_texture(tree, material)
    picture = {"name": f"{entry.get('name', 'material')} base color", "mimeType": "image/png"}
    texture = {"source": gltf.add("images", {**picture, "bufferView": gltf.append(_png(image))})}
    if before is not None and "sampler" in tree["textures"][before["index"]]:
        texture["sampler"] = tree["textures"][before["index"]]["sampler"]
    reference = {**(before or {}), "index": gltf.add("textures", texture)}
    surface = entry.setdefault("pbrMetallicRoughness", {})
    old = entry.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    for looks, kind in ((surface, "baseColor"), *([(old, "diffuse")] if old is not None else [])):
        looks[f"{kind}Texture"] = reference
        if f"{kind}Factor" in looks:
            looks[f"{kind}Factor"] = [1.0, 1.0, 1.0, looks[f"{kind}Factor"][3]]
    return set() if before is None else _replace_texture(gltf, before["index"], reference)


def _replace_texture(gltf: Gltf, old: int, reference: dict[str, Any]) -> set[int]:
    """The newest texture, its image and its view take the places of those of `old`, as far as nobody uses them."""
    tree = gltf.tree
    textures, images, views = tree["textures"], tree["images"], tree["bufferViews"]
    if old in _found(tree["materials"], "index", "Texture") or "extensions" in textures[old]:
        return set()
    before = textures[old].get("source")
    reference["index"], textures[old] = old, textures.pop()
    if before is None or before in _found(textures, "source"):
        return set()
    textures[old]["source"], view, images[before] = before, images[before]["bufferView"], images.pop()
    if view in _found(tree, "bufferView"):
        return set()
    images[before]["bufferView"], gone, views[view] = view, views[view], views.pop()
    gltf.cut(gone)
    return {view}


def _found(tree: Any, key: str, within: str = "") -> set[int]:
    """All numbers that are called `key`, in entries whose own names end with `within`."""
    found, left = set[int](), [("", tree)]
    while left:
        name, entry = left.pop()
        if isinstance(entry, list):
            left += [(name, each) for each in entry]
        elif isinstance(entry, dict):
            left += entry.items()
            if name.endswith(within) and isinstance(entry.get(key), int):
                found.add(entry[key])
    return found


def _with_uvs(mesh: UserMesh, gltf: Gltf, size: int) -> list[Part]:
    """All parts, those without UVs with new ones, in `gltf` too: one layout for each material."""
    parts = [part for part in mesh.parts if part.uvs is not None or not len(part.faces)]
    layouts: dict[int | None, dict[tuple[int, int], list[Part]]] = {}
    for part in mesh.parts:
        if part.uvs is None and len(part.faces):
            layouts.setdefault(part.material, {}).setdefault((part.mesh, part.primitive), []).append(part)
    for material, primitives in layouts.items():
        own = material
        if material is not None:  # a layout has an image of its own
            own = material
            looks = gltf.tree["materials"][material]
            if any(part.material == material for part in parts):
                own = gltf.add("materials", {**deepcopy(looks), "name": f"{looks.get('name', 'material')} unwrapped"})
        firsts = [places[0] for places in primitives.values()]
        starts = np.cumsum([0, *(len(part.vertices) for part in firsts)])
        points = mesh.to_world(np.concatenate([part.vertices for part in firsts]))
        faces = np.concatenate([part.faces + start for part, start in zip(firsts, starts, strict=False)])
        layout = unwrap((points, faces), size)
        begin = 0
        for start, places in zip(starts, primitives.values(), strict=False):
            corners = layout.faces[begin : begin + len(places[0].faces)]
            begin += len(corners)
            used, local = np.unique(corners, return_inverse=True)
            local, owner, uvs = local.reshape(-1, 3), layout.vertices[used] - start, layout.uvs[used]
            _split_vertices(gltf, places[0], owner, local, uvs, own)
            for part in places:
                normals = None if part.normals is None else part.normals[owner]
                colors = None if part.colors is None else part.colors[owner]
                split = replace(part, vertices=part.vertices[owner], normals=normals, colors=colors, faces=local)
                parts.append(replace(split, uvs=uvs.astype(np.float64), material=own))
    return parts


def _split_vertices(
    gltf: Gltf, part: Part, owner: Int[ndarray, " W"], faces: Int[ndarray, "F 3"], uvs: ndarray, material: int | None
) -> None:
    """The primitive over more vertices, each with what its owner had, and with UVs."""
    tree = gltf.tree
    primitive = tree["meshes"][part.mesh]["primitives"][part.primitive]
    texture = base_texture(tree, part.material) or {}
    texture.get("extensions", {}).pop("KHR_texture_transform", None)  # of UVs that there are not
    for attributes in (primitive["attributes"], *primitive.get("targets", [])):
        for name, number in attributes.items():
            values, like = gltf.array(number)[owner], tree["accessors"][number]
            attributes[name] = gltf.append_array(values, like, VERTEX_DATA)
    like = {"componentType": 5126, "type": "VEC2"}
    layer = f"TEXCOORD_{texture.get('texCoord', 0)}"
    primitive["attributes"][layer] = gltf.append_array(uvs.astype("<f4"), like, VERTEX_DATA)
    flat, like = faces.astype("<u4").reshape(-1, 1), {"componentType": 5125, "type": "SCALAR"}
    primitive |= {"indices": gltf.append_array(flat, like, INDEX_DATA), "mode": 4}
    if material is not None:
        primitive["material"] = material


def _check(mesh: UserMesh, gltf: Gltf, bare: list[bool], replaced: set[int]) -> None:
    """ExportError unless all other views have the data that they had, and all parts with UVs still refer to theirs."""
    before, after = mesh.gltf, Gltf.from_glb(gltf.to_glb())
    views = [view for view in range(len(before.tree.get("bufferViews", []))) if view not in replaced]
    same = all(before.bytes_of(view) == after.bytes_of(view) for view in views)
    accessors = before.tree.get("accessors", [])
    same &= after.tree.get("accessors", [])[: len(accessors)] == accessors
    same &= after.tree.get("nodes") == before.tree.get("nodes")
    for part, is_bare in zip(mesh.parts, bare, strict=True):
        old, new = (tree["meshes"][part.mesh]["primitives"][part.primitive] for tree in (before.tree, after.tree))
        kept = {name.removeprefix("_COLOR").removeprefix("COLOR"): n for name, n in new["attributes"].items()}
        wanted = {name.removeprefix("COLOR"): n for name, n in old["attributes"].items()}
        same &= is_bare or (kept == wanted and new.get("indices") == old.get("indices"))
    if not same:
        raise ExportError(f"{mesh.path.name} would not be what it was", hint="this is a bug: please report it")


def _write_obj(mesh: UserMesh, images: Mapping[str, Image.Image], folder: Path, plain: Material) -> None:
    """The same text, with materials whose map_Kd are the images, and all files that they refer to."""
    text = mesh.path.read_bytes()
    beside = ObjFiles(mesh.path, text)
    library = beside.libraries[0] if beside.libraries else f"{mesh.path.stem}.mtl"
    images = {name if name in beside.used else "": image for name, image in images.items()}
    pictures = {name: f"{mesh.path.stem}_color_{number}.png" for number, name in enumerate(images, start=1)}
    looks = {name: data for name, data in beside.found.items() if name in beside.libraries} or {library: b""}
    kept = {name: beside.found[name] for name in beside.files if name not in looks}
    if "" in images:  # faces before the first material, which trimesh gives one
        pictures["textured"] = pictures.pop("")
        images = {"textured" if name == "" else name: image for name, image in images.items()}
        text = b"usemtl textured\n" + text
    if not beside.libraries:
        text = f"mtllib {library}\n".encode() + text
    defined = b"\n".join(looks.values())
    missing = [name for name in images if not _defines(defined, name)]
    looks[library] = (
        looks.get(library, b"") + "".join(f"\nnewmtl {name}\n{obj_looks(plain)}" for name in missing).encode()
    )
    files = kept | {name: _with_maps(data, pictures) for name, data in looks.items()}
    files |= {pictures[name]: _png(image) for name, image in images.items()}
    for name, data in (files | {mesh.path.name: text}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, data)


def _defines(text: bytes, material: str) -> bool:
    return any(line.split(None, 1)[1:] == [material.encode()] for line in _stripped(text) if line.startswith(b"newmtl"))


def _stripped(text: bytes) -> Iterator[bytes]:
    return (line.strip() for line in text.splitlines())


def _with_maps(text: bytes, pictures: Mapping[str, str]) -> bytes:
    """An .mtl in which the materials of `pictures` are white with that picture, and all else is as it was."""
    lines, picture = list[bytes](), None
    for line in text.splitlines():
        word, _, name = line.strip().partition(b" ")
        if word == b"newmtl":
            picture = pictures.get(name.strip().decode("utf-8", "surrogateescape"))
            lines += [line, *([] if picture is None else [b"Kd 1 1 1", b"map_Kd " + picture.encode()])]
        elif picture is None or word.lower() not in (b"kd", b"map_kd"):
            lines.append(line)
    return b"\n".join(lines) + b"\n"
