"""The command sds3d: options -> RunConfig -> Session. Each command is a function in commands/, its options with it.

The commands import the library when they are called: torch takes a second, and --help need not wait for it.
"""

import sys
from importlib import metadata
from typing import Annotated

import typer
from typer import Option

from .arguments import take_switches
from .commands import priors, recipes
from .commands.batch import batch
from .commands.compare import compare
from .commands.doctor import doctor
from .commands.evaluate import evaluate
from .commands.export import export, info
from .commands.generate import generate, render, resume
from .commands.texture import refine, texture
from .commands.ui import ui
from .exit_codes import FAILED, guarded, say_error
from .terminal import is_narrow, lost_output, use_steady_streams

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None if is_narrow() else "rich",  # panels have no room there
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a 3D object from a few words, by score distillation.",
)
for command in (generate, texture, refine, resume, render, export, info, compare, batch, evaluate, ui, doctor):
    app.command()(command)
app.add_typer(priors.app, name="priors")
app.add_typer(recipes.app, name="recipes")


def main() -> None:
    """The console script."""
    use_steady_streams()
    code = invoke(sys.argv[1:])
    problem = lost_output()
    sys.exit(code if problem is None else say_error(f"cannot write to stdout: {problem}", code or FAILED))


def invoke(arguments: list[str]) -> int:
    """One command; the exit code."""
    return guarded(lambda: app(take_switches(arguments), prog_name="sds3d", standalone_mode=False))


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"sds3d {metadata.version('sds3d')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, Option("--version", callback=print_version, is_eager=True, help="print the version and stop")
    ] = False,
    offline: Annotated[bool, Option("--offline", help="fetch nothing; the switches go anywhere on the line")] = False,
    allow_pickle: Annotated[bool, Option("--allow-pickle", help="load pickled weights, which can run code")] = False,
    debug: Annotated[bool, Option("--debug", help="show the traceback of an unexpected error")] = False,
) -> None:
    """`take_switches` removes the three switches before Typer reads the line; they are here for --help."""
