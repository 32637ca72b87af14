"""A scene that is known exactly: a red box with a blue ball on top, off-centre, and some floaters around it."""

import math
from pathlib import Path

import pytest
import torch

from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.mesh import Mesh
from sds3d.scenes.gaussians import Gaussians, GaussiansConfig

HERE = Path(__file__).parent
COSTLY = ("mesh", "written")  # fixtures that one worker makes, for all tests that ask for them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            for name in set(COSTLY) & set(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.xdist_group(f"export {name}"))


BOX_LOW, BOX_HIGH = (-0.3, -0.2, -0.5), (0.3, 0.2, 0.0)
BALL_CENTER, BALL_RADIUS = (0.1, -0.05, 0.17), 0.2
SPLAT_SIZE = 0.03


def cluster(points: torch.Tensor, color: tuple[float, float, float], opacity: float = 0.6) -> dict[str, torch.Tensor]:
    count = len(points)
    return {
        "raw_means": points,
        "raw_scales": torch.full((count, 3), math.log(SPLAT_SIZE)),
        "raw_quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        "raw_opacities": torch.full((count,), opacity).logit(),
        "raw_colors": torch.tensor(color).repeat(count, 1).logit(),
    }


def scene_of(*clusters: dict[str, torch.Tensor]) -> Gaussians:
    scene = GaussiansConfig(count=4).build(torch.Generator().manual_seed(0))
    state = {name: torch.cat([part[name] for part in clusters]) for name in clusters[0]}
    zeros = torch.zeros(len(state["raw_means"]))
    scene.load_state_dict({**state, "grad_sum": zeros, "view_count": zeros, "seed": torch.tensor(0)})
    return scene


def box_points(count: int, low, high, generator: torch.Generator) -> torch.Tensor:
    low, high = torch.tensor(low), torch.tensor(high)
    return low + (high - low) * torch.rand(count, 3, generator=generator)


def ball_points(count: int, center, radius: float, generator: torch.Generator) -> torch.Tensor:
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return torch.tensor(center) + directions * radius * torch.rand(count, 1, generator=generator) ** (1 / 3)


def box_and_ball() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        cluster(box_points(2200, BOX_LOW, BOX_HIGH, generator), (0.9, 0.1, 0.1)),
        cluster(ball_points(800, BALL_CENTER, BALL_RADIUS, generator), (0.1, 0.2, 0.85)),
    ]


@pytest.fixture(scope="session")
def clean_scene() -> Gaussians:
    """The scene without its floaters."""
    return scene_of(*box_and_ball())


@pytest.fixture(scope="session")
def scene() -> Gaussians:
    generator = torch.Generator().manual_seed(1)
    places = [(0.6, 0.5, 0.4), (-0.6, 0.3, 0.5), (0.0, -0.7, -0.2)]
    floaters = torch.cat([ball_points(30, place, 0.05, generator) for place in places])
    return scene_of(*box_and_ball(), cluster(floaters, (0.1, 0.9, 0.1), opacity=0.9))


@pytest.fixture(scope="session")
def mesh(scene: Gaussians) -> Mesh:
    return extract_mesh(scene, ExportConfig(resolution=48, faces=5000, color_size=96, texture_size=128))
