"""The files of the machine that a run begins with, kept in its folder: the run needs neither them nor its place.

    inputs/<hash>/duck.png   a copy of a file, with those that belong to it, or of a small folder that an option names
    inputs/large.json        of what is not copied, such as models: a hash of each by its place

The config files of the folder name `inputs/<hash>/duck.png`; a RunConfig in memory has whole paths.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from sds3d.atomic import temporary_folder, write_json, writing
from sds3d.config import RunConfig, map_files, read_json_object
from sds3d.errors import ConfigError
from sds3d.mesh_files import MeshSource, read_user_mesh

INPUTS, LARGE = "inputs", "large.json"
MOST_BYTES = 512 << 20  # of what is copied
SAMPLE = 1 << 16  # bytes at the beginning, in the middle and at the end of a large file
MEANT = (".json", ".txt", ".model", ".safetensors", ".bin")  # of a model's folder: not its card, not its pictures
MESH, MODEL = "scene.source.path", "prior.model"
KEPT, OURS = re.compile(rf"{INPUTS}/[0-9a-f]{{16}}/[^/\0]+"), re.compile(rf"/{INPUTS}/[0-9a-f]{{16}}/")


def keep(config: RunConfig, folder: Path) -> RunConfig:
    """The config with copies in `folder` for the files that it names, and whole paths of what is too large for that.

    ConfigError for a file that cannot be read, OutputError where the disk refuses. What is not there stays as it is:
    whoever needs it says so.
    """
    if not _names(config):
        return config
    large = dict[str, str]()

    @cache
    def rename(key: str, name: str) -> str:
        path = Path(os.path.abspath(os.path.expanduser(name)))
        if not path.exists():
            return name
        try:
            files = _files(key, path)
            if key == MODEL or sum(os.path.getsize(file) for file in files.values()) > MOST_BYTES:
                large[str(path)] = _identity(files)
                return str(path)
            target = folder / INPUTS / _hash(files)
        except OSError as error:
            raise ConfigError(f"{key}: {name} cannot be read: {error.strerror or error}", field=key) from error
        for inside, file in files.items():
            _copy(file, target / inside)
        return os.path.abspath(target / path.name)

    kept = config.with_files(rename)
    if large:
        known = read_json_object(folder / INPUTS / LARGE) if (folder / INPUTS / LARGE).is_file() else {}
        with writing(folder):
            (folder / INPUTS).mkdir(parents=True, exist_ok=True)
        write_json(folder / INPUTS / LARGE, {**large, **known})  # as they were when the run began
    return kept


def to_file(data: Any, folder: Path) -> Any:
    """A config's data as it is written into `folder`: what is in there by its place from there."""
    begin = os.path.abspath(folder) + os.sep

    def rename(key: str, name: str) -> str:
        inside = name.removeprefix(begin)
        return inside if KEPT.fullmatch(inside) else name

    return map_files(data, rename)


def from_file(data: Any, folder: Path) -> Any:
    """The inverse of `to_file`, wherever the folder is now. ConfigError for a name by which a link leads out of it."""

    def rename(key: str, name: str) -> str:
        older = folder / "source" / Path(name).name  # where older versions kept meshes
        if key == MESH and older.is_file():
            return str(older)
        if not KEPT.fullmatch(name):
            return name
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{key} = {name!r} leads out of {folder}", "put a copy there instead of the link", key)
        return os.path.abspath(folder / name)

    return map_files(data, rename)


def names_by_content(data: Any) -> Any:
    """A config's data with the same names for the same contents, whatever folder the copies are in."""

    def rename(key: str, name: str) -> str:
        last = "/".join(Path(name).parts[-3:])
        return last if KEPT.fullmatch(last) else name

    return map_files(data, rename)


def are_same(first: RunConfig, second: RunConfig) -> bool:
    """Whether two configs are equal, with files of equal content for equal; of one that is gone, the name decides."""
    if first == second:
        return True
    found = dict[str, list[tuple[str, str]]]()

    def rest(config: RunConfig, which: str) -> Any:
        names = found.setdefault(which, [])

        def rename(key: str, name: str) -> str:
            names.append((key, name))
            return Path(name).name

        return map_files(config.to_dict(), rename)

    if rest(first, "first") != rest(second, "second"):
        return False
    return all(map(_is_same, found["first"], found["second"]))


def _names(config: RunConfig) -> list[str]:
    """All files of a config; of many configs that have none, at the cost of a look."""
    names = list[str]()

    def note(key: str, name: str) -> str:
        names.append(name)
        return name

    map_files(config.to_dict(), note)
    return names


def _is_same(first: tuple[str, str], second: tuple[str, str]) -> bool:
    (key, name), (_, other) = first, second
    if key == MODEL or os.path.abspath(name) == os.path.abspath(other):
        return os.path.abspath(name) == os.path.abspath(other)
    places = [Path(os.path.expanduser(place)) for place in (name, other)]
    if not all(place.exists() for place in places):
        return True
    return _hash(_files(key, places[0])) == _hash(_files(key, places[1]))


def changes(config: RunConfig, folder: Path) -> list[str]:
    """Warnings of what is not as it was when the run began: copies, and large files, that are others now."""
    found, large = list[str](), folder / INPUTS / LARGE
    with suppress(OSError, ConfigError):
        for place, identity in read_json_object(large).items() if large.is_file() else ():
            if os.path.exists(place) and _identity(_files("", Path(place))) != identity:
                found.append(f"{place} is not what it was when the run began")

    def check(key: str, name: str) -> str:
        path = Path(name)
        if KEPT.fullmatch("/".join(path.parts[-3:])) and path.exists() and _hash(_files(key, path)) != path.parent.name:
            found.append(f"{key} = {name} was changed after the run began")
        return name

    map_files(config.to_dict(), check)
    return list(dict.fromkeys(found))


def _files(key: str, path: Path) -> dict[str, Path]:
    """All files of what an option names, by their names beside `path`."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and ".git" not in file.parts)
        return {file.relative_to(path.parent).as_posix(): file for file in inside}
    others = read_user_mesh(MeshSource(path=str(path))).files if key == MESH else []
    return {name: path.parent / name for name in (path.name, *others)}


def _hash(files: Mapping[str, Path]) -> str:
    """16 hex digits of all contents, and of the names of what belongs to the first."""
    sums = [_sum(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files.values()]
    names = list(files)[1:]
    return hashlib.sha256("\n".join([*sums, *names]).encode()).hexdigest()[:16]


@lru_cache(256)
def _sum(file: Path, size: int, changed: int) -> str:
    """The jobs of a list have the same files: each is read once."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for part in iter(lambda: opened.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def _identity(files: Mapping[str, Path]) -> str:
    """A hash by which a change of large files is noticed without reading all of them."""
    digest = hashlib.sha256()
    for name, file in files.items():
        if len(files) > 1 and file.suffix not in MEANT:
            continue
        size = file.stat().st_size
        digest.update(f"{name.partition('/')[2]} {size}\n".encode(errors="surrogateescape"))
        with file.open("rb") as opened:
            for place in sorted({0, max(0, size // 2), max(0, size - SAMPLE)}):
                opened.seek(place)
                digest.update(opened.read(SAMPLE))
    return digest.hexdigest()


def _copy(source: Path, place: Path) -> None:
    """A copy, whole or absent; of a copy that sds3d made, and never writes to, a second name where a disk has such."""
    if place.is_file():
        return
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(place) as scratch:
            draft = scratch / place.name
            try:
                if not OURS.search(source.as_posix()):
                    raise OSError
                os.link(source, draft)
            except OSError:
                shutil.copyfile(source, draft)
            os.replace(draft, place)
