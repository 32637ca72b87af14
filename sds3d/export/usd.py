"""USDZ, through usd-core (the extra `usd`)."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sds3d.atomic import temporary_folder, write_atomic, writing
from sds3d.errors import ConfigError, ExportError
from sds3d.export.glb import WORLD_TO_GLTF
from sds3d.export.mesh import Mesh, corner_normals, images_of
from sds3d.export.read_mesh import welded
from sds3d.mesh_files.reading import linear_from_srgb, srgb_from_linear

LAYER = "mesh.usdc"
NO_USD = "pip install 'sds3d[usd]' (29 MB), or export glb, which most programs read"
NO_PACKAGE = "is there room on the disk?"


def _usd() -> Any:
    """usd-core, with its modules as attributes."""
    try:
        import pxr
        from pxr import Sdf, Tf, Usd, UsdGeom, UsdShade, UsdUtils, Vt  # noqa: F401
    except ImportError as error:
        raise ConfigError("usdz needs the package usd-core, which is not installed", hint=NO_USD) from error
    return pxr


def write_usdz(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """One mesh with a UsdPreviewSurface, +Y up with the front along +Z, in metres; the metadata is in customLayerData.

    ConfigError where usd-core is not installed.
    """
    usd = _usd()
    with writing(path), temporary_folder(path) as folder:
        layer, package = folder / LAYER, folder / "mesh.usdz"
        for name, image in images_of(mesh).items():
            (folder / f"{name}.png").write_bytes(image)
        try:
            stage = usd.Usd.Stage.CreateNew(str(layer))
            usd.UsdGeom.SetStageUpAxis(stage, usd.UsdGeom.Tokens.y)
            usd.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
            stage.GetRootLayer().customLayerData = {"sds3d": json.dumps(dict(metadata))}
            root = usd.UsdGeom.Xform.Define(stage, "/object")
            stage.SetDefaultPrim(root.GetPrim())
            _define_material(usd, stage, mesh, _define_shape(usd, stage, mesh))
            stage.GetRootLayer().Save()
            usd.UsdUtils.CreateNewUsdzPackage(usd.Sdf.AssetPath(str(layer)), str(package))
        except usd.Tf.ErrorException as error:
            raise ExportError(f"usd-core made no package for {path}: {_reason(error)}", hint=NO_PACKAGE) from error
        if not package.is_file():
            raise ExportError(f"usd-core made no package for {path}", hint=NO_PACKAGE)
        write_atomic(path, package.read_bytes())


def _reason(error: Exception) -> str:
    """The last quoted text of usd-core's error, which has several lines."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].rpartition(" : ")[2].strip("' ") if lines else "it did not say why"


def _define_shape(usd: Any, stage: Any, mesh: Mesh) -> Any:
    tokens, vectors, integers = usd.UsdGeom.Tokens, usd.Vt.Vec3fArray.FromNumpy, usd.Vt.IntArray.FromNumpy
    shape = usd.UsdGeom.Mesh.Define(stage, "/object/mesh")
    corners = (mesh.vertices @ WORLD_TO_GLTF.T).astype(np.float32)
    shape.CreatePointsAttr(vectors(corners))
    shape.CreateFaceVertexCountsAttr(integers(np.full(len(mesh.faces), 3, dtype=np.int32)))
    shape.CreateFaceVertexIndicesAttr(integers(mesh.faces.astype(np.int32).ravel()))
    shape.CreateSubdivisionSchemeAttr(tokens.none)
    shape.CreateExtentAttr(vectors(np.stack([corners.min(axis=0), corners.max(axis=0)])))
    normals, normal_of = corner_normals(mesh)
    whole = mesh.crease_deg is None  # a vertex has one normal
    placed = (normals if whole else normals[normal_of.ravel()]) @ WORLD_TO_GLTF.T
    shape.CreateNormalsAttr(vectors(placed.astype(np.float32)))
    shape.SetNormalsInterpolation(tokens.vertex if whole else tokens.faceVarying)
    if mesh.texture is None:
        colors = linear_from_srgb(mesh.colors).astype(np.float32)
        shape.CreateDisplayColorPrimvar(tokens.vertex).Set(vectors(colors))
    else:
        types = usd.Sdf.ValueTypeNames
        st = usd.UsdGeom.PrimvarsAPI(shape).CreatePrimvar("st", types.TexCoord2fArray, tokens.faceVarying)
        uvs = (mesh.texture.uvs * [1, -1] + [0, 1]).astype(np.float32)  # v is upwards
        st.Set(usd.Vt.Vec2fArray.FromNumpy(uvs))
        st.SetIndices(integers(mesh.texture.faces.astype(np.int32).ravel()))
    return shape


def _define_material(usd: Any, stage: Any, mesh: Mesh, shape: Any) -> None:
    types, shade = usd.Sdf.ValueTypeNames, usd.UsdShade
    material = shade.Material.Define(stage, "/object/surface")

    def shader(name: str, kind: str, **inputs: tuple[Any, Any]) -> Any:
        made = shade.Shader.Define(stage, f"/object/surface/{name}")
        made.CreateIdAttr(kind)
        for key, (value_type, value) in inputs.items():
            made.CreateInput(key, value_type).Set(value)
        return made

    factors = {name: (types.Float, value) for name, value in mesh.material._asdict().items()}
    surface = shader("preview", "UsdPreviewSurface", **factors)
    color = surface.CreateInput("diffuseColor", types.Color3f)
    if mesh.texture is None:
        source = shader("vertices", "UsdPrimvarReader_float3", varname=(types.String, "displayColor"))
        color.ConnectToSource(source.CreateOutput("result", types.Float3))
    else:
        place = shader("place", "UsdPrimvarReader_float2", varname=(types.String, "st"))

        def picture(name: str, space: str, **more: tuple[Any, Any]) -> Any:
            clamp, file, kind = (types.Token, "clamp"), (types.Asset, f"{name}.png"), (types.Token, space)
            made = shader(name, "UsdUVTexture", file=file, wrapS=clamp, wrapT=clamp, sourceColorSpace=kind, **more)
            made.CreateInput("st", types.Float2).ConnectToSource(place.CreateOutput("result", types.Float2))
            return made.CreateOutput("rgb", types.Float3)

        color.ConnectToSource(picture("color", "sRGB"))
        if mesh.texture.normals is not None:  # [0, 1] to [-1, 1]
            unpacked = {"scale": (types.Float4, (2, 2, 2, 1)), "bias": (types.Float4, (-1, -1, -1, 0))}
            surface.CreateInput("normal", types.Normal3f).ConnectToSource(picture("normal", "raw", **unpacked))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    shade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)


def read_usdz(path: Path) -> Mesh:
    """As written here, in world axes, with its texture."""
    usd = _usd()
    try:
        stage = usd.Usd.Stage.Open(str(path))
        shape = usd.UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
        corners = np.asarray(shape.GetPointsAttr().Get(), dtype=np.float32)
        faces = np.asarray(shape.GetFaceVertexIndicesAttr().Get(), dtype=np.int64).reshape(-1, 3)
        world = (corners @ WORLD_TO_GLTF).astype(np.float32)
        st = usd.UsdGeom.PrimvarsAPI(shape).GetPrimvar("st")
        if not st.IsDefined():
            colors = srgb_from_linear(np.asarray(shape.GetDisplayColorAttr().Get(), dtype=np.float64))
            return welded(world, faces, colors.astype(np.float32))
        corner = np.asarray(st.GetIndices(), dtype=np.int64)
        uvs = (np.asarray(st.Get(), dtype=np.float64) * [1, -1] + [0, 1]).astype(np.float32)
        owner = np.zeros(len(uvs), dtype=np.int64)
        owner[corner] = faces.ravel()
        with zipfile.ZipFile(path) as archive:
            (name,) = [entry for entry in archive.namelist() if entry.endswith("color.png")]
            image = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
    except (usd.Tf.ErrorException, ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} cannot be read back as a mesh: {error}", hint="export again") from error
    return welded(world[owner], corner.reshape(-1, 3), np.zeros((len(uvs), 3), dtype=np.float32), uvs, image)


def read_usd_metadata(path: Path) -> dict[str, Any] | None:
    """The metadata that write_usdz stored; None for other files."""
    usd = _usd()
    try:
        layer = usd.Sdf.Layer.OpenAsAnonymous(str(path))
    except usd.Tf.ErrorException as error:
        raise ValueError(_reason(error)) from error
    text = layer.customLayerData.get("sds3d") if layer else None
    return json.loads(text) if isinstance(text, str) else None
