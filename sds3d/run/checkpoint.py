"""Checkpoints: tensors as safetensors, the rest as JSON, and a manifest of checksums that is written last.

    checkpoints/step-000250/{tensors.safetensors, state.json, manifest.json}

The folder is filled under another name and renamed when it is complete, so a checkpoint is whole or absent. Damage that
happens later is noticed: safetensors alone accepts most flipped bits, the checksums none.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from sds3d.atomic import remove_tree, sync_folder, write_synced, writing
from sds3d.errors import CheckpointError, first_line

FORMAT = 1
KEPT = 2  # newest ones
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on from `step` as if it had never stopped."""

    step: int
    tensors: Mapping[str, Tensor]
    seconds: Mapping[str, float] = field(default_factory=dict)  # spent so far, by part
    forwards: int = 0  # asked of the prior so far
    rate: float = 1.0  # factor on all learning rates, see sds3d.training.recovery
    stage: int = 0  # whose scene it is; `step` does not tell it where one stage ends and the next begins


def pack(
    scene: nn.Module, optimizer: Optimizer, states: Mapping[str, nn.Module | None], generator: torch.Generator
) -> dict[str, Tensor]:
    """All tensors of a run on the CPU under flat names: scene.*, <state>.*, optimizer.<parameter>.*, generator.

    `states` are the modules of other parts, such as a guidance's critic, by the part's name.
    """
    tensors = {f"scene.{name}": value for name, value in scene.state_dict().items()}
    for part, module in states.items():
        if module is not None:
            tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    tensors["generator"] = generator.get_state()
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def unpack(
    tensors: Mapping[str, Tensor],
    scene: nn.Module,
    optimizer: Optimizer,
    states: Mapping[str, nn.Module | None],
    generator: torch.Generator,
) -> None:
    """Put a run back into the state that `pack` saw; the scene takes on the saved number of splats."""
    unpack_scene(tensors, scene)
    try:
        for part, module in states.items():
            if module is not None:
                module.load_state_dict(_under(f"{part}.", tensors))
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, _, name = key.partition(".")
            entries.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
        generator.set_state(tensors["generator"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint does not fit this configuration: {error}") from error


def unpack_scene(tensors: Mapping[str, Tensor], scene: nn.Module) -> None:
    """Put back the scene alone, for exports."""
    try:
        scene.load_state_dict(_under("scene.", tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit this configuration: {error}") from error


def save_checkpoint(folder: Path, checkpoint: Checkpoint, milestone_every: int = 0) -> Path:
    """Write into `folder`/step-N and drop all but the newest KEPT and the milestones, whose step is a multiple of
    `milestone_every` (0: there are none); OutputError where the disk refuses."""
    state = {name: getattr(checkpoint, name) for name in ("step", "seconds", "forwards", "rate", "stage")}
    contents = {TENSORS: save(dict(checkpoint.tensors)), STATE: json.dumps(state).encode()}
    final = folder / f"step-{checkpoint.step:06d}"
    with writing(final):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.saving"):  # of a process that was killed
            remove_tree(leftover)
        with tempfile.TemporaryDirectory(prefix=f".{final.name}.", suffix=".saving", dir=folder) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            for name, data in {**contents, MANIFEST: _manifest(contents)}.items():
                write_synced(new / name, data)
            sync_folder(new)
            if final.exists():
                os.replace(final, Path(scratch) / "old")
            os.replace(new, final)
            sync_folder(folder)
    for old in checkpoints_in(folder)[KEPT:]:
        if not (milestone_every and step_of(old) % milestone_every == 0):
            remove_tree(old)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; CheckpointError names the file that is missing or damaged."""
    contents = {name: _read(path / name) for name in (TENSORS, STATE, MANIFEST)}
    manifest = _read_json(path / MANIFEST, contents.pop(MANIFEST))
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or set(files) != {TENSORS, STATE}:
        raise CheckpointError(f"{path / MANIFEST} is damaged or of another version")
    if manifest != json.loads(_manifest(contents)):
        bad = [name for name, data in contents.items() if files[name] != _fingerprint(data)]
        raise CheckpointError(f"{path / (bad or [MANIFEST])[0]} is damaged: its checksum is not the one in {MANIFEST}")
    state = _read_json(path / STATE, contents[STATE])
    try:
        rate, stage = float(state.get("rate", 1.0)), int(state.get("stage", 0))  # older ones know neither
        step, forwards = int(state["step"]), int(state["forwards"])
        seconds = {str(part): float(spent) for part, spent in dict(state["seconds"]).items()}
        return Checkpoint(step, load(contents[TENSORS]), seconds, forwards, rate, stage)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {first_line(error)}") from error


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and why newer ones were passed over; None where none was ever saved."""
    problems: list[str] = []
    for path in checkpoints_in(folder):
        try:
            return load_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("; ".join(problems), hint="no whole checkpoint is left, start the run again")
    return None, problems


def load_step(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of one step; CheckpointError names those that there are."""
    there = {step_of(path): path for path in checkpoints_in(folder)}
    if step not in there:
        steps = ", ".join(map(str, sorted(there))) or "none"
        raise CheckpointError(f"{folder} has no checkpoint of step {step}", hint=f"there are: {steps}")
    return load_checkpoint(there[step])


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def stage_of(path: Path) -> int:
    """The stage of a checkpoint folder, read without its tensors; CheckpointError where it is missing or damaged."""
    stage = _read_json(path / STATE, _read(path / STATE)).get("stage", 0)
    if not isinstance(stage, int):
        raise CheckpointError(f"{path / STATE} is damaged: stage = {stage!r}")
    return stage


def step_of(path: Path) -> int:
    """The step of a checkpoint folder, from its name."""
    return int(path.name.removeprefix("step-"))


def _manifest(contents: Mapping[str, bytes]) -> bytes:
    files = {name: _fingerprint(data) for name, data in contents.items()}
    return json.dumps({"format": FORMAT, "files": files}, separators=(",", ":")).encode()


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _read_json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: not a JSON object")
    return value


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
