"""Room for a run: the first economy with which a measured step fits, and a refusal before anything is written."""

import pytest
import torch

from sds3d.errors import ConfigError
from sds3d.priors.analytic import AnalyticConfig, AnalyticPrior
from sds3d.priors.base import MemoryModes
from sds3d.priors.hub.config import DiffusersConfig
from sds3d.training import memory as planning
from sds3d.training.memory import GIB, SHARE, make_room, plan_memory
from sds3d.training.session import Session
from tests.priors.hub.conftest import cache, model_folder  # noqa: F401

CPU = torch.device("cpu")


class Frugal(AnalyticPrior):
    """Four ways to ask, the later the smaller."""

    plans = True

    def __init__(self):
        vars(self).update(vars(AnalyticConfig(size=8).build("cpu")))
        self.level = self.memory_mode = 0

    def memory_modes(self):
        return ["whole", "half", "quarter", "eighth"]

    def set_memory_mode(self, level):
        self.level = self.memory_mode = level


def needs(sizes):
    """A measure by the prior's level: GiB, or an exception."""

    def measure(config, prior, device):
        size = sizes[prior.level]
        if isinstance(size, Exception):
            raise size
        return int(size * GIB), 0.1

    return measure


@pytest.fixture(autouse=True)
def eight_gib(monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda device: 8 * GIB)


@pytest.mark.parametrize(
    ("sizes", "level"),
    [([7, 4, 2, 1], 0), ([9, 4, 2, 1], 1), ([9, 8, 7.9, 7], 3), ([torch.OutOfMemoryError("no"), 9, 3, 1], 2)],
)
def test_the_first_economy_that_fits_is_chosen(small_config, sizes, level):
    prior = Frugal()
    plan = plan_memory(small_config(), prior, CPU, needs(sizes))
    assert plan.fits
    assert prior.level == level
    assert len(plan.probes) == level + 1
    assert [probe.fits for probe in plan.probes] == [False] * level + [True]


def test_a_little_is_left_for_the_allocator(small_config):
    assert len(plan_memory(small_config(), Frugal(), CPU, needs([8 * SHARE - 0.01, 1, 1, 1])).probes) == 1
    assert len(plan_memory(small_config(), Frugal(), CPU, needs([8 * SHARE + 0.01, 1, 1, 1])).probes) == 2


def test_what_fits_in_no_way_is_refused_with_figures(small_config, monkeypatch):
    monkeypatch.setattr(planning, "measure_step", needs([20, 16, 12, 10]))
    with pytest.raises(ConfigError, match=r"10.00 GiB of 8.00 GiB.*eighth.*image_size") as caught:
        make_room(small_config(), Frugal(), CPU)
    assert caught.value.exit_code == 2


def test_what_was_chosen_is_said(small_config, monkeypatch):
    monkeypatch.setattr(planning, "measure_step", needs([20, 5, 1, 1]))
    (said,) = make_room(small_config(), Frugal(), CPU)
    assert "half" in said
    assert "5.00 GiB" in said
    monkeypatch.setattr(planning, "measure_step", needs([2, 5, 1, 1]))
    (said,) = make_room(small_config(), Frugal(), CPU)
    assert said == "memory: a step takes 2.00 GiB of 8.00 GiB that are free, with whole"


def test_nothing_is_measured_for_priors_that_have_no_choice(small_config, monkeypatch):
    monkeypatch.setattr(planning, "measure_step", None)
    assert make_room(small_config(), small_config().prior.build("cpu"), CPU) == []
    prior = Frugal()
    prior.plans = False
    assert make_room(small_config(), prior, CPU) == []


def real(model_folder, small_config, **options):  # noqa: F811
    return small_config(
        prior={"name": "diffusers", "model": str(model_folder("sd")), **options},
        cameras={"views": 8, "size": 16, "later_sizes": [{"begin_at": 0.5, "size": 64}]},
        steps=2,
    )


def test_a_real_step_is_measured_and_chunks_need_less(model_folder, small_config, monkeypatch):  # noqa: F811
    """At 256 px, where activations outweigh everything else."""
    config = real(model_folder, small_config, image_size=256)
    prior = config.prior.build("cpu")
    assert isinstance(prior, MemoryModes)
    peaks = []
    for level in (0, 2):
        prior.set_memory_mode(level)
        peak, seconds = planning.measure_step(config, prior, CPU)
        assert peak is not None
        assert seconds > 0
        peaks.append(peak)
    assert peaks[1] < 0.6 * peaks[0], peaks


def test_the_step_is_measured_at_the_largest_views(model_folder, small_config, monkeypatch):  # noqa: F811
    seen = []

    class Watched(planning.Trainer):
        def advance(self):
            seen.append(self.config.cameras.size_at(0.0))
            return super().advance()

    monkeypatch.setattr(planning, "Trainer", Watched)
    config = real(model_folder, small_config)
    planning.measure_step(config, config.prior.build("cpu"), CPU)
    assert seen == [64]


@pytest.mark.exports
@pytest.mark.slow
def test_a_run_plans_first_and_is_the_same_run(model_folder, small_config, tmp_path, monkeypatch):  # noqa: F811
    """The probe draws from nothing of the run; a run that does not fit leaves no folder."""
    config = real(model_folder, small_config)
    assert not config.prior.model_copy(update={"memory": "as_set"}).build("cpu").plans
    planned, plain = tmp_path / "planned", tmp_path / "plain"
    list(Session(config, planned).run())
    list(Session(real(model_folder, small_config, memory="as_set"), plain).run())
    assert (planned / "splats.ply").read_bytes()[-1000:] == (plain / "splats.ply").read_bytes()[-1000:]
    monkeypatch.setattr(planning, "measure_step", lambda config, prior, device: (9 * GIB, 0.1))
    with pytest.raises(ConfigError, match="does not fit"):
        list(Session(config, tmp_path / "refused").run())
    assert not (tmp_path / "refused").exists()


def test_a_critic_is_never_offloaded(model_folder, small_config, monkeypatch):  # noqa: F811
    config = real(model_folder, small_config).model_copy(update={"guidance": small_config(guidance="vsd").guidance})
    monkeypatch.setattr(planning, "free_memory", lambda device: -1)
    plan = plan_memory(config, DiffusersConfig(model=config.prior.model).build("cpu"), CPU)
    assert [probe.mode for probe in plan.probes][-1] == "one image at a time, in tiles"
