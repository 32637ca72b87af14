"""`sds3d generate --best-of N`: the seeds one after the other, the ranking, and the best to its end."""

import json
import shlex
from pathlib import Path

from sds3d import RunConfig
from sds3d.evaluation.ranking import scorer_for
from sds3d.run.folder import RunFolder, run_name
from sds3d.sweeps.best_of import RANKING, BestOf

from ..exit_codes import DONE, INTERRUPTED, say_note, stopped_by_signals
from ..progress import choose_display, follow
from .generate import summary


def start_best(
    config: RunConfig, count: int, until: int | None, out: Path | None, strict: bool, quiet: bool, as_json: bool
) -> int:
    """N seeds to `until` (a quarter of the steps where none is said), then the best of them; the exit code."""
    folder = out or Path("outputs") / f"{run_name(config)}-best-of-{count}"
    best = BestOf(config, count, until or max(1, config.steps // 4), folder, scorer_for(config), strict)
    with stopped_by_signals(best.runs.stop):
        for path, events in best.stages():
            if not (quiet or as_json):
                ranked = (folder / RANKING).is_file()
                say_note(f"{path.name} {'is the best so far: to its end' if ranked else f'to step {best.until}'}")
            last = follow(events, choose_display(quiet, as_json))
            if last.interrupted and best.runs.stopped:
                say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
                return INTERRUPTED
    ranking = best.ranking()
    chosen = folder / ranking[0].folder
    if as_json:
        print(json.dumps({"ranking": [vars(row) for row in ranking], "best": str(chosen)}), flush=True)
        return DONE
    for row in ranking:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in row.scores.items())
        say_note(f"{row.folder}: {scores} at step {row.step}")
    print(chosen if quiet else summary(chosen, RunFolder(chosen).report() or {}))
    return DONE
