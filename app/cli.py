"""The command sds3d: options -> RunConfig -> Session.

The commands import the library when they are called: torch takes a second, and --help need not wait for it.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .arguments import (
    config_text,
    overrides_of,
    parse_settings,
    prior_option,
    refuse_together,
    require,
    split_names,
    take_switches,
)
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

PARTS, OUTPUT = "Parts of the run", "How it runs, and what is printed"  # panels of generate --help

Prompt = Annotated[str, Argument(metavar="PROMPT", help="what to make, in one pair of quotes")]
Run = Annotated[Path, Argument(metavar="RUN", help="a run folder, such as outputs/a-red-mug-0")]
Preset = Annotated[str | None, Option(metavar="NAME", help="draft, default or fine")]
Device = Annotated[str | None, Option(metavar="NAME", help="auto, cpu, cuda or cuda:N", rich_help_panel=PARTS)]
Quiet = Annotated[bool, Option("--quiet", "-q", help="print only the run folder, and warnings", rich_help_panel=OUTPUT)]
AsJson = Annotated[bool, Option("--json", help="print one JSON object a line for each event", rich_help_panel=OUTPUT)]


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
    """`take_switches` removes the three switches before Typer reads the line; they are here for --help."""


@app.command()
def generate(
    prompt: Prompt,
    settings: Annotated[list[str] | None, Argument(metavar="KEY=VALUE", help="the same as --set")] = None,
    preset: Preset = None,
    steps: Annotated[int | None, Option(metavar="N", help="more steps, better object")] = None,
    seed: Annotated[int | None, Option(metavar="N", help="the same seed gives the same object")] = None,
    negative_prompt: Annotated[str | None, Option(metavar="TEXT", help="what it should not look like")] = None,
    image: Annotated[
        Path | None, Option(metavar="FILE", help="a cut-out picture that the object's front has to match")
    ] = None,
    config_file: Annotated[
        Path | None, Option("--config", metavar="FILE", help="options as JSON, such as a run's config.json")
    ] = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="any option: guidance.guidance_scale=20")
    ] = None,
    prior: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="embedded, analytic, diffusers, multiview, zero123; a folder or id",
            rich_help_panel=PARTS,
        ),
    ] = None,
    guidance: Annotated[
        str | None,
        Option(metavar="NAME", help="sds, sjc, csd, nfsd, ssd, ism, sdi, vsd or cfd", rich_help_panel=PARTS),
    ] = None,
    scene: Annotated[
        str | None, Option(metavar="NAME", help="gaussians, nerf, mesh, or image (flat)", rich_help_panel=PARTS)
    ] = None,
    rasterizer: Annotated[
        str | None, Option(metavar="NAME", help="of splats: auto, native, gsplat (CUDA), torch", rich_help_panel=PARTS)
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="run folder; default outputs/PROMPT-SEED", rich_help_panel=OUTPUT)
    ] = None,
    best_of: Annotated[
        int | None,
        Option(min=2, max=64, metavar="N", help="begin N seeds, finish the best", rich_help_panel=OUTPUT),
    ] = None,
    until: Annotated[
        int | None,
        Option(min=1, metavar="STEP", help="with --best-of: where the best is chosen", rich_help_panel=OUTPUT),
    ] = None,
    print_config: Annotated[
        bool,
        Option("--print-config", help="print each option and who set it; --json for --config", rich_help_panel=OUTPUT),
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="check everything, write nothing", rich_help_panel=OUTPUT)
    ] = False,
    strict: Annotated[
        bool, Option("--strict", help="refuse words that the prior does not know", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Make a 3D object from PROMPT."""
    runs = {"--best-of": best_of, "--out": out, "--dry-run": dry_run, "--strict": strict, "--quiet": quiet}
    refuse_together("--print-config", print_config, runs)
    refuse_together("--json", as_json, {"--quiet": quiet})
    require("--best-of", best_of is not None, {"--until": until})
    options = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "prior": prior_option(prior),
        "reference_image.path": None if image is None else str(image),
        "guidance": guidance,
        "scene": scene,
        "steps": steps,
        "seed": seed,
        "device": device,
        "scene.rasterizer": rasterizer,
    }
    overrides = overrides_of(options, parse_settings([*(assignments or []), *(settings or [])]))
    from sds3d.config import load_config, printable

    from .commands import generate as command

    config = load_config(config_file, preset, overrides)
    if print_config:
        print(json.dumps(printable(config), indent=2) if as_json else config_text(config))
        return DONE
    if best_of is not None:
        return command.start_best(config, best_of, until, out, strict, dry_run, quiet, as_json)
    return command.start(config, out, strict, dry_run, quiet, as_json)


@app.command()
def evaluate(
    runs: Annotated[list[Path] | None, Argument(metavar="RUN", help="finished run folders")] = None,
    suite: Annotated[
        str | None, Option(metavar="NAME", help="run a suite of prompts first: quick, standard or seen")
    ] = None,
    guidance: Annotated[str | None, Option(metavar="NAMES", help="with --suite: sds (default) or sds,vsd,...")] = None,
    scene: Annotated[
        str | None, Option(metavar="NAMES", help="with --suite: gaussians (default) or gaussians,nerf")
    ] = None,
    seeds: Annotated[
        int | None, Option(min=1, max=100, metavar="N", help="with --suite: runs of each (default 1)")
    ] = None,
    preset: Annotated[str | None, Option(metavar="NAME", help="with --suite: draft, default or fine")] = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="with --suite: any option of the runs")
    ] = None,
    clip: Annotated[Path | None, Option(metavar="DIR", help="a CLIP model's folder, for its score as well")] = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="where the page goes; with --suite: outputs/suite-NAME")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print one JSON object a line for each event")] = False,
) -> int:
    """Score finished RUNs, or a suite of prompts, against the true objects of the procedural world."""
    if bool(runs) == bool(suite):
        raise typer.BadParameter("say either RUN folders or --suite NAME")
    of_the_suite = {"--guidance": guidance, "--scene": scene, "--seeds": seeds, "--preset": preset}
    require("--suite", suite is not None, {**of_the_suite, "--set": assignments})
    settings = parse_settings(assignments or [])
    from .commands.evaluate import evaluate_runs, evaluate_suite, suite_configs

    if suite is None:
        return evaluate_runs(runs or [], out, clip, as_json)
    names, scenes = split_names(guidance or "sds"), split_names(scene or "gaussians")
    configs = suite_configs(suite, names, scenes, range(seeds or 1), preset, settings)
    return evaluate_suite(suite, configs, out, clip, as_json)


@app.command()
def compare(
    prompt: Prompt,
    guidance: Annotated[
        str, Option(metavar="NAMES", help="guidances, with commas between them")
    ] = "sds,vsd,csd,nfsd,cfd",
    seeds: Annotated[int, Option(min=1, max=100, metavar="N", help="runs of each guidance, from --seed on")] = 1,
    seed: Annotated[int, Option(min=0, metavar="N", help="the first seed")] = 0,
    preset: Preset = None,
    steps: Annotated[int | None, Option(metavar="N", help="steps of each run")] = None,
    prior: Annotated[str | None, Option(metavar="NAME", help="as for generate")] = None,
    scene: Annotated[str | None, Option(metavar="NAME", help="as for generate")] = None,
    device: Annotated[str | None, Option(metavar="NAME", help="auto, cpu, cuda or cuda:N")] = None,
    assignments: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="any option; csd.negative_scale=1 is for csd alone"),
    ] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="default: outputs/compare-PROMPT")] = None,
    as_json: Annotated[bool, Option("--json", help="print one JSON object a line for each event")] = False,
) -> int:
    """Run several guidances on the same PROMPT, seeds and steps, and put the results side by side."""
    options = {"prompt": prompt, "prior": prior_option(prior), "scene": scene, "steps": steps, "device": device}
    settings = parse_settings(assignments or [])
    overrides_of({**options, "guidance": guidance, "seed": seed}, settings)
    from .commands.compare import compare_guidances, configs_for

    configs = configs_for(split_names(guidance), range(seed, seed + seeds), preset, options, settings)
    return compare_guidances(configs, out, as_json)


@app.command()
def resume(run: Run, quiet: Quiet = False, as_json: AsJson = False) -> int:
    """Go on with a run that was interrupted."""
    refuse_together("--json", as_json, {"--quiet": quiet})
    from .commands.generate import go_on

    return go_on(run, quiet=quiet, as_json=as_json)


@app.command()
def render(
    run: Run,
    size: Annotated[int, Option(min=16, max=2048, metavar="N", help="side of each view in pixels")] = 256,
    views: Annotated[int, Option(min=1, max=64, metavar="N", help="views on the sheet")] = 8,
) -> int:
    """Draw a run's sheet and orbit again."""
    from .commands.generate import render_again

    return render_again(run, size, views)


@app.command()
def export(
    run: Run,
    formats: Annotated[
        str, Option("--format", metavar="FORMATS", help="glb, gltf, obj, ply, stl, usdz, ...; commas between them")
    ] = "glb",
    faces: Annotated[int | None, Option(metavar="N", help="triangles, at most about this many")] = None,
    texture_size: Annotated[int | None, Option(metavar="N", help="longest side of the texture, in texels")] = None,
    resolution: Annotated[int | None, Option(metavar="N", help="grid cells along the longest side")] = None,
    level: Annotated[float | None, Option(metavar="X", help="density of the surface; default: the best found")] = None,
    color: Annotated[str | None, Option(metavar="KIND", help="texture or vertex")] = None,
    step: Annotated[int | None, Option(metavar="N", help="the checkpoint to export from; default: the newest")] = None,
    particle: Annotated[int, Option(min=1, metavar="N", help="which scene of a run with several particles")] = 1,
    force: Annotated[bool, Option("--force", help="replace files that sds3d did not write")] = False,
) -> int:
    """Write a run's mesh, splats or pictures again, in other formats or sizes, and check what was written."""
    options = {"faces": faces, "texture_size": texture_size, "resolution": resolution, "level": level, "color": color}
    from .commands.export import export_again

    given = {key: value for key, value in options.items() if value is not None}
    return export_again(run, split_names(formats), particle, step, given, force)


@app.command()
def info(
    file: Annotated[Path, Argument(metavar="FILE", help="a mesh or splats")],
    as_json: Annotated[bool, Option("--json", help="print one JSON object")] = False,
) -> int:
    """Print how FILE was made."""
    from .commands.export import print_info

    return print_info(file, as_json)


@app.command()
def doctor(
    prior: Annotated[str | None, Option(metavar="MODEL", help="measure what a step with this model needs here")] = None,
    device: Annotated[
        str | None, Option(metavar="NAME", help="for --prior: auto (default), cpu, cuda or cuda:N")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print one JSON object")] = False,
) -> int:
    """Print what is installed, built and found here, and how to mend what is not."""
    require("--prior", prior is not None, {"--device": device})
    if prior is not None:
        return priors.plan(prior, device or "auto", as_json)
    from .commands.doctor import all_checks, is_ready, report, show

    checks = all_checks()
    if as_json:
        print(json.dumps(report(checks), indent=2))
    else:
        show(checks)
    return DONE if is_ready(checks) else FAILED
