"""report.json: the parts, the cost and the metrics of a finished run."""

import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from sds3d.cameras import orbit
from sds3d.config.run_config import RunConfig
from sds3d.metrics import view_classifier
from sds3d.metrics.image import diversity, saturation, translucency
from sds3d.priors.base import Prior
from sds3d.scenes import Scene

PACKAGES = ("sds3d", "torch", "numpy", "diffusers", "transformers", "trimesh")


def build_report(
    config: RunConfig,
    scenes: Sequence[Scene],
    device: torch.device,
    seconds: Mapping[str, float],
    steps: int,
    stage: int,
    forwards: int,
    meshes: Sequence[Mapping[str, Any]],
    prior: Prior,
) -> dict[str, Any]:
    """The content of report.json.

    `parts` are those of `stage`, which the scene is of. `seconds` by part, and by stage (`stage_seconds`); `steps` that
    were done, fewer than planned in a run that was ended early; `forwards` of the prior in all of them; `meshes`, the
    figures of each scene's mesh. `mesh` and `metrics` are the first scene's; with several scenes, `particles` has those
    of each.
    """
    metrics = [view_metrics(scene, device) | janus_metrics(prior, config, scene, device) for scene in scenes]
    each = [{"mesh": dict(mesh), "metrics": values} for mesh, values in zip(meshes, metrics, strict=True)]
    own, views = config.in_stage(stage), config.views_until(steps)
    spent, stages = {part: round(value, 3) for part, value in seconds.items()}, list[dict[str, Any]]()
    for number, begin in enumerate(config.stage_begins):
        stages.append({"scene": config.in_stage(number).scene.name, "begin": begin})
        if (name := stage_seconds(number)) in spent:  # a run that is ended early has not begun all
            stages[-1]["seconds"] = spent.pop(name)
    several = {"particles": each, "diversity": particle_diversity(scenes, device)} if len(scenes) > 1 else {}
    return {
        "prompt": config.prompt,
        "negative_prompt": config.negative_prompt,
        "seed": config.seed,
        "steps": steps,
        **({"stages": stages} if config.stages else {}),
        "parts": {key: getattr(own, key).name for key in ("scene", "prior", "guidance", "noise", "timesteps")},
        **device_facts(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "seconds": spent,
        "prior_forwards_per_step": round(forwards / views, 3) if views else 0.0,  # for each view
        "peak_memory_bytes": peak_memory(device),
        **each[0],
        **several,
    }


def stage_seconds(stage: int) -> str:
    """The name of a stage's wall time among the seconds of a run: with its take-over, loading and pictures."""
    return f"stage {stage + 1}"


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect the result."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def device_facts(device: torch.device) -> dict[str, str]:
    """The device, and which GPU that is."""
    return {"device": str(device)} | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak memory in bytes: of this process in main memory, and of torch on the device if that is a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts KiB, except on macOS
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


@torch.no_grad()
def view_metrics(scene: Scene, device: torch.device) -> dict[str, float]:
    """Metrics over eight views around: `coverage` is the object's share of the image; for others see metrics.image."""
    cameras = orbit(8, size=96).to(device)
    out = scene.render(cameras, torch.zeros((8, 3), device=device))
    metrics = {
        "coverage": out.opacity.mean(),
        "translucency": translucency(out.opacity),
        "saturation": saturation(out.rgb, out.opacity),
    }
    return {name: round(float(value), 4) for name, value in metrics.items()}


def janus_metrics(prior: Prior, config: RunConfig, scene: Scene, device: torch.device) -> dict[str, Any]:
    """{"janus": view_classifier.measure}, or nothing for priors that tell no sides apart."""
    janus = view_classifier.measure(prior, config.prior, config.prompt, scene, device)
    return {} if janus is None else {"janus": janus.to_dict()}


@torch.no_grad()
def particle_diversity(scenes: Sequence[Scene], device: torch.device) -> float:
    """`diversity` of several scenes in the same eight cameras."""
    cameras = orbit(8, size=96).to(device)
    renders = [scene.render(cameras, torch.full((8, 3), 0.5, device=device)).rgb for scene in scenes]
    return round(float(diversity(torch.stack(renders))), 4)
