"""`sds3d compare`: runs for each guidance and seed, a table at the end."""

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

from ..arguments import folder_of, overrides_of, parse_settings, prior_option, split_names
from ..exit_codes import DONE, say_interrupted, say_note
from ..shared_options import Device, Events, Preset, Prior, Prompt, Scene, Steps
from ..terminal import show_table


def compare(
    prompt: Prompt,
    guidance: Annotated[str, Option(metavar="NAMES", help="guidances, commas between them")] = "sds,vsd,csd,nfsd,cfd",
    seeds: Annotated[int, Option(min=1, max=100, metavar="N", help="runs of each guidance, from --seed on")] = 1,
    seed: Annotated[int, Option(min=0, metavar="N", help="the first seed")] = 0,
    preset: Preset = None,
    steps: Steps = None,
    prior: Prior = None,
    scene: Scene = None,
    device: Device = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="any option; csd.negative_scale=1 is for csd alone")
    ] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="default: outputs/compare-PROMPT")] = None,
    as_json: Events = False,
) -> int:
    """Run several guidances on the same PROMPT, seeds and steps, and put the results side by side."""
    settings, names, out = parse_settings(assignments), split_names(guidance), folder_of(out)
    options = {"prompt": prompt, "prior": prior_option(prior), "scene": scene, "steps": steps, "device": device}
    from rich.box import SIMPLE

    from sds3d import load_config
    from sds3d.guidance import GUIDANCE
    from sds3d.run.folder import run_name
    from sds3d.sweeps.comparison import COLUMNS, PAGE, SHEET, Comparison
    from sds3d.sweeps.pages import format_number

    from ..progress import follow_all

    if not names:
        raise BadParameter(f"no guidance is named; known: {', '.join(GUIDANCE)}")
    shared: dict[str, str] = {}
    own: dict[str, dict[str, str]] = {name: {} for name in names}  # settings that begin with a guidance's name
    for key, value in settings.items():
        name, _, option = key.partition(".")
        if name not in GUIDANCE:
            shared[key] = value
        elif name not in names:
            raise BadParameter(f"{key} is set, but {name} is not compared")
        else:
            own[name][f"guidance.{option}"] = value
    configs = []
    for name, number in itertools.product(names, range(seed, seed + seeds)):
        overrides = overrides_of({**options, "guidance": name, "seed": number}, shared)
        configs.append(load_config(None, preset, {**overrides, **own[name]}))
    folder = out or Path("outputs") / f"compare-{run_name(configs[0])}"
    comparison = Comparison(configs, folder)
    if not follow_all(comparison.runs, as_json):
        return say_interrupted(folder)
    rows = comparison.write()
    if as_json:
        print(json.dumps({"event": "Compared", "rows": [asdict(row) for row in rows], "out_dir": str(folder)}))
        return DONE
    table = [[row.guidance, *(format_number(getattr(row, name)) for name in COLUMNS)] for row in rows]
    show_table(["guidance", *COLUMNS.values()], table, SIMPLE)
    for row in rows:
        for reason in row.notes:
            say_note(f"{row.guidance}: {reason}")
    print(f"{folder / SHEET}\n{folder / PAGE}")
    return DONE
