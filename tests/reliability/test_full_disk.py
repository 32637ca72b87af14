"""R4: the disk may be full at any write of any command. Then there is one line and exit code 1, all files are the old
ones or the new ones, and the same command, once there is room, ends as if nothing had happened."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sds3d.run.checkpoint import load_checkpoint
from sds3d.run.folder import RunFolder
from tests.reliability.full_disk import Done, FullDisk
from tests.sizes import FULL

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make the full disk with")

OPTIONS = {
    "prior": {"name": "analytic", "size": 24},
    "cameras": {"views": 2, "size": 24},
    "scene": {"count": 150, "densify": {"refine_every": 3}},
    "export": {"resolution": 32, "faces": 500, "color_size": 64, "texture_size": 64},
    "loss_weights": {"sparsity": 50.0},
    "steps": 24,
    "preview_every": 12,
    "checkpoint_every": 12,
}
TIMES = {"seconds", "added", "ended", "peak_memory_bytes", "attempts", "seconds_per_step"}
LOG, LOCK = "events.jsonl", "run.lock"
MANY = 200  # writes
COUNTING = ("index.html", "summary.json", "report.json", "compare.json")  # of so many as there are yet


class Case(NamedTuple):
    """A command, and what is there before it."""

    arguments: str
    before: tuple[str, ...] = ()
    stopped_at: int | None = None  # a step: the run before it was interrupted there
    tries: int = 3  # in `make test`; 0: it is not tried there


CASES = {
    "generate": Case("generate,a red ball,--config,{options},--out,{work}/run,--quiet"),
    "resume": Case("resume,{work}/run,--quiet", ("generate",), 12, tries=2),
    "export": Case("export,{work}/run,--format,obj ply,--faces,200", ("generate", "export-old"), tries=2),
    "video": Case("export,{work}/run,--format,orbit", ("generate",), tries=2),
    "package": Case("export,{work}/run,--format,usdz", ("generate",), tries=0),
    "batch": Case("batch,{list},--config,{options},--out,{work}/batch"),
    "render": Case("render,{work}/run,--views,4,--size,32", ("generate",), tries=2),
    "best-of": Case("generate,a red ball,--config,{options},--out,{work}/best,--best-of,2,--quiet", tries=0),
    "compare": Case("compare,a red ball,--guidance,sds csd,--out,{work}/compared,{settings}", tries=0),
}
SETTINGS = "--prior,analytic,--steps,24,--set,prior.size=24,--set,cameras.size=24,--set,scene.count=150"
EARLIER = {"export-old": Case("export,{work}/run,--format,obj")}
TOGETHER = [["mesh.obj", "mesh.mtl", "mesh_color.png"]]  # files that are of no use without each other


class Place:
    """Where commands work, on a disk that may be full."""

    def __init__(self, folder: Path) -> None:
        self.work, scratch = folder / "work", folder / "scratch"
        scratch.mkdir()
        self._kept, self.disk = folder / "kept", FullDisk(scratch, self.work)
        options, prompts = folder / "options.json", folder / "list.txt"
        options.write_text(json.dumps(OPTIONS))
        prompts.write_text("a red ball\na blue ball\na green ball\n")
        self._names = {"options": options, "list": prompts, "work": self.work}

    def run(self, name: str, at: int = 0, stays: bool = True) -> Done:
        words = (EARLIER | CASES)[name].arguments.replace("{settings}", SETTINGS).split(",")
        words = [word.format(**self._names).replace(" ", ",") if "ball" not in word else word for word in words]
        return self.disk.run(*words, at=at, stays=stays)

    def prepare(self, name: str) -> None:
        """What the command finds, always at the same place, because files may hold it."""
        kept = self._kept / name
        shutil.rmtree(self.work, ignore_errors=True)
        if not kept.exists():
            self.work.mkdir()
            for earlier in CASES[name].before:
                assert self.run(earlier).code == 0
            if (step := CASES[name].stopped_at) is not None:
                interrupt(self.work / "run", step)
            shutil.copytree(self.work, kept, symlinks=True)
            shutil.rmtree(self.work)
        shutil.copytree(kept, self.work, symlinks=True)


def interrupt(run: Path, step: int) -> None:
    """Make of a finished run one that was killed at a step."""
    for path in (*RunFolder(run).artifacts().values(), run / "report.json"):
        path.unlink()
    for newer in RunFolder(run).checkpoint_steps():
        if newer > step:
            shutil.rmtree(run / "checkpoints" / f"step-{newer:06d}")
            (run / "previews" / f"step-{newer:06d}.png").unlink(missing_ok=True)


def contents(folder: Path) -> dict[str, object]:
    """Every file by its path, without the time of day and what anything took."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.is_symlink() or path.name in (LOCK, LOG, "manifest.json") or "database/" in name:
            continue
        data: object = path.read_bytes()
        if path.suffix == ".json":
            data = timeless(json.loads(path.read_text()))
        elif path.suffix == ".html":
            data = path.read_text().endswith("</html>\n")
        elif path.suffix == ".usdz":
            with zipfile.ZipFile(path) as package:
                data = {part: package.read(part) for part in package.namelist()}
        found[name] = data
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, list):
        return [timeless(item) for item in value]
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return value


def check_failed(done: Done, before: dict[str, object], after: dict[str, object], work: Path) -> None:
    """One line; nothing but old files and new ones, and no halves."""
    assert done.code == 1, done
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: cannot write |error: (ffmpeg|usd-core) made no ", line), done
    assert str(work) in line, done
    found = contents(work)
    for name, data in found.items():
        assert not any(part.startswith(".") for part in Path(name).parts), (name, done)
        if "/checkpoints/" in name and name not in after:  # one that is replaced by later ones
            load_checkpoint((work / name).parent)
        elif not name.endswith(COUNTING):
            assert data in (before.get(name, after.get(name)), after.get(name)), (name, done)
    for names in TOGETHER:
        group = [f"run/{name}" for name in names if f"run/{name}" in before]
        assert len({found[name] == before[name] for name in group if before[name] != after[name]}) <= 1, done
    for log in work.rglob(LOG):
        for entry in log.read_bytes().splitlines():
            json.loads(entry)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("full"))
    yield made
    made.disk.end()


def moments(writes: int, tries: int | None) -> Iterator[tuple[int, bool]]:
    """(write that fails, whether all after it do) to try of a command that makes so many writes; None for every one."""
    if tries is None:  # one after the other where both for each would be the work of an hour
        kinds = [(True, False)] if writes < MANY else [(True,), (False,)]
        yield from ((at, stays) for at in range(1, writes + 1) for stays in kinds[at % len(kinds)])
    else:
        for index in range(tries):
            yield 1 + round(index * (writes - 1) / max(1, tries - 1)), index % 2 == 0


@pytest.mark.timeout(7200 if FULL else 600)  # the batch makes 400 writes; each costs seconds
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if FULL or case.tries])
def test_a_disk_that_is_full_at_any_write_costs_nothing_but_the_wait(name: str, place: Place) -> None:
    place.prepare(name)
    before = contents(place.work)
    undisturbed = place.run(name)
    assert undisturbed.code == 0, undisturbed
    after, failed = contents(place.work), 0
    for at, stays in moments(undisturbed.writes, None if FULL else CASES[name].tries):
        place.prepare(name)
        done = place.run(name, at, stays)
        if done.code != 0:
            failed += 1
            check_failed(done, before, after, place.work)
            if (
                name == "generate" and "sds3d resume" in done.err
            ):  # of a run that the same command would begin again, beside it
                assert place.run("resume").code == 0, done
                place.run(name)
                check_twin(place.work, after, done)
            else:
                again = place.run(name)
                assert again.code == 0, (done, again)
        assert contents(place.work) == after, done
    assert failed


def check_twin(work: Path, after: dict[str, object], done: Done) -> None:
    """run-2 is as the run, and is then forgotten."""
    twin = contents(work / "run-2")
    assert twin == {name.removeprefix("run/"): data for name, data in after.items()}, done
    shutil.rmtree(work / "run-2")
