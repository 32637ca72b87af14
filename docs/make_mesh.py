"""docs/mesh.png: default runs, each in colour and as clay, from two sides.

sds3d generate "a red mug" --out outputs/mesh/mug        # and others
python docs/make_mesh.py outputs/mesh/*
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from sds3d import Session
from sds3d.cameras import orbit, project, turn_cameras
from sds3d.export.contact_sheet import BACKGROUND, arrange
from sds3d.export.png import to_uint8, write_png
from sds3d.export.views import render_views
from sds3d.ops.creases import crease_normals
from sds3d.ops.rasterize_triangles import interpolate, rasterize_triangles
from sds3d.scenes.mesh import Mesh

PICTURE = Path(__file__).parent / "mesh.png"
SIZE, SAMPLES, TURN = 256, 3, 0.6  # pixels; samples along each of their sides; radians from the front


@torch.no_grad()
def clay(scene: Mesh, cameras) -> np.ndarray:
    """A grey surface with its creases, under a light from the upper left of each view: what a texture would hide."""
    vertices, faces = scene.surface()
    points = project(vertices, cameras) * torch.tensor([SAMPLES, SAMPLES, 1.0])
    image = rasterize_triangles(points, faces, SIZE * SAMPLES, SIZE * SAMPLES)
    eye, right = cameras.camera_to_world[:, :3, 3], cameras.camera_to_world[:, :3, 0]
    light = F.normalize(F.normalize(eye, dim=1) - 0.6 * right + torch.tensor([0.0, 0.0, 0.7]), dim=1)
    normals, of_corner = crease_normals(vertices, faces)
    normals = F.normalize(interpolate(normals, of_corner, image), dim=-1, eps=1e-6)
    shade = 0.25 + 0.7 * (normals * light[:, None, None]).sum(-1, keepdim=True).clamp_min(0)
    pixels = torch.where((image.face >= 0)[..., None], shade.expand(-1, -1, -1, 3), torch.tensor(BACKGROUND))
    return F.avg_pool2d(pixels.permute(0, 3, 1, 2), SAMPLES).permute(0, 2, 3, 1).numpy()


def main() -> None:
    rows, labels = [], []
    for folder in sys.argv[1:]:
        session = Session.resume(folder)
        scene = session.scene()
        assert isinstance(scene, Mesh), f"{folder}: not a mesh"
        cameras = turn_cameras(orbit(2, elevation_deg=18, size=SIZE), TURN)
        color = render_views(scene, cameras, BACKGROUND).rgb
        rows += [picture for pair in zip(color, clay(scene, cameras), strict=True) for picture in pair]
        labels += [session.config.prompt, "", "from behind", ""]
    write_png(arrange(np.stack([to_uint8(row) for row in rows]), labels, columns=4), PICTURE)


if __name__ == "__main__":
    main()
