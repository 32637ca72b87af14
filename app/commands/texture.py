"""`sds3d texture` and `sds3d refine`: runs that begin as a mesh that is there already."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from .. import shared_options as shared
from ..arguments import out_of, overrides_of, parse_settings, prior_option, refuse_together
from ..exit_codes import say_note
from ..shared_options import Output
from .generate import check_file, report_checks, run

if TYPE_CHECKING:
    from sds3d import RunConfig
    from sds3d.options import Schedule

STEPS = 250
# Of the embedded prior. At its usual times it paints the object that it has in mind, and leaves grey where that ends.
TEXTURE_TIMES = {"timesteps.t_min": 0.3, "timesteps.t_max": 0.9}
NEW_OBJECT = ("steps", "stages", "particles", "scene.source", "scene.geometry", "export.level", "export.resolution")
REFINE_T_MIN, REFINE_T_MAX = 0.02, 0.5  # higher times would make another object of it

File = Annotated[Path, Argument(metavar="FILE", help="a mesh: glb, gltf, obj, ply or stl")]
Words = Annotated[str, Argument(metavar="PROMPT", help="how it should look, in one pair of quotes")]
Up = Annotated[str | None, Option(metavar="AXIS", help="the file's axis that points up: x, y, z, -x, -y or -z")]
Front = Annotated[str | None, Option(metavar="AXIS", help="the file's axis that the front looks along")]
Out = Annotated[Path | None, Output(metavar="PATH", help="run folder, default outputs/PROMPT-SEED; or a file: mug.glb")]
DryRun = Annotated[bool, Output("--dry-run", help="only draw the mesh as it was read, and say what was found")]


def texture(
    file: File,
    prompt: Words,
    settings: shared.Settings = None,
    up: Up = None,
    front: Front = None,
    steps: shared.Steps = None,
    seed: shared.Seed = None,
    negative_prompt: shared.Negative = None,
    image: shared.Image = None,
    config_file: shared.ConfigFile = None,
    assignments: shared.AnyOption = None,
    prior: shared.Prior = None,
    guidance: shared.Guidance = None,
    device: shared.Device = None,
    out: Out = None,
    dry_run: DryRun = False,
    strict: shared.Strict = False,
    quiet: shared.Quiet = False,
    as_json: shared.Events = False,
) -> int:
    """Paint the mesh in FILE, its shape and UVs untouched: textured.glb is the same file with other base colours."""
    refuse_together("--json", as_json, {"--quiet": quiet})
    options: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt, "guidance": guidance}
    options |= {"steps": steps, "seed": seed, "device": device}
    given = _given(options, prior, image, [*(assignments or []), *(settings or [])])
    scene = {"geometry": "fixed", "path": file, "up": up, "front": front}
    return _run(texture_config(config_file, scene, given), out, dry_run, strict, quiet, as_json)


def refine(
    what: Annotated[Path, Argument(metavar="RUN|FILE", help="a finished run, or a mesh: glb, gltf, obj, ply or stl")],
    prompt: Annotated[
        str | None, Argument(metavar="PROMPT", help="what it is; of a run, the default is its own")
    ] = None,
    settings: shared.Settings = None,
    up: Up = None,
    front: Front = None,
    steps: shared.Steps = None,
    seed: shared.Seed = None,
    negative_prompt: shared.Negative = None,
    image: shared.Image = None,
    config_file: shared.ConfigFile = None,
    assignments: shared.AnyOption = None,
    prior: shared.Prior = None,
    guidance: shared.Guidance = None,
    device: shared.Device = None,
    out: Out = None,
    dry_run: DryRun = False,
    strict: shared.Strict = False,
    quiet: shared.Quiet = False,
    as_json: shared.Events = False,
) -> int:
    """Go on from the closed mesh of RUN or FILE, shape and colours: the result is a run with a mesh of its own."""
    refuse_together("--json", as_json, {"--quiet": quiet})
    file, begin = what, {}
    if what.is_dir():
        from sds3d import RunFolder
        from sds3d.errors import ConfigError

        folder = RunFolder(what)
        ran = folder.config()
        file, prompt = folder.artifact("glb"), prompt or ran.prompt
        if not file.is_file():
            raise ConfigError(f"{what} has no {file.name}", hint="finish the run, or sds3d export it")
        if config_file is None:
            begin = taken_over(ran)
    if prompt is None:
        raise BadParameter('say what it is, such as sds3d refine mug.glb "a red mug"')
    options: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt, "guidance": guidance}
    options |= {"steps": steps, "seed": seed, "device": device}
    given = _given(options, prior, image, [*(assignments or []), *(settings or [])])
    scene = {"geometry": "free", "path": file, "up": up, "front": front}
    return _run(refine_config(config_file, scene, {**begin, **given}), out, dry_run, strict, quiet, as_json)


def taken_over(ran: "RunConfig") -> dict[str, Any]:
    """What was said of a run and holds when its mesh is gone on from, by dotted key: not its steps, which were for a
    new object, nor what only a scene of another kind has."""
    from sds3d.config.layers import flatten

    left = {*NEW_OBJECT, *(() if ran.scene.name == "mesh" else ("scene", "loss_weights"))}
    said = flatten(ran.said)
    return {key: value for key, value in said.items() if not left & {key.split(".")[0], ".".join(key.split(".")[:2])}}


def _given(options: dict[str, Any], prior: str | None, image: Path | None, settings: list[str]) -> dict[str, Any]:
    """What the command line says of a run's options."""
    options |= {"prior": prior_option(prior), "reference_image.path": None if image is None else str(image)}
    return overrides_of(options, parse_settings(settings))


def texture_config(config_file: Path | None, scene: dict[str, Any], given: dict[str, Any]) -> "RunConfig":
    """Colours stay soft, unless a palette is said: of what the prior leaves undecided it would make hard patches."""
    given = {"scene.colors.palette": False, **given}
    config = _config(config_file, scene, given)
    if config.prior.name == "embedded" and not config.said.get("timesteps"):
        config = _config(config_file, scene, {**given, **TEXTURE_TIMES})
    return config


def refine_config(config_file: Path | None, scene: dict[str, Any], given: dict[str, Any]) -> "RunConfig":
    """Times are lower than those of a new object; an end that is said stays."""
    from sds3d.config import option

    config = _config(config_file, scene, given)
    times = {"t_min": REFINE_T_MIN, "t_max": _at_most(REFINE_T_MAX, option(config, "timesteps.t_max"))}
    said = config.said.get("timesteps", {})
    unsaid = {f"timesteps.{name}": value for name, value in times.items() if name not in said}
    return _config(config_file, scene, {**given, **unsaid})


def _at_most(limit: float, t_max: "float | Schedule") -> Any:
    """The upper end of the times, a number or a schedule, nowhere above the limit."""
    if isinstance(t_max, float):
        return min(t_max, limit)
    return {**t_max.model_dump(), "start": min(t_max.start, limit), "end": min(t_max.end, limit)}


def _config(config_file: Path | None, scene: dict[str, Any], given: dict[str, Any]) -> "RunConfig":
    from sds3d import load_config

    begin = {"stages": [], "scene.name": "mesh", "scene.geometry": scene["geometry"]}
    begin |= {f"scene.source.{key}": str(scene[key]) for key in ("path", "up", "front") if scene[key] is not None}
    config = load_config(config_file, None, {**begin, **given})
    return config if "steps" in config.said else load_config(config_file, None, {"steps": STEPS, **begin, **given})


def _run(config: "RunConfig", out: Path | None, dry_run: bool, strict: bool, quiet: bool, as_json: bool) -> int:
    from sds3d import Session

    out, file = out_of(out)
    if file is not None:
        check_file(file, config)
    session = Session(config, out, strict=strict)
    if not dry_run:
        return run(session, quiet, as_json, file)
    from sds3d.export.textured import draw_as_read, warnings_of
    from sds3d.scenes import MeshConfig

    picture = session.out_dir.with_name(f"{session.out_dir.name}-as-read.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    assert isinstance(config.scene, MeshConfig)
    assert config.scene.source is not None
    mesh = draw_as_read(config.scene.source, picture)
    if not as_json:
        for line in mesh.describe():
            say_note(line)
        for warning in warnings_of(mesh):
            say_note(f"warning: {warning}")
        print(picture)
    return report_checks(session, "", quiet, as_json)
