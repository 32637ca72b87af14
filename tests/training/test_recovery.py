"""A run goes back to its last good checkpoint, with lower learning rates or less memory, and says so."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sds3d import Session
from sds3d.errors import NumericsError, OutOfMemory, is_out_of_memory
from sds3d.ops.extension import compiled
from sds3d.run.checkpoint import load_newest
from sds3d.run.events import CheckpointSaved, Finished, StepDone, Stop, Warned
from sds3d.training.recovery import MAX_SKIPPED
from sds3d.training.trainer import Trainer


def warnings(events: list[Any]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


def done_steps(events: list[Any]) -> list[int]:
    return [event.step for event in events if isinstance(event, StepDone)]


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int, int], Exception | None]) -> list[float]:
    """Steps raise what `fails(call, step)` says; returns the learning rates' factor of each call, as they come."""
    advance, calls, rates = Trainer.advance, itertools.count(), list[float]()

    def attempt(self: Trainer) -> StepDone:
        rates.append(self.rate)
        error = fails(next(calls), self.step)
        if error is not None:
            raise error
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", attempt)
    return rates


def test_steps_that_stay_broken_go_back_to_the_last_checkpoint_with_half_the_rates(
    small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan, before = NumericsError("the loss is not finite"), 10
    rates = failing(monkeypatch, lambda call, step: nan if before <= call < before + MAX_SKIPPED + 1 else None)
    session = Session(small_config(checkpoint_every=8), tmp_path / "run")
    events = list(session.run())
    assert isinstance(events[-1], Finished)
    said = [text for text in warnings(events) if "not finite" in text]
    assert len(said) == MAX_SKIPPED + 1
    assert "going back to step 8 with 0.5 times the learning rates (1 of at most 3 in a row)" in said[-1]
    assert done_steps(events) == [*range(1, 11), *range(9, 25)]
    assert set(rates[: before + MAX_SKIPPED + 1]) == {1.0}
    assert set(rates[before + MAX_SKIPPED + 1 :]) == {0.5}


def test_the_lower_rate_is_part_of_the_checkpoint(small_config, tmp_path: Path, monkeypatch) -> None:
    failing(monkeypatch, lambda call, step: NumericsError("no") if 10 <= call < 15 else None)
    config = small_config(checkpoint_every=8)
    list(Session(config, tmp_path / "whole").run())
    monkeypatch.undo()
    failing(monkeypatch, lambda call, step: NumericsError("no") if 10 <= call < 15 else None)
    session = Session(config, tmp_path / "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 18:
            session.send(Stop())
    monkeypatch.undo()
    checkpoint, _ = load_newest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.rate) == (18, 0.5)
    list(Session.resume(tmp_path / "run").run())
    resumed, whole = (Session.resume(tmp_path / name).scene().state_dict() for name in ("run", "whole"))
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_going_back_does_not_draw_the_same_again(small_config, tmp_path: Path, monkeypatch) -> None:
    draws: list[float] = []
    advance = Trainer.advance

    def attempt(self: Trainer) -> StepDone:
        if self.step == 8:
            draws.append(float(torch.rand(1, generator=self.generator.clone_state())))
        if len(draws) == 1 and self.step >= 8:
            raise NumericsError("no")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", attempt)
    list(Session(small_config(checkpoint_every=8), tmp_path / "run").run())
    assert len(draws) == 2
    assert draws[0] != draws[1]


def test_what_does_not_get_better_ends_with_the_reason(small_config, tmp_path: Path, monkeypatch) -> None:
    failing(monkeypatch, lambda call, step: NumericsError("the loss is not finite") if step >= 10 else None)
    session, seen = Session(small_config(checkpoint_every=8), tmp_path / "run"), list[Any]()
    with pytest.raises(NumericsError, match="not finite, and going back 3 times did not help"):
        seen.extend(session.run())  # extend keeps what came before the error
    assert sum("going back to step 8" in text for text in warnings(seen)) == 3
    assert isinstance(seen[-1], StepDone | Warned | CheckpointSaved)
    checkpoint, problems = load_newest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.rate, problems) == (8, 0.125, [])


def test_no_going_back_where_none_is_wanted(small_config, tmp_path: Path, monkeypatch) -> None:
    failing(monkeypatch, lambda call, step: NumericsError("no") if step >= 10 else None)
    monkeypatch.setattr("sds3d.training.recovery.ROLLBACKS", 0)
    with pytest.raises(NumericsError, match="going back 0 times"):
        list(Session(small_config(), tmp_path / "run").run())


def test_a_scene_that_vanishes_is_not_saved_and_comes_back(small_config, tmp_path: Path) -> None:
    """Its opacity collapses after step 20; the checkpoint that is due at 24 must not be of that."""
    session, ruined = Session(small_config(checkpoint_every=8, steps=30), tmp_path / "run"), False
    events = []
    for event in session.run():
        events.append(event)
        if isinstance(event, StepDone) and event.step == 20 and not ruined:
            ruined = True
            with torch.no_grad():
                session.scene().raw_opacities.fill_(-12.0)
    (said,) = [text for text in warnings(events) if "going back" in text]
    assert "nothing can be seen of the scene" in said
    assert "going back to step 16" in said
    assert session.scene().opacities.detach().max() > 0.05
    assert isinstance(events[-1], Finished)


def test_a_ruined_scene_is_not_saved_at_a_step_that_was_skipped(small_config, tmp_path: Path, monkeypatch) -> None:
    """B6: the step of a checkpoint fails, so it is skipped, and what was saved then had not been looked at."""
    failing(monkeypatch, lambda call, step: NumericsError("the loss is not finite") if call == 15 else None)
    session = Session(small_config(checkpoint_every=8, steps=30), tmp_path / "run")
    events, ruined = [], False
    for event in session.run():
        events.append(event)
        if isinstance(event, StepDone) and event.step == 15 and not ruined:
            ruined = True
            with torch.no_grad():
                session.scene().raw_opacities.fill_(-12.0)
        if isinstance(event, CheckpointSaved):
            checkpoint, _ = load_newest(tmp_path / "run" / "checkpoints")
            assert checkpoint is not None
            assert checkpoint.tensors["scene.raw_opacities"].max() > -11
    assert any("going back to step 8" in text for text in warnings(events))
    assert isinstance(events[-1], Finished)


def test_a_ruined_scene_is_not_saved_by_a_stop_either(small_config, tmp_path: Path) -> None:
    """Resumed, the run would go back to nothing but the ruin."""
    session = Session(small_config(checkpoint_every=8, steps=30), tmp_path / "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 11:
            with torch.no_grad():
                session.scene().raw_opacities.fill_(-12.0)
            session.send(Stop())
    assert event.interrupted
    assert session.folder.checkpoint_steps() == [8]
    assert isinstance(list(Session.resume(tmp_path / "run").run())[-1], Finished)


def test_going_back_is_saved_once(small_config, tmp_path: Path, monkeypatch) -> None:
    failing(monkeypatch, lambda call, step: NumericsError("no") if 10 <= call < 15 else None)
    events = list(Session(small_config(checkpoint_every=8), tmp_path / "run").run())
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [8, 8, 16, 24]


class Frugal:
    """What a prior that can do with less memory has, on top of another prior."""

    def __init__(self, prior: Any, level: int = 0) -> None:
        self.inner, self.memory_mode = prior, level

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    plans = False

    def memory_modes(self) -> list[str]:
        return ["everything at once", "one image at a time"]

    def set_memory_mode(self, level: int) -> None:
        self.memory_mode = level


def test_out_of_memory_asks_the_prior_for_less_and_goes_on(small_config, tmp_path: Path, monkeypatch) -> None:
    config = small_config(checkpoint_every=8)
    session = Session(config, tmp_path / "run")
    prior = Frugal(session.prior())
    session = Session(config, tmp_path / "run", prior=prior)  # type: ignore[arg-type]
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
    failing(monkeypatch, lambda call, step: full if step >= 10 and prior.memory_mode == 0 else None)
    events = list(session.run())
    (said,) = [text for text in warnings(events) if "memory" in text]
    assert "out of memory at step 10: CUDA out of memory. Tried to allocate 3.00 GiB" in said
    assert "going on from step 8 with one image at a time" in said
    assert isinstance(events[-1], Finished)
    monkeypatch.undo()
    list(Session(config, tmp_path / "whole").run())  # less memory changes nothing else
    got, want = (Session.resume(tmp_path / name).scene().state_dict() for name in ("run", "whole"))
    assert all(torch.equal(value, want[name]) for name, value in got.items())


def test_out_of_memory_halves_the_rays_of_a_field(small_config, tmp_path: Path, monkeypatch) -> None:
    config = small_config(scene={"name": "nerf", "chunk": 4096}, steps=4, checkpoint_every=2, loss_weights={})
    full = RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. you tried to allocate 8 bytes.")
    failing(monkeypatch, lambda call, step: full if call in (1, 2) else None)
    session, events = Session(config, tmp_path / "run"), list[Any]()
    for event in session.run():
        events.append(event)
        if isinstance(event, StepDone) and event.step == 4:
            session.send(Stop())  # without an export, which is long
    said = [text for text in warnings(events) if "memory at" in text]
    assert [text.rpartition(" with ")[2] for text in said] == ["2048 rays at once", "1024 rays at once"]
    assert done_steps(events) == [1, 1, 2, 3, 4]


def test_where_nothing_is_left_to_save_the_message_says_what_would_fit(
    small_config, tmp_path: Path, monkeypatch
) -> None:
    advance = Trainer.advance

    def attempt(self: Trainer) -> StepDone:
        if self.config.cameras.views > 2:
            raise torch.OutOfMemoryError("no more")
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", attempt)
    config = small_config(cameras={"views": 4, "size": 24})
    with pytest.raises(OutOfMemory) as caught:
        list(Session(config, tmp_path / "run").run())
    assert str(caught.value) == "out of memory at step 0 on cpu: no more (cameras.views=2 would fit)"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes do not match"), False),
        (ValueError("you tried to allocate"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) == is_it


def refused_by_torch() -> None:
    torch.empty(1 << 60)


def refused_in_an_operator_of_ours() -> None:
    """Half a petabyte for the images of 131,072 views."""
    points, faces = torch.zeros(1, 3, 3).expand(1 << 17, 3, 3), torch.zeros(1, 3, dtype=torch.int32)
    torch.ops.sds3d.rasterize_triangles(points, faces, 1 << 14, 1 << 14)


@pytest.mark.parametrize("refused", [refused_by_torch, refused_in_an_operator_of_ours])
def test_a_refused_allocation_counts(refused: Callable[[], None]) -> None:
    if refused is refused_in_an_operator_of_ours and not compiled():
        pytest.skip("needs the compiled kernels")
    with pytest.raises(RuntimeError) as caught:
        refused()
    assert is_out_of_memory(caught.value)
