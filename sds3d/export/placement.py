"""How an exported object stands in its file: which axis points up, where the origin is, and how large it is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from sds3d.export.glb import WORLD_TO_GLTF
from sds3d.export.mesh import Mesh
from sds3d.ops.spherical_harmonics import harmonics
from sds3d.scenes.gaussians import Gaussians

Up = Literal["z", "y", "-y"]
# Ours: +z up, +x front, +y the object's left. Here: +z up, -y front, +x the object's left.
WORLD_TO_Z_UP = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
# -y: as photogrammetry has it, the front along -z; what 3DGS was trained from, and most of its viewers expect
WORLD_TO_UP: dict[str, ndarray] = {
    "z": WORLD_TO_Z_UP,
    "y": WORLD_TO_GLTF,
    "-y": np.diag([1.0, -1.0, -1.0]) @ WORLD_TO_GLTF,
}
DIRECTIONS = 64  # in which turned harmonics are fitted; 16 would determine them


@dataclass(frozen=True)
class Placement:
    """point in the file = linear @ point + shift, before what its format does by itself.

    A file where that is not the same point says so (`told`), so that whoever reads a run's results can undo it.
    """

    linear: Float[ndarray, "3 3"]  # a rotation times a scale
    shift: Float[ndarray, "3"]

    @property
    def scale(self) -> float:
        """Units of the file for one of the world."""
        return float(np.cbrt(np.linalg.det(self.linear)))

    def told(self) -> dict[str, Any]:
        """What goes to a file's metadata: nothing where nothing moves."""
        stays = np.array_equal(self.linear, np.eye(3)) and not self.shift.any()
        return {} if stays else {"placed": {"linear": self.linear.tolist(), "shift": self.shift.tolist()}}

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> "Placement":
        """That of a file with such metadata."""
        placed = (metadata or {}).get("placed", {"linear": np.eye(3), "shift": np.zeros(3)})
        return cls(np.array(placed["linear"], dtype=np.float64), np.array(placed["shift"], dtype=np.float64))

    def place(self, mesh: Mesh) -> Mesh:
        """The mesh as its file has it."""
        return replace(mesh, vertices=(mesh.vertices @ self.linear.T + self.shift).astype(np.float32))

    def undo(self, mesh: Mesh) -> Mesh:
        """The mesh of a file in world axes again."""
        back = (mesh.vertices - self.shift) @ np.linalg.inv(self.linear).T
        return replace(mesh, vertices=back.astype(np.float32))


def placement(
    vertices: Float[ndarray, "V 3"],
    world_to_file: Float[ndarray, "3 3"] | None,
    size: float | None = None,
    pivot: Literal["center", "base"] = "center",
    up: Up | None = None,
) -> Placement:
    """Where an object with these vertices stands: `size` is its longest side, None for its own; a `pivot` of base has
    the origin under its middle, at its lowest point. `world_to_file` is the turn that its format makes by itself, None
    for a format that says which axis is up: `up` is nothing to that."""
    low, high = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
    scale = 1.0 if size is None else size / max(float((high - low).max()), 1e-12)
    origin = np.array([*(low + high)[:2] / 2, low[2]]) if pivot == "base" else np.zeros(3)
    turn = np.eye(3) if world_to_file is None or up is None else np.linalg.inv(world_to_file) @ WORLD_TO_UP[up]
    linear = scale * turn
    return Placement(linear, -linear @ origin)


def turned_splats(scene: Gaussians, up: Up | None) -> Gaussians:
    """The splats, or a copy with another axis up: means, rotations and harmonics are turned.

    Harmonics of the turned splats in a direction d are those of the splats in the direction turned back: the new
    coefficients are the solution of Y(d_i) c' = Y(R^T d_i) c for DIRECTIONS directions d_i, exact in each degree.
    """
    if up is None or up == "z":
        return scene
    turn = torch.from_numpy(WORLD_TO_UP[up]).to(scene.means)
    copy = Gaussians(scene.config, torch.Generator())
    copy.load_state_dict(scene.state_dict())
    copy.to(scene.means.device)
    with torch.no_grad():
        copy.means.copy_(scene.means @ turn.T)
        before = Rotation.from_quat(scene.quats[:, [1, 2, 3, 0]].cpu().numpy())
        quats = (Rotation.from_matrix(WORLD_TO_UP[up]) * before).as_quat()[:, [3, 0, 1, 2]]
        copy.raw_quats.copy_(torch.from_numpy(quats))
        if scene.harmonics.shape[1]:
            directions = torch.nn.functional.normalize(
                torch.randn(DIRECTIONS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1
            )
            terms = 1 + scene.harmonics.shape[1]
            back = directions @ turn.double().cpu()
            change = torch.linalg.lstsq(harmonics(directions, terms), harmonics(back, terms)).solution
            change = change[1:, 1:].to(scene.harmonics)
            copy.harmonics.copy_(torch.einsum("ij,njc->nic", change, scene.harmonics))
    return copy
