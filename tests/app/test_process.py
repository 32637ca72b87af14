"""The command as the shell meets it: signals, full disks, closed pipes."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from sds3d_app.cli import invoke
from tests.app.shell import Command
from tests.reliability.children import ended, started
from tests.sizes import at_full_size

pytestmark = pytest.mark.xdist_group("children")


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix in {".tmp", ".saving"}]


def events(command: Command) -> list[dict[str, Any]]:
    """What `--json` has said so far."""
    text = command.out.read_text() if command.out.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    arguments = ["generate", "a red ball", "--config", str(small_file), "--steps", "100000"]
    process = Command(tmp_path, *arguments, "--set", "checkpoint_every=100000", "--out", str(out), "--json")
    while not (seen := [event for event in events(process) if event["event"] == "StepDone"]):
        assert process.process.exitcode is None, process.err.read_text()
        time.sleep(0.02)
    process.send(number)
    assert process.wait() == 75
    said = process.err.read_text().splitlines()
    assert said[-1] == f"interrupted and saved; to go on: sds3d resume '{out}'"
    *_, saved, last = events(process)
    assert saved["event"] == "CheckpointSaved"
    assert saved["step"] >= seen[-1]["step"]
    assert last == {"event": "Finished", "report": {}, "interrupted": True}
    assert Path(saved["path"]).is_dir()
    assert leftovers(out) == []
    assert not (out / "sheet.png").exists()
    if number == signal.SIGTERM:
        finish(out, saved["step"])


def finish(out: Path, step: int) -> None:
    """Resuming takes up the run at `step`; two steps later it is complete."""
    for name in ("config.json", "resolved.json"):
        config = json.loads((out / name).read_text())
        (out / name).write_text(json.dumps({**config, "steps": step + 2}))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert invoke(["resume", str(out), "--json"]) == 0
    assert json.loads(said.getvalue().splitlines()[0])["step"] == step
    assert (out / "sheet.png").is_file()


def test_a_full_disk_is_one_line_and_1_and_leaves_no_halves(small_file: Path, tmp_path: Path) -> None:
    """The limit is above the config and below a checkpoint."""
    out = tmp_path / "run"
    arguments = ["generate", "a red ball", "--config", str(small_file), "--out", str(out), "--quiet"]
    process = Command(tmp_path, *arguments, most_bytes=16_000)
    assert process.wait() == 1
    assert process.out.read_text() == ""
    stderr = process.err.read_text()
    assert stderr.startswith(f"error: cannot write {out}")
    assert stderr.count("\n") == 1
    assert leftovers(out) == []
    assert not list((out / "checkpoints").iterdir())


def exit_with_the_compiler() -> None:
    sys.exit(int("torch._dynamo" in sys.modules))


def test_a_run_does_not_load_torchs_compiler() -> None:
    """Two seconds, before the first step. The process that all of them are copies of has made a run."""
    assert ended(started(exit_with_the_compiler)) == 0


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/sys/kernel").is_dir(), reason="root may write everywhere here")
def test_a_read_only_folder_is_one_line_and_1(small_file: Path, tmp_path: Path, capsys) -> None:
    """Root is stopped by no mode, but on Linux by /sys, where nobody makes folders."""
    (tmp_path / "mine").mkdir(0o500)
    out = (Path("/sys") if os.geteuid() == 0 else tmp_path / "mine") / "run"
    assert invoke(["generate", "a red ball", "--config", str(small_file), "--out", str(out)]) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"error: cannot write {out}")
    assert stderr.count("\n") == 1
    assert not out.exists()


PRINTED = 'generate "$PROMPT" --prior analytic --print-config'


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which `sds3d` is the command."""
    script = f'sds3d() {{ {sys.executable} -m sds3d_app "$@"; }}; {line}'
    set_ = {**os.environ, "PROMPT": "a red ball", **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, stdin=subprocess.DEVNULL, env=set_, check=False)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"sds3d {PRINTED} | head -c1 >/dev/null; exit ${{PIPESTATUS[0]}}", 0, b""),
        (f"sds3d {PRINTED} >&-", 0, b""),
        (f"sds3d {PRINTED} >/dev/full", 1, b"error: cannot write to stdout: No space left on device\n"),
        (f"sds3d {PRINTED} 2>&- | wc -l >/dev/null; exit ${{PIPESTATUS[0]}}", 0, b""),
        ("sds3d info nowhere 2>/dev/full", 2, b""),
        ("sds3d info nowhere 2>&-", 2, b""),
    ],
)
def test_closed_and_full_outputs_change_no_exit_code_but_where_results_are_lost(
    line: str, code: int, said: bytes
) -> None:
    done = shell(line)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", said)


ODD_NAMES = [("ascii", "\N{DUCK}-mug"), ("latin-1", "кружка"), ("utf-8", "mug-\udcff")]


@pytest.mark.parametrize(("encoding", "name"), ODD_NAMES)
def test_names_that_cannot_be_printed_are_escaped(encoding: str, name: str, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    line = 'sds3d generate "$PROMPT" --config "$FILE" --steps 2 --quiet --dry-run --out "$OUT"'
    done = shell(line, FILE=str(small_file), OUT=str(out), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).strip() == str(out).encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("locale", ["C", pytest.param("POSIX", marks=at_full_size)])
def test_files_are_utf_8_whatever_the_locale_is(locale: str, tmp_path: Path) -> None:
    prompt, out, jobs = "a red ball für Zoë \N{DUCK}", tmp_path / "run", tmp_path / "list.txt"
    own = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LIST": str(jobs), "OUT": str(out)}
    line = (
        'sds3d generate "$PROMPT" --prior analytic --scene image --set cameras.size=16 --steps 2 --out "$OUT" --quiet'
    )
    done = shell(line, **{**own, "PROMPT": prompt})
    assert done.returncode == 0, done.stderr
    for name in ("config.json", "resolved.json", "report.json"):
        assert json.loads((out / name).read_text("utf-8"))["prompt"] == prompt, name
    jobs.write_text(f"{prompt}\n", "utf-8")
    done = shell('sds3d batch "$LIST" --out "$OUT-batch" --dry-run', **own)
    assert done.returncode == 0, done.stderr
    assert b"Zo\\xeb" in done.stdout, "shown with the letters that there are"


def in_terminal(line: str, columns: int, **environment: str) -> tuple[int, str]:
    """A line of bash with a terminal of that width for stdin, stdout and stderr: (exit code, what it showed)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    script = f'sds3d() {{ {sys.executable} -m sds3d_app "$@"; }}; {line}'
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # of this terminal
    set_ = {**own, "TERM": "xterm", "PROMPT": "a red [ball]", **environment}
    process = subprocess.Popen(["bash", "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env=set_)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while data := os.read(ours, 1 << 16):
            shown += data
    os.close(ours)
    return process.wait(), shown.decode(errors="replace").replace("\r\n", "\n")


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
FLAT = "--prior analytic --scene image --set cameras.size=16 --set preview_every=0 --steps 9"


@pytest.mark.parametrize(
    ("columns", "environment"),
    [
        (20, {}),
        pytest.param(20, {"TERM": "dumb", "PYTHONIOENCODING": "ascii"}, marks=at_full_size),
        pytest.param(100, {}, marks=at_full_size),
    ],
)
def test_a_run_in_any_terminal_is_told_line_by_line(columns: int, environment: dict[str, str], tmp_path: Path) -> None:
    code, shown = in_terminal(
        f'sds3d generate "$PROMPT" {FLAT} --out "$OUT"', columns, OUT=str(tmp_path), **environment
    )
    assert code == 0, shown
    assert "9/9" in shown
    assert "image.png" in shown
    assert ("\x1b" in shown) == ("TERM" not in environment), shown
    if columns == 20:
        frames = [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", shown)) if "/9" in line]
        assert all(re.match(r"\s*(step )?\d+/9", line) for line in frames if "into" not in line), frames
    assert (tmp_path / "report.json").is_file()


@at_full_size
def test_a_narrow_terminal_gets_lines_for_tables_and_panels() -> None:
    code, shown = in_terminal("sds3d priors list; sds3d generate --help", 20)
    assert code == 0
    assert "\n  licence: Apache-2.0 (gated)\n" in shown
    assert "more steps" in shown
    assert "\u2502" not in shown


@at_full_size
@pytest.mark.parametrize(
    "ending", ["2>/dev/full | head -1 >/dev/null; exit ${PIPESTATUS[0]}", "2>&-", "2>/dev/full", "2>&- >&-"]
)
def test_a_run_goes_on_whatever_becomes_of_its_output(ending: str, tmp_path: Path) -> None:
    done = shell(f'sds3d generate "$PROMPT" {FLAT} --json --out "$OUT" {ending}', OUT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.json").is_file()
