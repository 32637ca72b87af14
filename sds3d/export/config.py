"""The options of the export."""

from typing import Annotated, Literal

from pydantic import Field

from sds3d.options import Options


class ExportConfig(Options):
    """How fine the exported mesh and its colours are."""

    resolution: Annotated[int, Field(ge=16, le=512, description="grid cells along the longest side")] = 128
    level: Annotated[
        float | None,
        Field(gt=0, description="density of the surface; if not set, the one whose renders are most like the scene's"),
    ] = None
    faces: Annotated[int, Field(ge=100, le=2_000_000, description="number of triangles, at most about this")] = 20_000
    color: Annotated[
        Literal["texture", "vertex"], Field(description="colours as a texture, or one for each vertex")
    ] = "texture"
    texture_size: Annotated[int, Field(ge=32, le=8192, description="longest side of the texture, in texels")] = 1024
    color_size: Annotated[int, Field(ge=32, le=2048, description="pixels of the renders colours are taken from")] = 256
