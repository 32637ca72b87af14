"""Memory of a run: the first mode with which a measured step fits, and a refusal before anything is written."""

import pytest
import torch

from sds3d.errors import ConfigError, ExtensionUnavailable, PriorUnavailable
from sds3d.ops import extension
from sds3d.ops.extension import BackendInfo
from sds3d.priors.analytic import AnalyticConfig, AnalyticPrior
from sds3d.priors.base import MemoryModes
from sds3d.run.events import Warned
from sds3d.training import memory
from sds3d.training.memory import GIB, SHARE, find_device, make_room, plan_memory
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
    monkeypatch.setattr(memory, "free_memory", lambda device: 8 * GIB)


@pytest.mark.parametrize(
    ("sizes", "level"),
    [
        ([7, 4, 2, 1], 0),
        ([9, 4, 2, 1], 1),
        ([9, 8, 7.9, 7], 3),
        ([torch.OutOfMemoryError("no"), 9, 3, 1], 2),
        ([RuntimeError("out of memory: you tried to allocate 9 bytes"), 3, 1, 1], 1),  # what our operators say
    ],
)
def test_the_first_mode_that_fits_is_chosen(small_config, sizes, level, monkeypatch):
    prior = Frugal()
    monkeypatch.setattr(memory, "measure_step", needs(sizes))
    plan = plan_memory(small_config(), prior, CPU)
    assert plan.fits
    assert prior.level == level
    assert len(plan.probes) == level + 1
    assert [probe.fits for probe in plan.probes] == [False] * level + [True]


def test_a_little_is_left_for_the_allocator(small_config, monkeypatch):
    for more, probes in ((-0.01, 1), (0.01, 2)):
        monkeypatch.setattr(memory, "measure_step", needs([8 * SHARE + more, 1, 1, 1]))
        assert len(plan_memory(small_config(), Frugal(), CPU).probes) == probes


def test_what_fits_in_no_way_is_refused_with_figures(small_config, monkeypatch):
    monkeypatch.setattr(memory, "measure_step", needs([20, 16, 12, 10]))
    with pytest.raises(ConfigError, match=r"10.00 GiB of 8.00 GiB.*eighth.*image_size") as caught:
        make_room(small_config(), Frugal(), CPU)
    assert caught.value.exit_code == 2


def test_what_was_chosen_is_said(small_config, monkeypatch):
    monkeypatch.setattr(memory, "measure_step", needs([20, 5, 1, 1]))
    (said,) = make_room(small_config(), Frugal(), CPU)
    assert "half" in said
    assert "5.00 GiB" in said
    monkeypatch.setattr(memory, "measure_step", needs([2, 5, 1, 1]))
    (said,) = make_room(small_config(), Frugal(), CPU)
    assert said == "memory: a step takes 2.00 GiB of 8.00 GiB that are free, with whole"


def test_the_stage_with_the_most_pixels_is_measured(small_config, monkeypatch):
    measured = []

    def measure(config, prior, device):
        measured.append((config.scene.name, config.cameras.views, config.stages))
        return GIB, 0.1

    monkeypatch.setattr(memory, "measure_step", measure)
    later = {"begin_at": 0.5, "options": {"scene": "mesh", "cameras.views": 4}}
    for stages in ([later], [{"begin_at": 0.2, "options": {"cameras.size": 16}}, later]):
        make_room(small_config(stages=stages), Frugal(), CPU)
    make_room(small_config(stages=[{"begin_at": 0.5, "options": {"cameras.views": 1}}]), Frugal(), CPU)
    assert measured == [("mesh", 4, ()), ("mesh", 4, ()), ("gaussians", 2, ())]


def test_nothing_is_measured_for_priors_that_have_no_choice(small_config, monkeypatch):
    monkeypatch.setattr(memory, "measure_step", None)
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


def flat(model_folder, small_config, **options):  # noqa: F811
    return small_config(
        prior={"name": "diffusers", "model": str(model_folder("sd")), **options},
        scene={"name": "image"},
        loss_weights={},
        cameras={"views": 2, "size": 16},
        steps=2,
    )


@pytest.mark.slow
def test_a_real_step_is_measured_and_chunks_need_less(model_folder, small_config, monkeypatch):  # noqa: F811
    """At 256 px, where activations outweigh everything else."""
    config = real(model_folder, small_config, image_size=256)
    prior = config.prior.build("cpu")
    assert isinstance(prior, MemoryModes)
    peaks = []
    for level in (0, 2):
        prior.set_memory_mode(level)
        peak, seconds = memory.measure_step(config, prior, CPU)
        assert peak is not None
        assert seconds > 0
        peaks.append(peak)
    assert peaks[1] < 0.6 * peaks[0], peaks


def test_the_step_is_measured_at_the_largest_views(model_folder, small_config, monkeypatch):  # noqa: F811
    seen = []

    class Watched(memory.Trainer):
        def advance(self):
            seen.append(self.config.cameras.size_at(0.0))
            return super().advance()

    monkeypatch.setattr(memory, "Trainer", Watched)
    config = real(model_folder, small_config)
    memory.measure_step(config, config.prior.build("cpu"), CPU)
    assert seen == [64]


@pytest.mark.exports
@pytest.mark.slow
def test_a_run_plans_first_and_is_the_same_run(model_folder, small_config, tmp_path, monkeypatch):  # noqa: F811
    """The probe draws from nothing of the run; a run that does not fit leaves no folder. A flat scene, for speed."""
    config = flat(model_folder, small_config)
    planned = Session(config, tmp_path / "planned")
    fixed = Session(flat(model_folder, small_config, memory="as_set"), tmp_path / "fixed")
    assert planned.prior().plans
    assert not fixed.prior().plans
    notes = [[event.message for event in run.run() if isinstance(event, Warned)] for run in (planned, fixed)]
    assert [sum(note.startswith("memory: a step takes") for note in run) for run in notes] == [1, 0]
    first, second = (run.scene().state_dict() for run in (planned, fixed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    monkeypatch.setattr(memory, "measure_step", lambda config, prior, device: (9 * GIB, 0.1))
    with pytest.raises(ConfigError, match="does not fit"):
        list(Session(config, tmp_path / "refused").run())
    assert not (tmp_path / "refused").exists()


def with_critic(model_folder, small_config, **options):  # noqa: F811
    config = real(model_folder, small_config, **options)
    return config.model_copy(update={"guidance": small_config(guidance="vsd").guidance})


def test_a_plan_offloads_no_network_that_a_critic_learns_on(model_folder, small_config, monkeypatch):  # noqa: F811
    config = with_critic(model_folder, small_config)
    monkeypatch.setattr(memory, "free_memory", lambda device: -1)
    plan = plan_memory(config, config.prior.build("cpu"), CPU)
    assert [probe.mode for probe in plan.probes][-1] == "one image at a time, in tiles"
    assert "not with one image at a time, in tiles, the network offloaded, because" in str(plan)


def test_a_run_that_no_mode_allows_is_told_why(model_folder, small_config):  # noqa: F811
    """Offloading by hand and a critic: every mode keeps what was configured."""
    config = with_critic(model_folder, small_config, offload="model")
    with pytest.raises(ConfigError, match=r"critic.*offload=none") as caught:
        make_room(config, config.prior.build("cpu"), CPU)
    assert caught.value.exit_code == 2


def test_views_that_do_not_fit_a_multi_view_model_are_told_apart_from_memory(model_folder, small_config):  # noqa: F811
    config = small_config(prior={"name": "multiview", "model": str(model_folder("mvdream"))}, **{"cameras.views": 4})
    config = config.model_copy(update={"cameras": config.cameras.model_copy(update={"views": 3})})
    with pytest.raises(ConfigError, match=r"4 views.*cameras.views=4"):
        make_room(config, config.prior.build("cpu"), CPU)


@pytest.mark.parametrize("family", ["sd", "mvdream"])
def test_a_run_that_gets_out_of_memory_keeps_the_critics_weights_on_the_device(
    model_folder,  # noqa: F811
    small_config,
    monkeypatch,
    family,
):
    """What goes to the CPU goes to the meta device here, where a shared weight would lose its numbers."""
    name = "multiview" if family == "mvdream" else "diffusers"
    config = small_config(
        prior={"name": name, "model": str(model_folder(family))}, guidance="vsd", **{"cameras.views": 4}
    )
    prior = config.prior.build("cpu")
    to = prior.network.to
    monkeypatch.setattr(prior.network, "to", lambda where: to("meta" if isinstance(where, str) else where))
    generator = torch.Generator().manual_seed(0)
    trainer = memory.Trainer(config, config.scene.build(generator), prior, generator, CPU)
    while trainer.reduce_memory() is not None:
        trainer.advance()
    assert prior.memory_mode == 3
    with pytest.raises(PriorUnavailable, match=r"critic"):
        prior.set_memory_mode(4)
    trainer.advance()
    del trainer
    prior.set_memory_mode(4)  # no critic is left
    assert next(prior.network.parameters()).is_meta


@pytest.mark.parametrize(("cuda", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_no_gpu_that_there_are_no_kernels_for(cuda, expected, small_config, monkeypatch) -> None:
    """A driver without a CUDA compiler is the usual case; the run ended in its first step."""
    info = BackendInfo("avx2", cuda, "", "_C.so")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(memory, "backend_info", lambda: info)
    assert find_device("auto").type == expected
    if not cuda:
        (warning,) = (text for text in Session(small_config(device="auto")).check() if "GPU" in text)
        assert "torch sees a GPU: sds3d._C was built without CUDA; build" in warning
        monkeypatch.setattr(extension, "backend_info", lambda: info)
        with pytest.raises(ExtensionUnavailable, match="or use device=cpu"):
            extension.use_compiled(torch.device("cuda"), "rasterize_gaussians")


@pytest.mark.parametrize(
    ("name", "visible", "gpus", "expected"),
    [
        ("auto", "1", 1, "CUDA_VISIBLE_DEVICES=1 names none"),  # what `ui --workers 2` did to its second worker
        ("auto", None, 2, "2 GPUs: torch can use none"),
        ("auto", "", 1, None),
        ("auto", None, 0, None),
        ("cpu", None, 1, None),
    ],
)
def test_auto_that_means_the_cpu_on_a_machine_with_gpus_is_a_warning(
    name: str, visible: str | None, gpus: int, expected: str | None, small_config, monkeypatch, tmp_path
) -> None:
    """B12."""
    for number in range(gpus):
        (tmp_path / "gpus" / str(number)).mkdir(parents=True)
    monkeypatch.setattr(memory, "GPUS", tmp_path / "gpus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    warnings = [text for text in Session(small_config(device=name)).check() if "GPU" in text]
    assert [expected in text for text in warnings] == ([] if expected is None else [True])
