"""Options and arguments that several commands have."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Part = partial(Option, rich_help_panel="Parts of the run")  # an option in a panel of --help
Output = partial(Option, rich_help_panel="How it runs, and what is printed")
PRIORS = "embedded, analytic, diffusers, multiview, zero123; a folder or id"

Prompt = Annotated[str, Argument(metavar="PROMPT", help="what to make, in one pair of quotes")]
Run = Annotated[Path, Argument(metavar="RUN", help="a run folder, such as outputs/a-red-mug-0")]
Preset = Annotated[str | None, Option(metavar="NAME", help="draft, default, fine or mesh")]
Recipe = Annotated[str | None, Option(metavar="NAME", help="a published method, see sds3d recipes list")]
ConfigFile = Annotated[Path | None, Option("--config", metavar="FILE", help="options as JSON, as a run's config.json")]
AnyOption = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="any option: cameras.size=48")]
Steps = Annotated[int | None, Option(metavar="N", help="more steps, better object")]
Prior = Annotated[str | None, Part(metavar="NAME", help=PRIORS)]
Scene = Annotated[str | None, Part(metavar="NAME", help="gaussians, nerf, mesh, image; else splats, then mesh")]
Device = Annotated[str | None, Part(metavar="NAME", help="auto, cpu, cuda or cuda:N")]
Seed = Annotated[int | None, Option(metavar="N", help="the same seed gives the same object")]
Negative = Annotated[str | None, Option("--negative-prompt", metavar="TEXT", help="what it should not look like")]
Image = Annotated[Path | None, Option(metavar="FILE", help="a cut-out picture that its front has to match")]
Settings = Annotated[list[str] | None, Argument(metavar="KEY=VALUE", help="the same as --set")]
Guidance = Annotated[str | None, Part(metavar="NAME", help="sds, sjc, csd, nfsd, ssd, ism, sdi, vsd or cfd")]
DryRun = Annotated[bool, Output("--dry-run", help="check everything, write nothing")]
Strict = Annotated[bool, Output("--strict", help="refuse words that the prior does not know")]
Quiet = Annotated[bool, Output("--quiet", "-q", help="print only the run folder, and warnings")]
Events = Annotated[bool, Output("--json", help="print one JSON object a line for each event")]
AsJson = Annotated[bool, Option("--json", help="print one JSON object")]
