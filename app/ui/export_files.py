"""Files that are made of a run when somebody asks: other formats of its mesh, in a process of their own."""

import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from sds3d.errors import ConfigError
from sds3d.run.artifacts import ARTIFACTS, artifacts_of

from .run_index import Work

LONGEST = 300.0  # seconds for an export
MODELS_KEPT = 24


def made_names(work: Work) -> list[str]:
    """Names of the files that a run's scene can be written as; a format may come with further files."""
    return [ARTIFACTS[name].file_name for name in artifacts_of(work.config)]


def formats_of(work: Work | None) -> list[str]:
    """What can be asked for: meshes, splats, video."""
    return [] if work is None else [name for name in artifacts_of(work.config) if name in ARTIFACTS]


def make_file(work: Work, file_format: object) -> str:
    """Write one more format; the name of its file. ConfigError says what went wrong in one line."""
    if not isinstance(file_format, str) or file_format not in formats_of(work):
        raise ConfigError("this run cannot be written in that format", hint=", ".join(formats_of(work)))
    command = [sys.executable, "-m", "sds3d_app", "export", str(work.run), "--format", file_format]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"the export took longer than {LONGEST:.0f} s and was ended") from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it failed without a word"]
        raise ConfigError(last[0].removeprefix("error: "))
    return ARTIFACTS[file_format].file_name


def for_viewer(work: Work, name: str, folder: Path) -> str | None:
    """A copy of a model below Gradio's own temporary folder, which is all that its viewer may read; None without one.

    The same content has the same name, and only so many are kept.
    """
    source = work.run / name
    if not source.is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    stat = source.stat()
    key = sha256(f"{source.resolve()} {stat.st_mtime_ns} {stat.st_size}".encode()).hexdigest()[:16]
    target = folder / f"{key}{source.suffix}"
    if not target.is_file():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
        Path(file.name).replace(target)
    target.touch()
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-MODELS_KEPT]:
        old.unlink(missing_ok=True)
    return str(target)
