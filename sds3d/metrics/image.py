"""Numbers about results: how a mesh is built, how two renders compare."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor


@dataclass(frozen=True)
class MeshStats:
    """A mesh in numbers; lengths in world units, colours in sRGB [0, 1]."""

    vertices: int
    faces: int
    pieces: int
    watertight: bool
    extent: tuple[float, float, float]  # sides of the box around it along world x, y, z
    radius: float  # of the ball around the origin that holds it
    volume: float
    mean_color: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for report.json."""
        return asdict(self)


def mesh_statistics(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], colors: Float[ndarray, "V 3"]
) -> MeshStats:
    """Statistics of an indexed mesh. Volume means something only where it is watertight."""
    used = vertices if len(vertices) else np.zeros((1, 3))
    extent = (used.max(axis=0) - used.min(axis=0)).tolist()
    mean_color = colors.mean(axis=0).tolist() if len(colors) else [0.0, 0.0, 0.0]
    return MeshStats(
        vertices=len(vertices),
        faces=len(faces),
        pieces=int(face_pieces(faces, len(vertices)).max(initial=-1)) + 1,
        watertight=is_watertight(faces),
        extent=(extent[0], extent[1], extent[2]),
        radius=float(np.linalg.norm(used, axis=1).max()),
        volume=enclosed_volume(vertices, faces),
        mean_color=(mean_color[0], mean_color[1], mean_color[2]),
    )


def is_watertight(faces: Int[ndarray, "F 3"]) -> bool:
    """Whether every edge is walked once in each direction: closed, manifold at edges, consistently wound."""
    if len(faces) == 0:
        return False
    size = int(faces.max()) + 1
    start, end = faces.astype(np.int64).ravel(), np.roll(faces, -1, axis=1).astype(np.int64).ravel()
    there, back = np.sort(start * size + end), np.sort(end * size + start)
    return bool((np.diff(there) > 0).all() and np.array_equal(there, back) and (start != end).all())


def face_pieces(faces: Int[ndarray, "F 3"], vertex_count: int) -> Int[ndarray, "F"]:
    """A number per face, equal for faces that share vertices, directly or through others."""
    if len(faces) == 0:
        return np.zeros(0, dtype=np.int64)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    graph = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(vertex_count, vertex_count))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels[faces[:, 0]], return_inverse=True)[1].astype(np.int64)


def enclosed_volume(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> float:
    """Signed volume by the divergence theorem: sum of v0 . (v1 x v2) / 6, positive when faces wind outwards."""
    corners = vertices.astype(np.float64)[faces]
    return float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0)


def silhouette_iou(
    first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], threshold: float = 0.5
) -> Float[Tensor, ""]:
    """Intersection over union of two opacity maps cut at `threshold`; 1 when both are empty."""
    return mask_iou(first > threshold, second > threshold)


def mask_iou(first: Bool[Tensor, "*shape"], second: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Intersection over union of two masks; 1 when both are empty."""
    union = (first | second).sum()
    return torch.where(union > 0, (first & second).sum() / union.clamp_min(1), 1.0)


def soft_fraction(opacity: Float[Tensor, "..."], low: float = 0.1, high: float = 0.9) -> Float[Tensor, ""]:
    """Share of the covered pixels (opacity above `low`) that are neither empty nor solid: fog. 0 when all is empty."""
    covered = (opacity > low).sum()
    return ((opacity > low) & (opacity < high)).sum() / covered.clamp_min(1)


def saturation(rgb: Float[Tensor, "B H W 3"], opacity: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    """Mean saturation (HSV, [0, 1]) of colours over black, weighted by opacity; 0 where all is empty."""
    from kornia.color import rgb_to_hsv

    colorfulness = rgb_to_hsv(rgb.permute(0, 3, 1, 2))[:, 1, :, :, None]  # black behind does not change it
    return (colorfulness * opacity).sum() / opacity.sum().clamp_min(1e-6)


def diversity(images: Float[Tensor, "N B H W 3"]) -> Float[Tensor, ""]:
    """How different N results look: root mean square difference of their renders from the same cameras, over pairs."""
    first, second = torch.triu_indices(len(images), len(images), offset=1)
    if len(first) == 0:
        return images.new_zeros(())
    return (images[first] - images[second]).square().mean().sqrt()


def psnr(image: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio of images in [0, 1], in decibels: -10 log10(mean squared error)."""
    return -10.0 * torch.log10((image - target).square().mean())
