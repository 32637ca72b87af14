"""docs/texture.png: two meshes with UVs as somebody might have them, and what `sds3d texture` makes of them.

python docs/make_texture.py meshes FOLDER                # writes mug.glb and house.glb
sds3d texture FOLDER/mug.glb "a red mug" --out outputs/texture/mug           # and the house
python docs/make_texture.py picture outputs/texture/*    # draws docs/texture.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from sds3d import RunFolder
from sds3d.cameras import orbit, turn_cameras
from sds3d.export.contact_sheet import BACKGROUND, arrange
from sds3d.export.png import to_uint8, write_png
from sds3d.export.textured import PICTURE_LIGHT
from sds3d.export.views import render_views
from sds3d.mesh_files import MeshSource, read_user_mesh
from sds3d.scenes.file_mesh import take_colors
from sds3d.scenes.mesh import FixedMesh, MeshConfig

PICTURE = Path(__file__).parent / "texture.png"
SIZE, TURN = 256, 0.6  # pixels; radians from the front


def mug() -> trimesh.Scene:
    """Two parts, each a grid of its own: a lathed cup, closed below, and a bent tube."""
    profile = [(0, 0), (0.95, 0), (1, 0.06), (1, 2.3), (0.97, 2.34), (0.9, 2.3), (0.88, 0.2), (0.8, 0.14), (0, 0.14)]
    radius, height = np.array(profile).T
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(radius), np.diff(height)))])
    around = np.linspace(0, 2 * np.pi, 65)
    cup = np.stack(
        [radius * np.cos(around)[:, None], height + 0 * around[:, None], radius * np.sin(around)[:, None]], axis=-1
    )
    cup_uv = np.stack(np.broadcast_arrays(around[:, None] / (2 * np.pi), 0.5 + 0.48 * length / length[-1]), axis=-1)
    bend, ring = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 25), np.linspace(0, 2 * np.pi, 17)
    reach = 0.62 + 0.15 * np.cos(ring)
    tube = np.stack(
        [
            0.93 + reach * np.cos(bend)[:, None],
            1.17 + reach * np.sin(bend)[:, None],
            np.broadcast_to(0.15 * np.sin(ring), (25, 17)),
        ],
        axis=-1,
    )
    tube_uv = np.stack(
        np.broadcast_arrays(0.02 + 0.96 * np.linspace(0, 1, 25)[:, None], 0.02 + 0.4 * ring / (2 * np.pi)), axis=-1
    )
    looks = PBRMaterial(name="glaze", baseColorFactor=[190, 190, 190, 255], roughnessFactor=0.4, metallicFactor=0.0)
    scene = trimesh.Scene()
    for name, points, uvs, flip in (("cup", cup, cup_uv, True), ("handle", tube, tube_uv, False)):
        rows, columns = points.shape[:2]
        corner = np.arange(rows * columns).reshape(rows, columns)
        a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
        faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        faces = faces[:, ::-1] if flip else faces
        visual = TextureVisuals(uv=uvs.reshape(-1, 2), material=looks)
        body = trimesh.Trimesh(points.reshape(-1, 3), faces, visual=visual, process=False)
        scene.add_geometry(body, geom_name=name, node_name=name)
    return scene


def house() -> trimesh.Scene:
    """Walls and a roof with eaves, each flat face in a cell of its own of the image."""
    x, y, z, eave, ridge = 0.95, 1.1, 0.85, 0.2, 1.85
    low, high = y - 0.1, ridge
    walls = [
        [(-x, 0, z), (x, 0, z), (x, y, z), (-x, y, z)],
        [(x, 0, -z), (-x, 0, -z), (-x, y, -z), (x, y, -z)],
        [(x, 0, z), (x, 0, -z), (x, y, -z), (x, y, z)],
        [(-x, 0, -z), (-x, 0, z), (-x, y, z), (-x, y, -z)],
        [(-x, 0, -z), (x, 0, -z), (x, 0, z), (-x, 0, z)],
    ]
    w, d = x + eave, z + eave
    roof = [
        [(-w, low, d), (w, low, d), (w, high, 0), (-w, high, 0)],
        [(w, low, -d), (-w, low, -d), (-w, high, 0), (w, high, 0)],
        [(-w, low, -d), (w, low, -d), (w, low, d), (-w, low, d)],
        [(w, low, d), (w, low, -d), (w, high, 0), (w, high, 0)],
        [(-w, low, -d), (-w, low, d), (-w, high, 0), (-w, high, 0)],
    ]
    looks = PBRMaterial(name="plaster", baseColorFactor=[190, 190, 190, 255], roughnessFactor=0.9, metallicFactor=0.0)
    scene, cells = trimesh.Scene(), iter(range(16))
    for name, quads in (("walls", walls), ("roof", roof)):
        uvs = []
        for cell in (next(cells) for _ in quads):
            corners = np.array([(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)])
            uvs.append(np.add(corners, [cell % 4, cell // 4]) / 4)
        start = 4 * np.arange(len(quads))[:, None]
        faces = np.concatenate([np.add(start, [0, 1, 2]), np.add(start, [0, 2, 3])])
        visual = TextureVisuals(uv=np.concatenate(uvs), material=looks)
        body = trimesh.Trimesh(np.array(quads).reshape(-1, 3), faces, visual=visual, process=False)
        scene.add_geometry(body, geom_name=name, node_name=name)
    return scene


def views_of(path: Path) -> np.ndarray:
    """The file from the front and from behind, lit."""
    source = MeshSource(path=str(path))
    scene = FixedMesh(
        MeshConfig(source=source, geometry="fixed", light=PICTURE_LIGHT, colors={"finest_resolution": 256}),
        torch.Generator().manual_seed(0),
    )
    take_colors(scene.color_field, read_user_mesh(source))
    return to_uint8(render_views(scene, turn_cameras(orbit(2, size=SIZE), TURN), BACKGROUND).rgb)


def main() -> None:
    what, *paths = sys.argv[1:]
    if what == "meshes":
        folder = Path(paths[0])
        folder.mkdir(parents=True, exist_ok=True)
        for name, scene in (("mug", mug()), ("house", house())):
            (folder / f"{name}.glb").write_bytes(scene.export(file_type="glb", include_normals=False))
        return
    images, labels = [], []
    for folder in map(RunFolder, paths):
        config = folder.config()
        images += [*views_of(config.mesh_file)[:1], *views_of(folder.artifact("textured"))]
        labels += [config.mesh_file.name, config.prompt, "from behind"]
    write_png(arrange(np.stack(images), labels, columns=6), PICTURE)


if __name__ == "__main__":
    main()
