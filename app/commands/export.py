"""`sds3d export` and `sds3d info`: exports of finished runs, and what files say of themselves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

from ..arguments import out_of, refuse_together, split_names
from ..exit_codes import say_note
from ..shared_options import AsJson, Run


def export(
    folder: Run,
    formats: Annotated[
        str | None,
        Option("--format", metavar="FORMATS", help="glb, gltf, obj, ply, stl, usdz, ...; commas between them"),
    ] = None,
    out: Annotated[Path | None, Option(metavar="FILE", help="instead: one file, such as mug.usdz, anywhere")] = None,
    faces: Annotated[int | None, Option(metavar="N", help="triangles, at most about this many")] = None,
    texture_size: Annotated[int | None, Option(metavar="N", help="longest side of the texture, in texels")] = None,
    resolution: Annotated[int | None, Option(metavar="N", help="grid cells along the longest side")] = None,
    level: Annotated[float | None, Option(metavar="X", help="density of the surface; default: the best found")] = None,
    color: Annotated[str | None, Option(metavar="KIND", help="texture or vertex")] = None,
    size: Annotated[
        float | None,
        Option(metavar="X", help="the mesh's longest side: metres in glTF and USDZ, millimetres for slicers"),
    ] = None,
    pivot: Annotated[
        str | None, Option(metavar="PLACE", help="the mesh's origin: center, or base for its foot")
    ] = None,
    up: Annotated[str | None, Option(metavar="AXIS", help="up in splats, OBJ, PLY and STL: z, y or -y")] = None,
    step: Annotated[int | None, Option(metavar="N", help="the checkpoint to export from; default: the newest")] = None,
    particle: Annotated[int, Option(min=1, metavar="N", help="which scene of a run with several particles")] = 1,
    force: Annotated[bool, Option("--force", help="replace files that sds3d did not write")] = False,
) -> None:
    """Write a run's mesh, splats or pictures again, in other formats or sizes, and check what was written."""
    refuse_together("--out", out is not None, {"--format": formats})
    folder_part, file = out_of(out)
    if folder_part is not None:
        raise BadParameter(f"--out {out} is no name of a file that sds3d writes, such as mug.glb")
    from sds3d.training.session import export_run

    options = {"faces": faces, "texture_size": texture_size, "resolution": resolution, "level": level, "color": color}
    options |= {"size": size, "pivot": pivot, "up": up}
    given = {key: value for key, value in options.items() if value is not None}
    for written in export_run(folder, split_names(formats or "glb"), particle, step, given, force, file):
        print(written.path, flush=True)
        if "faces" in written.stats:
            say_note(f"{written.path.name}: {describe_mesh(written.stats)}")
        for warning in written.stats.get("warnings", []):
            say_note(f"warning: {written.path.name}: {warning}")


def describe_mesh(stats: Mapping[str, Any]) -> str:
    """A mesh and its figures in one line."""
    pieces = "one piece" if stats["pieces"] == 1 else f"{stats['pieces']} pieces"
    scale = stats.get("scale", 1.0)  # runs of older versions do not have it
    sides = [scale * side for side in stats["extent"]]
    digits = ".2f" if max(sides) >= 0.1 else ".3g"  # two digits, but of a miniature those that there are
    parts = [f"{stats['faces']} triangles", pieces, "closed" if stats["watertight"] else "not closed"]
    parts.append(" x ".join(f"{side:{digits}}" for side in sides))
    if stats.get("tunnels"):  # nor this
        parts.insert(2, "one tunnel" if stats["tunnels"] == 1 else f"{stats['tunnels']} tunnels")
    if "roughness" in stats:
        parts.append(f"rough by {stats['roughness']:.1f}\N{DEGREE SIGN}")
    if "silhouette_iou" in stats:
        parts.append(f"outline {stats['silhouette_iou']:.3f}")
    if stats.get("psnr") is not None:
        parts.append(f"colours {stats['psnr']:.1f} dB")
    if stats.get("texture"):
        width, height = stats["texture"]
        parts.append(f"texture {width} x {height}, {100 * stats['texture_used']:.0f}% used")
    if stats.get("normal_map"):
        parts.append(f"normal map of {stats['lost_deg']:.1f}\N{DEGREE SIGN}")
    return ", ".join(parts)


def info(file: Annotated[Path, Argument(metavar="FILE", help="a mesh or splats")], as_json: AsJson = False) -> None:
    """Print how FILE was made."""
    from sds3d.export.info import read_info

    found = read_info(file)
    if as_json:
        print(json.dumps({"format": found.file_format, "counts": found.counts, "made": found.made}, indent=2))
        return
    print(f"{file}: {found.file_format}" + "".join(f", {count} {name}" for name, count in found.counts.items()))
    if found.made is None:
        print("  it does not say how it was made")
    for key, value in (found.made or {}).items():
        text = " ".join(f"{name}={inner}" for name, inner in value.items()) if isinstance(value, dict) else value
        print(f"  {key:15} {text}".rstrip())
