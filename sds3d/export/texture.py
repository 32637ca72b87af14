"""The scene's colours as an image around the mesh: xatlas lays the surface flat, its texels get their colours."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

from sds3d.errors import ExportError
from sds3d.export.colors import Projector, field_colors
from sds3d.export.mesh import Mesh, Texture, vertex_normals
from sds3d.export.normal_map import normal_map
from sds3d.export.png import to_uint8
from sds3d.export.render_mesh import MeshView
from sds3d.export.surface import Surface
from sds3d.ops.rasterize_triangles import rasterize_triangles
from sds3d.scenes.base import Scene

PADDING = 3  # texels between charts, so that mip maps do not mix them
BORDER = 0.1  # sRGB difference to a neighbour from which a texel lies on a border of colours
BORDER_SAMPLES = 4  # along each of its sides
CHART_FACES = 600  # of a chart, about: laying flat one of twice as many takes more than twice as long
CHART_COST = 1.0  # of a chart's bends and outline, half of xatlas's own limit: as many texels, in less time
ROOMY = 512  # texels: smaller textures have no room for more charts than the surface needs
FIRST_GUESS = 0.83  # of the size: xatlas makes the atlas about a fifth larger than it was asked to


def with_texture(
    mesh: Mesh, scene: Scene, projected: Projector | None, size: int, before: Surface | None = None
) -> Mesh:
    """The mesh with a texture of at most `size` texels a side, by projection or by the scene's field of colours.

    Projected, texels that no view sees get the vertices' colours. A normal map shows what was lost of the surface
    `before` decimation.
    """
    blank = unwrap((mesh.vertices, mesh.faces), size)
    height, width = blank.image.shape[:2]
    hits = rasterize_uvs(blank)
    covered = hits.face >= 0
    corners, weights = mesh.faces[hits.face[covered]], hits.barycentric[covered][..., None]
    points = (mesh.vertices[corners] * weights).sum(axis=1)
    if projected is None:
        colors = field_colors(scene, points)
    else:
        normals = (vertex_normals(mesh.vertices, mesh.faces)[corners] * weights).sum(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        colors, weight = projected.colors(points, normals)
        hidden = weight == 0
        colors[hidden] = (mesh.colors[corners[hidden]] * weights[hidden]).sum(axis=1)
    image = np.zeros((height, width, 3), dtype=np.float32)
    image[covered] = colors
    if projected is None:
        on_border = _on_border(image, covered)
        which = on_border[covered]
        image[on_border] = _means(scene, points[which], _across(mesh, blank, hits.face[on_border]))
    # texels between the charts get the colour of the nearest one on them: no seams show in smaller mip maps
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    texture = replace(blank, image=to_uint8(image[tuple(nearest)]), used=float(covered.mean()))
    if before is None:
        return replace(mesh, texture=texture)
    normals, lost_deg = normal_map(replace(mesh, texture=texture), hits, before)
    return replace(mesh, texture=replace(texture, normals=normals), lost_deg=lost_deg)


def _on_border(image: Float[ndarray, "H W 3"], covered: Bool[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    """The covered texels that differ from a covered one beside them."""
    size, inside = (3, 3, 1), covered[..., None]
    high = maximum_filter(np.where(inside, image, -np.inf), size)
    low = minimum_filter(np.where(inside, image, np.inf), size)
    return np.asarray(covered & (high - low > BORDER).any(axis=-1))


def _across(mesh: Mesh, texture: Texture, faces: Int[ndarray, " Q"]) -> Float[ndarray, "Q 3 2"]:
    """How the place on the mesh changes over a texel, in these faces:  dp / d(column, row)."""
    flat = texture.uvs[texture.faces[faces]] * texture.image.shape[1::-1]
    place = mesh.vertices[mesh.faces[faces]]
    sides = [np.stack([each[:, 1] - each[:, 0], each[:, 2] - each[:, 0]], axis=-1) for each in (place, flat)]
    return np.asarray(sides[0] @ np.linalg.pinv(sides[1]))


def _means(scene: Scene, points: Float[ndarray, "Q 3"], across: Float[ndarray, "Q 3 2"]) -> Float[ndarray, "Q 3"]:
    """The field's mean over each texel: where a border of colours crosses it, it has the part of both that it shows."""
    steps = (np.arange(BORDER_SAMPLES) + 0.5) / BORDER_SAMPLES - 0.5
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    places = points[:, None] + np.einsum("qxt,st->qsx", across, offsets)
    return field_colors(scene, places.reshape(-1, 3)).reshape(len(points), len(offsets), 3).mean(axis=1)


def rasterize_uvs(texture: Texture) -> MeshView:
    """The mesh laid flat, as the texels see it."""
    height, width = texture.image.shape[:2]
    texels = torch.from_numpy(texture.uvs * np.array([width, height], dtype=np.float32))
    points = torch.nn.functional.pad(texels, (0, 1), value=1.0)  # all at one depth
    image = rasterize_triangles(points[None], torch.from_numpy(texture.faces).int(), height, width)
    return MeshView(*(t[0].numpy() for t in image))


def unwrap(surface: Surface, size: int) -> Texture:
    """A blank texture: charts by xatlas, packed into at most `size` texels a side.

    xatlas takes the size as a suggestion and often makes the atlas larger: finished charts are packed again, smaller,
    until they fit; ExportError if they never do.
    """
    import xatlas  # here: `import sds3d` stays quick

    vertices, faces = surface
    owners, scale, flat = np.arange(len(vertices)), 1.0, None
    charts = xatlas.ChartOptions()  # one iteration: each more takes as long again and saves a tenth of the charts
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    if size >= ROOMY:
        area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2
        charts.max_chart_area, charts.max_cost = area * CHART_FACES / len(faces), CHART_COST
    packing = xatlas.PackOptions()
    packing.padding, packing.bilinear, packing.resolution = PADDING, True, int(FIRST_GUESS * size)
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    while True:
        atlas.generate(charts, packing)
        again, corners, uvs = atlas.get_mesh(0)
        width, height = atlas.width, atlas.height
        if max(width, height) <= size:
            blank = np.zeros((height, width, 3), dtype=np.uint8)
            return Texture(blank, uvs, corners.astype(np.int64), owners[again])
        if flat is None:
            owners, flat = owners[again], (uvs * np.array([width, height], dtype=np.float32), corners)
        # of the first charts, in texels: a resolution would be taken for that of a larger surface, and xatlas rounds
        # the sides of charts up to whole texels, so that steps from one atlas to the next may lead nowhere
        scale *= 0.997 * size / max(width, height)
        packing.resolution, packing.texels_per_unit = 0, scale
        if scale * size < 1:
            raise ExportError(
                f"the surface falls into {atlas.chart_count} charts, too many for a texture of {size} texels a side",
                hint="try a larger --texture-size, fewer --faces, or --color vertex",
            )
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(*flat)
