"""Exports of finished runs, and what files say of themselves, for the command line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sds3d.export import read_info
from sds3d.training.session import export_run

from ..exit_codes import DONE, say_note


def export_again(
    folder: Path,
    formats: Sequence[str],
    particle: int,
    step: int | None,
    options: Mapping[str, Any],
    force: bool,
) -> int:
    """Paths on stdout; what the check of each file found, and warnings, on stderr."""
    for written in export_run(folder, formats, particle, step, options, force):
        print(written.path, flush=True)
        if "faces" in written.stats:
            say_note(f"{written.path.name}: {describe_mesh(written.stats)}")
        for warning in written.stats.get("warnings", []):
            say_note(f"warning: {written.path.name}: {warning}")
    return DONE


def describe_mesh(stats: Mapping[str, Any]) -> str:
    """A mesh and its figures in one line."""
    pieces = "one piece" if stats["pieces"] == 1 else f"{stats['pieces']} pieces"
    sides = " x ".join(f"{side:.2f}" for side in stats["extent"])
    parts = [f"{stats['faces']} triangles", pieces, "closed" if stats["watertight"] else "not closed", sides]
    if "silhouette_iou" in stats:
        parts.append(f"outline {stats['silhouette_iou']:.3f}")
    if stats.get("psnr") is not None:
        parts.append(f"colours {stats['psnr']:.1f} dB")
    if stats.get("texture"):
        width, height = stats["texture"]
        parts.append(f"texture {width} x {height}, {100 * stats['texture_used']:.0f}% used")
    return ", ".join(parts)


def print_info(file: Path, as_json: bool) -> int:
    """What the file's own metadata says."""
    info = read_info(file)
    if as_json:
        print(json.dumps({"format": info.file_format, "counts": info.counts, "made": info.made}, indent=2))
        return DONE
    print(f"{file}: {info.file_format}" + "".join(f", {count} {name}" for name, count in info.counts.items()))
    if info.made is None:
        print("  it does not say how it was made")
    for key, value in (info.made or {}).items():
        text = " ".join(f"{name}={inner}" for name, inner in value.items()) if isinstance(value, dict) else value
        print(f"  {key:15} {text}".rstrip())
    return DONE
