"""What the tests of this folder do in a process that has the strict device; each function is called there by name."""

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import trimesh
from PIL import Image as PIL

from sds3d import RunConfig, Session, cameras, load_config
from sds3d.export import formats
from sds3d.export.contact_sheet import render_sheet
from sds3d.metrics import view_classifier
from sds3d.priors.base import Prior
from sds3d.run import report
from sds3d.run.artifacts import write_preview
from sds3d.run.events import Event, StepDone, Stop, Warned
from sds3d.scenes import mesh, occupancy, surface_color
from sds3d.training import take_over
from sds3d.training.session import export_run
from sds3d.training.trainer import Trainer
from tests.strict_device import device as strict

COPIES = ("item", "d2h", "wait")  # the kinds of waits in which something comes to the host

SMALL: dict[str, dict[str, Any]] = {
    "gaussians": {"scene.count": 300, "scene.densify.refine_start": 0, "scene.densify.refine_every": 2},
    "nerf": {
        "scene.field": {"levels": 4, "finest_resolution": 32, "log2_table": 12, "start_levels": 2},
        "scene.step": 0.1,
    },
    "mesh": {"scene.samples": 1, "scene.colors": {"finest_resolution": 24, "log2_table": 10, "hidden": 8}},
    "image": {},
}
RUN = {
    **{"prompt": "a red mug", "steps": 3, "checkpoint_every": 1, "preview_every": 1, "milestone_every": 2},
    **{"cameras.views": 2, "cameras.size": 32},
}
EXPORT = {"export": {"faces": 500, "color_size": 32, "texture_size": 64}}

SMALLER: dict[Any, dict[str, Any]] = {
    take_over: {"FOUND_FACES": 800, "FACES": 400, "CELLS": 24, "COLORED_POINTS": 2000},
    surface_color: {"SETTLE_STEPS": 3},
    occupancy: {"EVERY": 2},
    view_classifier: {"TIMES": (0.5,), "VIEWS": 4, "FAR_APART": torch.arange(4), "SIZE": 32},
    formats: {"PIXELS": 64},
    mesh: {"FINISH_PIXELS": 32},
    report: {"orbit": lambda count, size: cameras.orbit(count, size=32)},
}
DEFAULTS: dict[Any, tuple[Any, ...]] = {  # the last ones
    surface_color.ColorField.fit: (5,),  # steps
    render_sheet: (2, 32, 2, ""),  # views, size, columns, title
    write_preview: (2, 32),  # views, size
}


def begin() -> None:
    """Once in the process: the device, a product that takes it for its GPU, and a take-over of a tenth of the size."""
    torch.set_num_threads(1)
    here = strict.start()
    for name in ("session", "sessions"):
        mock.patch(f"sds3d.training.{name}.find_device", return_value=here).start()
    mock.patch("sds3d.priors.embedded.prior.has_bfloat16", return_value=True).start()  # as a new GPU has it
    mock.patch.object(torch, "sparse_csr_tensor", SparseRows).start()  # torch makes none on devices of this kind
    for module, values in SMALLER.items():
        mock.patch.multiple(module, **values).start()
    for function, values in DEFAULTS.items():
        mock.patch.object(function, "__defaults__", values).start()
    ball = trimesh.creation.icosphere
    mock.patch.object(trimesh.creation, "icosphere", lambda subdivisions, radius: ball(2, radius)).start()


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """With exceptions that another process can read."""
    try:
        return function(*args, **kwargs)
    except Exception:
        raise RuntimeError(traceback.format_exc()[-6000:]) from None


class SparseRows(torch.Tensor):
    """As much of a sparse CSR matrix as the product uses: its product with a dense one."""

    @staticmethod
    def __new__(cls, pointers: Any, columns: Any, values: Any, size: Any, device: torch.device) -> "SparseRows":
        made = torch.Tensor._make_subclass(cls, values.to(device))
        made.rows = torch.arange(size[0]).repeat_interleave(pointers.diff().long()).to(device)
        made.columns = columns.long().to(device)
        return made

    def __matmul__(self, dense: torch.Tensor) -> torch.Tensor:
        terms = self.as_subclass(torch.Tensor)[:, None] * dense[self.columns]
        return torch.zeros_like(dense).index_add(0, self.rows, terms)


PRIORS: dict[str, Prior] = {}


def prior_for(config: RunConfig) -> Prior:
    """Loaded once for all runs, on the device."""
    key = config.prior.model_dump_json()
    if key not in PRIORS:
        PRIORS.clear()
        PRIORS[key] = config.prior.build(torch.device(strict.NAME, 0))
    return PRIORS[key]


@contextmanager
def results_of(config: RunConfig, names: tuple[str, ...]) -> Iterator[None]:
    """Inside, all that a finished run of such a scene writes: a video takes longer than the run."""
    with mock.patch.object(type(config.final.scene), "artifacts", names):
        yield


def counted_steps(session: Session) -> Iterator[tuple[Event, Counter[tuple[str, str]]]]:
    """The events of a run; with each step what it waited for."""
    counts: list[Counter[tuple[str, str]]] = []
    advance = Trainer.advance

    def counting(trainer: Trainer) -> StepDone:
        with strict.counting() as waits:
            done = advance(trainer)
        counts.append(Counter(waits))
        return done

    with mock.patch.object(Trainer, "advance", counting):
        for event in session.run():
            yield event, counts.pop() if isinstance(event, StepDone) else Counter()


Outcome = tuple[list[str], dict[int, Counter[tuple[str, str]]], list[str]]


def run(
    options: dict[str, Any], folder: str, also: tuple[str, ...] = (), results: tuple[str, ...] | None = None
) -> Outcome:
    """A run that is stopped after each of its first two steps and resumed; its warnings and waits by step.

    It previews and saves after each step. `also` names what is exported besides what the run makes by itself.
    """
    config = load_config(overrides={**RUN, **EXPORT, **options})
    if config.final.scene.name in ("gaussians", "nerf"):  # whose surface is searched for
        config = load_config(overrides={**RUN, **EXPORT, **options, "export.resolution": 24})
    if results is None:
        results = ("image",) if config.final.scene.name == "image" else ("sheet",)
    prior, warnings, steps = prior_for(config), list[str](), dict[int, Counter[tuple[str, str]]]()
    with results_of(config, results):
        session = Session(config, Path(folder) / "run", prior=prior)
        for _ in range(config.steps):
            for event, waits in counted_steps(session):
                if isinstance(event, Warned):
                    warnings.append(event.message)
                if isinstance(event, StepDone):
                    steps[event.step] = waits
                    if event.step <= 2:
                        session.send(Stop())
            if session.folder.report() is not None:
                break
            session = Session.resume(session.out_dir, prior=prior)
        made = [event.path.name for event in export_run(session.out_dir, also)] if also else []
    return warnings, steps, made


def hub_run(model: str, dtype: str, guidance: str, folder: str) -> Outcome:
    """Of a tiny random model of a hub family, whose texts are read by its own encoders."""
    from tests.priors.hub.tiny_models import save

    kind = {"mvdream": "multiview", "zero123": "zero123"}.get(model, "diffusers")
    options: dict[str, Any] = {
        "prior": {"name": kind, "model": str(save(model, Path(folder) / "model")), "dtype": dtype}
    }
    if model.startswith("flux") or model == "pixart-alpha-sizes":
        options["prior"]["image_size"] = 64  # else minutes
    if model == "mvdream":
        options |= {"cameras.views": 4}
    if model == "zero123":
        picture = Path(folder) / "picture.png"
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[16:48, 16:48] = (200, 30, 30, 255)
        PIL.fromarray(pixels).save(picture)
        options["prior"] |= {"reference_image": {"path": str(picture), "size": 32}, "anchors": 2, "anchor_steps": 2}
    with mock.patch.dict(os.environ, {"SDS3D_CACHE": str(Path(folder) / "cache")}):
        return run({**options, **SMALL["gaussians"], "scene.name": "gaussians", "guidance": guidance}, folder)
