"""docs/texture.png: meshes that others made, and what `sds3d texture` makes of them.

python docs/make_texture.py chair FOLDER/chair.glb                       # one of the procedural world, with UVs
build/dcc/blender/bin/python tests/dcc/uvs_in_blender.py make FOLDER     # Blender's: torus.glb, cone.glb, ...
sds3d texture FOLDER/torus.glb "a pink donut" --out outputs/texture/torus           # and so on
python docs/make_texture.py picture outputs/texture/*                    # draws docs/texture.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
import xatlas
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from sds3d import RunFolder
from sds3d.cameras import orbit, turn_cameras
from sds3d.evaluation.ground_truth import draw_truths, solid_body
from sds3d.export.contact_sheet import BACKGROUND, arrange
from sds3d.export.png import to_uint8, write_png
from sds3d.export.textured import PICTURE_LIGHT
from sds3d.export.views import render_views
from sds3d.mesh_files import MeshSource, read_user_mesh
from sds3d.priors.embedded.captions import parse
from sds3d.scenes.file_mesh import take_colors
from sds3d.scenes.mesh import FixedMesh, MeshConfig

PICTURE = Path(__file__).parent / "texture.png"
SIZE, TURN = 256, 0.6  # pixels; radians from the front


def chair() -> trimesh.Trimesh:
    """A true chair of the procedural world on glTF's axes, grey, with UVs by xatlas."""
    description = parse("a blue chair")
    assert description is not None
    body = solid_body(draw_truths(description)[0]).to_mesh()
    points, faces = np.asarray(body.vert_properties)[:, [1, 2, 0]], np.asarray(body.tri_verts)
    kept, corners, uvs = xatlas.parametrize(points, faces)
    looks = PBRMaterial(name="wood", baseColorTexture=Image.new("RGB", (256, 256), (150, 150, 150)))
    return trimesh.Trimesh(points[kept], corners, visual=TextureVisuals(uv=uvs, material=looks), process=False)


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
    if what == "chair":
        chair().export(paths[0])
        return
    images, labels = [], []
    for folder in map(RunFolder, paths):
        config = folder.config()
        images += [*views_of(config.mesh_file)[:1], *views_of(folder.artifact("textured"))]
        labels += [config.mesh_file.name, config.prompt, "from behind"]
    write_png(arrange(np.stack(images), labels, columns=6), PICTURE)


if __name__ == "__main__":
    main()
