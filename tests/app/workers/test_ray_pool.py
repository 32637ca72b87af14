"""How many GPUs the actors of a Ray cluster get; what they do is tested in tests/reliability."""

from types import SimpleNamespace

import pytest

from sds3d_app.workers import ray_pool
from sds3d_app.workers.ray_pool import actor_count, gpu_share


@pytest.mark.parametrize(
    ("devices", "gpus", "share", "actors"),
    [
        ({"auto"}, 2, 1.0, 2),  # one for each CPU shared the first GPU
        ({"auto"}, 0, 0.0, 16),
        ({"cuda"}, 2, 1.0, 2),
        ({"cpu"}, 2, 0.0, 16),
        ({"cpu", "auto"}, 2, 1.0, 2),
    ],
)
def test_jobs_that_leave_the_device_open_get_a_gpu_where_there_are_some(
    devices: set[str], gpus: int, share: float, actors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = SimpleNamespace(cluster_resources=lambda: {"CPU": 16.0, **({"GPU": float(gpus)} if gpus else {})})
    monkeypatch.setattr(ray_pool, "require_ray", lambda: cluster)
    assert gpu_share(devices) == share
    assert actor_count(gpu_share(devices)) == actors
