"""A mesh's surface laid flat, for a texture."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from sds3d.export.surface import Surface

PADDING = 3  # texels between charts, so that mip maps do not mix them
FIRST_WISH = 0.83  # of the size: what xatlas makes of it is about a fifth larger


@dataclass(frozen=True)
class Unwrapped:
    """Charts in one atlas; uvs as in mesh.Texture."""

    uvs: Float[ndarray, "U 2"]
    faces: Int[ndarray, "F 3"]
    vertices: Int[ndarray, "U"]
    width: int  # texels, for which the padding was made
    height: int


def unwrap(surface: Surface, size: int) -> Unwrapped:
    """Charts by xatlas, packed so that no side is longer than `size` texels.

    xatlas takes the size as a wish and often makes the atlas larger: charts that are laid out are packed again,
    smaller, until they fit.
    """
    import xatlas

    vertices, faces = surface
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    charts = xatlas.ChartOptions()  # one iteration: more take as long again and save a tenth of the charts
    wish = int(FIRST_WISH * size)
    atlas.generate(charts, _packing(wish))
    owners, corners, uvs = atlas.get_mesh(0)
    while max(atlas.width, atlas.height) > size:
        wish = int(wish * size / max(atlas.width, atlas.height) * 0.995)
        texels = uvs * np.array([atlas.width, atlas.height], dtype=np.float32)
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(texels, corners)
        atlas.generate(charts, _packing(wish))
        again, corners, uvs = atlas.get_mesh(0)
        owners = owners[again]
    return Unwrapped(uvs, corners.astype(np.int64), owners.astype(np.int64), atlas.width, atlas.height)


def _packing(size: int):
    import xatlas

    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = size, PADDING, True
    return options
