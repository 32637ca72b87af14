"""The options of the export."""

from typing import Annotated, Literal

from pydantic import Field

from sds3d.options import Fraction, Options


class ExportConfig(Options):
    """How fine the exported mesh is, and what it is made of."""

    resolution: Annotated[int, Field(ge=16, le=512, description="grid cells along the longest side")] = 128
    surface: Annotated[
        Literal["best", "density", "carved", "depth"],
        Field(
            description="where the surface is: at a density, at one within the silhouettes, or where the renders' "
            "depth says; best is the one that looks most like the scene"
        ),
    ] = "best"
    level: Annotated[
        float | None,
        Field(gt=0, description="density of the surface; the one that fits the renders best where not given"),
    ] = None
    blur: Annotated[
        float, Field(ge=0, le=0.1, description="softening of the density before meshing, in object sizes")
    ] = 0.01
    faces: Annotated[int, Field(ge=100, le=2_000_000, description="triangles, at most about this many")] = 20_000
    smoothing: Annotated[int, Field(ge=0, le=100, description="passes of the surface filter")] = 20
    color: Annotated[
        Literal["texture", "vertex"], Field(description="colours as an image around the mesh, or one a vertex")
    ] = "texture"
    texture_size: Annotated[int, Field(ge=32, le=8192, description="longest side of that image, in texels")] = 1024
    color_size: Annotated[int, Field(ge=32, le=2048, description="pixels of the renders colours are taken from")] = 256
    roughness: Annotated[Fraction, Field(description="of the material; 1 is chalk")] = 0.8
    metallic: Annotated[Fraction, Field(description="of the material; 1 is bare metal")] = 0.0
