"""sds3d priors: which models are known, where they are, whether their files are complete, and downloading them."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from ..exit_codes import DONE, FAILED, say_note
from ..shared_options import AsJson
from ..terminal import show_table

if TYPE_CHECKING:
    from sds3d.config import RunConfig

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Models to distil from: list, show, check, pull.")

Model = Annotated[str, Argument(metavar="MODEL", help="a folder, or OWNER/NAME on the hub")]
Revision = Annotated[str, Option(help="commit, branch or tag on the hub; the pinned one if not given")]
GIB = 2**30


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the priors that ship, and models that are known to fit."""
    from sds3d.priors.hub.locate import cached
    from sds3d.priors.hub.model_list import MODELS

    rows = [{**entry.to_dict(), "here": cached(name) is not None} for name, entry in MODELS.items()]
    if as_json:
        print(json.dumps({"ships": ["embedded", "analytic"], "models": rows}, indent=2))
        return
    table = []
    for row in rows:
        size, licence = f"{2 * row['parameters']:.1f}", row["licence"] + (" (gated)" if row["gated"] else "")
        table.append([row["model"], row["family"], size, str(row["side"]), licence, "yes" if row["here"] else ""])
    show_table(["model", "family", "GB", "pixels", "licence", "here"], table)
    print("GB: of the network that denoises, in half precision. These ship: embedded (the default), analytic.")
    print("Any other model of these families fits too: --prior FOLDER or --prior OWNER/NAME.")


@app.command()
def show(model: Model, as_json: AsJson = False) -> None:
    """Show what is known of MODEL and how to distil from it."""
    from sds3d.config import read_recipe, recipe_names
    from sds3d.errors import ConfigError
    from sds3d.priors.hub.locate import cached
    from sds3d.priors.hub.model_list import MODELS

    entry = MODELS.get(model)
    if entry is None:
        raise ConfigError(f"{model} is not in the table", "see sds3d priors list; sds3d priors check takes any model")
    folder, settings = cached(model), [f"{key}={value}" for key, value in entry.options.items()]
    command = shlex.join(["sds3d", "generate", "a red mug", "--prior", model, *settings])
    recipes = [name for name in recipe_names() if read_recipe(name).run["prior.model"].value == model]
    if as_json:
        folder_name = str(folder) if folder else None
        row = {**entry.to_dict(), "folder": folder_name, "command": command, "recipes": recipes}
        print(json.dumps(row, indent=2))
        return
    print(f"{model}: {entry.family.name}, {entry.parameters:g} billion parameters, {entry.side} px")
    print(f"licence   {entry.licence}" + (f"; accept it at https://huggingface.co/{model}" if entry.gated else ""))
    mirror = f"; mirror {entry.mirror}" if entry.mirror else ""
    print(f"revision  {entry.revision or 'main (none is pinned)'}{mirror}")
    print(f"here      {folder or 'no: sds3d priors pull ' + model}")
    print(f"use       {command}")
    print(f"recipes   {', '.join(recipes) or 'none'}; sds3d recipes show NAME")


@app.command()
def check(
    model: Model,
    revision: Revision = "",
    load: Annotated[bool, Option("--load", help="also load it and run it once")] = False,
    device: Annotated[str, Option(help="for --load: cpu or cuda")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Check every file that MODEL needs, without loading or downloading any; with --load, load it and run it once."""
    from sds3d.priors.hub.locate import find_here

    local = find_here(model, revision)
    folder = local.folder
    row: dict[str, Any] = {
        "folder": str(folder),
        "revision": local.revision,
        "pipeline": local.pipeline,
        "family": local.family.name,
        "components": {name: ".".join(kind) for name, kind in local.components.items()},
        "bytes": sum(path.stat().st_size for name in local.components for path in (folder / name).iterdir()),
    }
    if load:
        row |= run_once(str(folder), device)
    if as_json:
        print(json.dumps(row, indent=2))
        return
    print(f"{row['folder']} ({row['revision']}): {row['pipeline']}, {row['bytes'] / GIB:.2f} GiB, complete")
    for name, kind in row["components"].items():
        print(f"  {name:18} {kind}")
    if load:
        print(f"loads and runs: {row['image_size']} px, latent {row['latent_shape']}, {row['dtype']}")


@app.command()
def pull(model: Model, revision: Revision = "", as_json: AsJson = False) -> None:
    """Download MODEL from the hub into the Hugging Face cache; files that are there already stay."""
    from sds3d.priors.hub.locate import find_model
    from sds3d.priors.hub.model_list import MODELS

    if Path(os.path.expanduser(model)).exists():
        say_note(f"{model} is a folder here: nothing to download")
    known = MODELS[model].revision if model in MODELS else ""
    local = find_model(model, revision or known)  # also where another revision is in the cache
    row = {"folder": str(local.folder), "revision": local.revision}
    print(json.dumps(row) if as_json else local.folder)


@contextmanager
def example_run(model: str, device: str) -> Iterator["RunConfig"]:
    """The config of a run with the model and its recommended options; a reference image that it needs is drawn."""
    from PIL import Image, ImageDraw

    from sds3d.config import load_config
    from sds3d.priors import PRIORS
    from sds3d.priors.hub.locate import prior_name_of
    from sds3d.priors.hub.model_list import MODELS

    name, options = prior_name_of(model), dict(MODELS[model].options) if model in MODELS else {}
    overrides = {"prompt": "a red mug", "device": device, **options, "prior": {"name": name, "model": model}}
    with TemporaryDirectory(prefix="sds3d-") as folder:
        if PRIORS[name].takes_reference_image:
            picture = Image.new("RGBA", (64, 64))
            ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), (200, 30, 30, 255))
            picture.save(Path(folder) / "picture.png")
            overrides["reference_image.path"] = f"{folder}/picture.png"
        yield load_config(overrides=overrides)


def run_once(model: str, device: str) -> dict[str, Any]:
    """Load a model and predict the noise of random views once; its sizes and precision."""
    import torch

    from sds3d.cameras import orbit
    from sds3d.errors import NumericsError
    from sds3d.types import ViewCondition

    with example_run(model, device) as config:
        prior: Any = config.prior.build(device)
    count = prior.family.group
    text = prior.embed(["a red mug"] * count)
    x_t = torch.randn(count, *prior.latent_shape, generator=torch.Generator().manual_seed(0)).to(text.device)
    view = ViewCondition(orbit(count, size=prior.image_size).to(text.device))
    (eps,) = prior.predict_noise(x_t, torch.full((count,), 0.5, device=text.device), [text], view)
    if not torch.isfinite(eps).all():
        raise NumericsError(f"{model} predicts numbers that are not finite", hint="try prior.dtype=float32")
    return {
        "image_size": prior.image_size,
        "latent_shape": list(prior.latent_shape),
        "dtype": str(prior.dtype).removeprefix("torch."),
    }


def plan(model: str, device: str, as_json: bool) -> int:
    """sds3d doctor --prior: the memory and time of a step with MODEL on this machine, measured."""
    from sds3d.training.memory import plan_memory
    from sds3d.training.session import Session

    with example_run(model, device) as config:
        session = Session(config)
        measured = plan_memory(config, session.prior(), session.device())  # type: ignore[arg-type]
    if as_json:
        print(json.dumps({"fits": measured.fits, **asdict(measured)}, indent=2))
        return DONE if measured.fits else FAILED
    free = "unknown" if measured.available is None else f"{measured.available / GIB:.2f} GiB"
    print(f"{model} on {session.device()}: {config.cameras.views} views of {config.cameras.size} px; {free} free")
    for probe in measured.probes:
        need = "not measured" if probe.fits else "out of memory"
        need = need if probe.peak is None else f"{probe.peak / GIB:.2f} GiB"
        print(f"{'fits' if probe.fits else 'too big':8} {need:>14}  {probe.seconds:6.2f} s  {probe.mode}")
    print("a run would use the last of these" if measured.fits else "no memory mode fits: use smaller or fewer views")
    return DONE if measured.fits else FAILED
