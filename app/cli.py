"""The command sds3d: options -> RunConfig -> Session.

The commands import the library when they are called: torch takes a second, and --help need not wait for it.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .arguments import config_text, parse_settings, part_of_prior, take_switches
from .commands import batch as batches
from .commands import priors
from .commands import ui as serving
from .exit_codes import DONE, FAILED, guarded

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a 3D object from a few words, by score distillation.",
)

app.add_typer(priors.app, name="priors")
app.command()(serving.ui)
app.command()(batches.batch)

Run = Annotated[Path, Argument(metavar="RUN", help="a run folder, such as outputs/a-red-mug-0")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="print nothing but the run folder (and warnings)")]
AsJson = Annotated[bool, Option("--json", help="one JSON object a line on stdout, for each thing that happens")]


def main() -> None:
    """The console script."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """One command; the exit code."""
    return guarded(lambda: app(take_switches(arguments), prog_name="sds3d", standalone_mode=False))


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"sds3d {version('sds3d')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, Option("--version", callback=print_version, is_eager=True, help="print the version and stop")
    ] = False,
    offline: Annotated[bool, Option("--offline", help="fetch nothing; with any command, anywhere on the line")] = False,
    allow_pickle: Annotated[
        bool, Option("--allow-pickle", help="load pickled model weights, which can run code; likewise anywhere")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="show the traceback of an unexpected error; likewise")] = False,
) -> None:
    """The three switches are taken from the line before Typer sees it; they stand here for --help."""


@app.command()
def generate(
    prompt: Annotated[str, Argument(help="what to make, in one pair of quotes")],
    settings: Annotated[list[str] | None, Argument(metavar="[KEY=VALUE]...", help="as --set")] = None,
    preset: Annotated[str | None, Option(help="draft, default or fine")] = None,
    steps: Annotated[int | None, Option(help="more steps, better object")] = None,
    seed: Annotated[int | None, Option(help="the same seed gives the same object")] = None,
    negative_prompt: Annotated[str | None, Option(help="what it should not look like")] = None,
    prior: Annotated[
        str | None, Option(help="embedded, analytic, or a model's folder or hub id (diffusers, multiview, zero123)")
    ] = None,
    image: Annotated[
        Path | None, Option(metavar="FILE", help="a picture of the object, cut out, which its front has to match")
    ] = None,
    guidance: Annotated[
        str | None, Option(help="how the prior pulls on the scene: sds, sjc, csd, nfsd, ssd, ism, sdi, vsd, cfd")
    ] = None,
    scene: Annotated[str | None, Option(help="what is optimized: gaussians, nerf, or image for a flat picture")] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N")] = None,
    rasterizer: Annotated[str | None, Option(help="what renders splats: auto, native, gsplat (CUDA) or torch")] = None,
    config_file: Annotated[Path | None, Option("--config", metavar="FILE", help="options as a JSON object")] = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="any option: guidance.guidance_scale=20")
    ] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="the run folder; outputs/PROMPT-SEED if not given")] = None,
    best_of: Annotated[
        int | None, Option(min=2, max=64, metavar="N", help="begin N seeds, judge them on the way, finish the best")
    ] = None,
    until: Annotated[
        int | None, Option(metavar="STEP", help="with --best-of: the step to judge at; a quarter of all if not given")
    ] = None,
    print_config: Annotated[
        bool, Option("--print-config", help="print every option, its value and who set it; with --json, for --config")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="check everything, make nothing")] = False,
    strict: Annotated[bool, Option("--strict", help="refuse a prompt with words the prior does not know")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Make a 3D object from PROMPT."""
    named = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "prior": part_of_prior(prior),
        "reference_image.path": None if image is None else str(image),
        "guidance": guidance,
        "scene": scene,
        "steps": steps,
        "seed": seed,
        "device": device,
        "scene.rasterizer": rasterizer,
    }
    given = {key: value for key, value in named.items() if value is not None}
    overrides = {**given, **parse_settings([*(assignments or []), *(settings or [])])}
    from sds3d.config import load_config, printable
    from sds3d.errors import ConfigError

    from .commands.generate import start

    config = load_config(config_file, preset, overrides)
    if print_config:
        print(json.dumps(printable(config), indent=2) if as_json else config_text(config))
        return DONE
    if until is not None and best_of is None:
        raise ConfigError("--until goes with --best-of")
    if best_of is not None and not dry_run:
        from .commands.best import start_best

        return start_best(config, best_of, until, out, quiet, as_json)
    return start(config, out, strict=strict, dry_run=dry_run, quiet=quiet, as_json=as_json)


@app.command()
def evaluate(
    runs: Annotated[list[Path] | None, Argument(metavar="[RUN]...", help="finished run folders")] = None,
    suite: Annotated[str | None, Option(help="run this suite of prompts first: quick, standard or seen")] = None,
    guidance: Annotated[str, Option(help="with --suite: guidances, with commas between them")] = "sds",
    scene: Annotated[str, Option(help="with --suite: scenes, with commas between them")] = "gaussians",
    seeds: Annotated[int, Option(min=1, max=100, help="with --suite: runs of each")] = 1,
    preset: Annotated[str | None, Option(help="with --suite: draft, default or fine")] = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="with --suite: any option of the runs")
    ] = None,
    clip: Annotated[
        Path | None, Option(metavar="DIR", help="a folder with a CLIP model, for its score as well")
    ] = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="where the page goes; default with --suite: outputs/suite-NAME")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Score finished RUNs, or a suite of prompts, against the true objects of the procedural world."""
    if bool(runs) == bool(suite):
        raise typer.BadParameter("say either RUN folders or --suite NAME")
    from .commands.evaluate import evaluate_runs, evaluate_suite, suite_configs

    if suite is None:
        return evaluate_runs(runs or [], out, clip, as_json)
    names, scenes = ([n.strip() for n in text.split(",") if n.strip()] for text in (guidance, scene))
    configs = suite_configs(suite, names, scenes, range(seeds), preset, parse_settings(assignments or []))
    return evaluate_suite(suite, configs, out, clip, as_json)


@app.command()
def compare(
    prompt: Annotated[str, Argument(help="what to make, in one pair of quotes")],
    guidance: Annotated[str, Option(help="guidances, with commas between them")] = "sds,vsd,csd,nfsd,cfd",
    seeds: Annotated[int, Option(min=1, max=100, help="runs of each guidance, from --seed on")] = 1,
    seed: Annotated[int, Option(min=0, help="the first seed")] = 0,
    preset: Annotated[str | None, Option(help="draft, default or fine")] = None,
    steps: Annotated[int | None, Option(help="steps of each run")] = None,
    prior: Annotated[str | None, Option(help="as for generate")] = None,
    scene: Annotated[str | None, Option(help="as for generate")] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N")] = None,
    assignments: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="any option; csd.negative_scale=1 is for csd alone"),
    ] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="default: outputs/compare-PROMPT")] = None,
    as_json: AsJson = False,
) -> int:
    """Run several guidances on the same PROMPT, seeds and steps, and put the results side by side."""
    named = {"prompt": prompt, "prior": part_of_prior(prior), "scene": scene, "steps": steps, "device": device}
    given = {key: value for key, value in named.items() if value is not None}
    from .commands.compare import compare_guidances, configs_for

    settings = parse_settings(assignments or [])
    names = [name.strip() for name in guidance.split(",") if name.strip()]
    configs = configs_for(names, range(seed, seed + seeds), preset, given, settings)
    return compare_guidances(configs, out, as_json)


@app.command()
def resume(run: Run, quiet: Quiet = False, as_json: AsJson = False) -> int:
    """Go on with a run that was interrupted."""
    from .commands.generate import go_on

    return go_on(run, quiet=quiet, as_json=as_json)


@app.command()
def render(
    run: Run,
    size: Annotated[int, Option(min=16, max=2048, help="side of each view in pixels")] = 256,
    views: Annotated[int, Option(min=1, max=64, help="views on the sheet")] = 8,
) -> int:
    """Draw a run's sheet and orbit again."""
    from .commands.generate import render_again

    return render_again(run, size, views)


@app.command()
def export(
    run: Run,
    formats: Annotated[
        str, Option("--format", metavar="FORMATS", help="with commas between them: glb, gltf, obj, ply, stl, usdz, ...")
    ] = "glb",
    faces: Annotated[int | None, Option(help="triangles, at most about this many")] = None,
    texture_size: Annotated[int | None, Option(help="longest side of the texture, in texels")] = None,
    resolution: Annotated[int | None, Option(help="grid cells along the longest side")] = None,
    level: Annotated[float | None, Option(help="density of the surface; the best one is found if not given")] = None,
    color: Annotated[str | None, Option(help="texture or vertex")] = None,
    step: Annotated[int | None, Option(help="the checkpoint to export from; the newest if not given")] = None,
    particle: Annotated[int, Option(min=1, help="which scene of a run with several particles")] = 1,
    force: Annotated[bool, Option("--force", help="replace files that sds3d did not write")] = False,
) -> int:
    """Write a run's mesh, splats or pictures again, in other formats or sizes, and check what was written."""
    named = {"faces": faces, "texture_size": texture_size, "resolution": resolution, "level": level, "color": color}
    from .commands.export import export_again

    names = [name.strip() for name in formats.split(",") if name.strip()]
    given = {key: value for key, value in named.items() if value is not None}
    return export_again(run, names, particle, step, given, force)


@app.command()
def info(
    file: Annotated[Path, Argument(metavar="FILE", help="a mesh or splats")],
    as_json: Annotated[bool, Option("--json", help="one JSON object")] = False,
) -> int:
    """Say how a FILE was made."""
    from .commands.export import say_info

    return say_info(file, as_json)


@app.command()
def doctor(
    prior: Annotated[str | None, Option(metavar="MODEL", help="measure what a step with this model needs here")] = None,
    device: Annotated[str, Option(help="for --prior: auto, cpu, cuda or cuda:N")] = "auto",
    as_json: Annotated[bool, Option("--json", help="one JSON object")] = False,
) -> int:
    """Say what is installed, built and found here, and how to mend what is not."""
    if prior is not None:
        return priors.plan(prior, device, as_json)
    from .commands.doctor import all_checks, is_ready, report, show

    checks = all_checks()
    if as_json:
        print(json.dumps(report(checks), indent=2))
    else:
        show(checks)
    return DONE if is_ready(checks) else FAILED
