"""sds3d priors: which models there are, where they are, whether they are whole, and fetching them."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ..exit_codes import DONE, FAILED, say_note

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Models to distil from: list, show, check, pull.")

Model = Annotated[str, Argument(metavar="MODEL", help="a folder, or OWNER/NAME on the hub")]
AsJson = Annotated[bool, Option("--json", help="one JSON object")]
Revision = Annotated[str, Option(help="commit, branch or tag on the hub; the pinned one if not given")]
GIB = 2**30


@app.command("list")
def list_models(as_json: AsJson = False) -> int:
    """List the priors that ship, and models that are known to fit."""
    from sds3d.priors.hub.locate import cached
    from sds3d.priors.hub.model_list import KNOWN

    rows = [{**asdict(known), "here": cached(name, known.revision) is not None} for name, known in KNOWN.items()]
    if as_json:
        print(json.dumps({"ships": ["embedded", "analytic"], "models": rows}, indent=2))
        return DONE
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "family", "GB", "pixels", "licence", "here", box=None, pad_edge=False)
    for row in rows:
        licence = row["licence"] + (" (gated)" if row["gated"] else "")
        here = "yes" if row["here"] else ""
        size = f"{2 * row['parameters']:.1f}"
        table.add_row(row["model"], row["family"], size, str(row["side"]), licence, here)
    Console(width=None if Console().is_terminal else 150).print(table)
    print("GB: of the network that denoises, in half precision. These ship: embedded (the default), analytic.")
    print("Any other model of these families works as well: --prior FOLDER or --prior OWNER/NAME.")
    return DONE


@app.command()
def show(model: Model, as_json: AsJson = False) -> int:
    """Say what is known of MODEL and how to distil from it."""
    from sds3d.errors import ConfigError
    from sds3d.priors.hub.locate import cached
    from sds3d.priors.hub.model_list import KNOWN

    known = KNOWN.get(model)
    if known is None:
        raise ConfigError(
            f"{model} is not in the table", hint="sds3d priors list; sds3d priors check looks at any model"
        )
    folder = cached(model, known.revision)
    row = {**asdict(known), "folder": str(folder) if folder else None, "command": command_for(model, known.options)}
    if as_json:
        print(json.dumps(row, indent=2))
        return DONE
    print(f"{model}: {known.family}, {known.parameters:g} billion parameters, {known.side} px")
    print(f"licence   {known.licence}" + (f"; accept it at https://huggingface.co/{model}" if known.gated else ""))
    print(
        f"revision  {known.revision or 'main (none is pinned)'}" + (f"; mirror {known.mirror}" if known.mirror else "")
    )
    print(f"here      {folder or 'no: sds3d priors pull ' + model}")
    print(f"use       {row['command']}")
    return DONE


@app.command()
def check(
    model: Model,
    revision: Revision = "",
    load: Annotated[bool, Option("--load", help="load it as well, and ask it once")] = False,
    device: Annotated[str, Option(help="for --load: cpu or cuda")] = "cpu",
    as_json: AsJson = False,
) -> int:
    """Look at every file that MODEL needs, without loading or fetching any; with --load, load and ask it."""
    from sds3d.priors.hub.locate import find_here

    found = find_here(model, revision)
    row: dict[str, Any] = {
        "folder": str(found.folder),
        "revision": found.revision,
        "pipeline": found.files.pipeline,
        "family": found.files.family.name,
        "components": {name: ".".join(kind) for name, kind in found.files.components.items()},
        "bytes": sum(
            path.stat().st_size for name in found.files.components for path in (found.folder / name).iterdir()
        ),
    }
    if load:
        row |= ask(str(found.folder), device)
    if as_json:
        print(json.dumps(row, indent=2))
        return DONE
    print(f"{row['folder']} ({row['revision']}): {row['pipeline']}, {row['bytes'] / GIB:.2f} GiB, whole")
    for name, kind in row["components"].items():
        print(f"  {name:18} {kind}")
    if load:
        print(f"loads and answers: {row['image_size']} px, latent {row['latent_shape']}, {row['dtype']}")
    return DONE


@app.command()
def pull(model: Model, revision: Revision = "", as_json: AsJson = False) -> int:
    """Fetch MODEL from the hub into the Hugging Face cache; what is there already stays."""
    from sds3d.priors.hub.locate import find_model

    if Path(model).expanduser().exists():
        say_note(f"{model} is a folder here: nothing to fetch")
    found = find_model(model, revision)
    row = {"folder": str(found.folder), "revision": found.revision}
    print(json.dumps(row) if as_json else f"{found.folder}")
    return DONE


def ask(model: str, device: str) -> dict[str, Any]:
    """Loads a model and asks it once about noise; what it is like."""
    import torch

    from sds3d.errors import NumericsError
    from sds3d.priors.hub.config import DiffusersConfig

    prior = DiffusersConfig(model=model).build(device)
    text = prior.embed(["a red mug"])
    x_t = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0)).to(text.device)
    (eps,) = prior.predict_noise(x_t, torch.tensor([0.5], device=text.device), [text])
    if not torch.isfinite(eps).all():
        raise NumericsError(f"{model} answers with numbers that are not finite", hint="try prior.dtype=float32")
    return {
        "image_size": prior.image_size,
        "latent_shape": list(prior.latent_shape),
        "dtype": str(prior.dtype).removeprefix("torch."),
    }


def command_for(model: str, options: Mapping[str, Any]) -> str:
    """A command that distils from the model with what is recommended for it."""
    said = [f"{key}={value}" for key, value in options.items()]
    return shlex.join(["sds3d", "generate", "a red mug", "--prior", model, *said])


def plan(model: str, device: str, as_json: bool) -> int:
    """sds3d doctor --prior: what a step with MODEL needs on this machine, by measuring it."""
    from sds3d.config.run_config import load_config
    from sds3d.priors.hub.model_list import KNOWN
    from sds3d.training.memory import plan_memory
    from sds3d.training.session import Session

    known = KNOWN.get(model)
    overrides = {"prompt": "a red mug", "device": device, **(known.options if known else {})}
    config = load_config(overrides={**overrides, "prior": {"name": "diffusers", "model": model}})
    session = Session(config)
    found = plan_memory(config, session.prior(), session.device())  # type: ignore[arg-type]
    if as_json:
        print(json.dumps({"fits": found.fits, **asdict(found)}, indent=2))
        return DONE if found.fits else FAILED
    free = "unknown" if found.available is None else f"{found.available / GIB:.2f} GiB"
    print(f"{model} on {session.device()}: {config.cameras.views} views of {config.cameras.size} px; {free} free")
    for probe in found.probes:
        need = "out of memory" if probe.peak is None and not probe.fits else _gib(probe.peak)
        print(f"{'fits' if probe.fits else 'too big':8} {need:>14}  {probe.seconds:6.2f} s  {probe.mode}")
    print("this is what a run would use" if found.fits else "no way of asking it fits: use smaller or fewer views")
    return DONE if found.fits else FAILED


def _gib(size: int | None) -> str:
    return "not measured" if size is None else f"{size / GIB:.2f} GiB"
