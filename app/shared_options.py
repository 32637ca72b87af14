"""Options and arguments that several commands have."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

PartOption = partial(Option, rich_help_panel="Parts of the run")  # panels of generate --help
OutputOption = partial(Option, rich_help_panel="How it runs, and what is printed")
PRIORS = "embedded, analytic, diffusers, multiview, zero123; a folder or id"

Prompt = Annotated[str, Argument(metavar="PROMPT", help="what to make, in one pair of quotes")]
Run = Annotated[Path, Argument(metavar="RUN", help="a run folder, such as outputs/a-red-mug-0")]
Preset = Annotated[str | None, Option(metavar="NAME", help="draft, default or fine")]
Steps = Annotated[int | None, Option(metavar="N", help="more steps, better object")]
Prior = Annotated[str | None, PartOption(metavar="NAME", help=PRIORS)]
Scene = Annotated[str | None, PartOption(metavar="NAME", help="gaussians, nerf, or image (flat)")]
Device = Annotated[str | None, PartOption(metavar="NAME", help="auto, cpu, cuda or cuda:N")]
Quiet = Annotated[bool, OutputOption("--quiet", "-q", help="print only the run folder, and warnings")]
Events = Annotated[bool, OutputOption("--json", help="print one JSON object a line for each event")]
AsJson = Annotated[bool, Option("--json", help="print one JSON object")]
