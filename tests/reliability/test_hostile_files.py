"""R8: files that were damaged at random are refused in one line, and never take the process or the memory with them."""

import json
import random
import shutil
import time
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import PIL.Image as PIL
import pytest

from sds3d import Session, load_config
from sds3d.errors import Sds3dError
from sds3d.export.info import read_info
from sds3d.jobs import Queue
from sds3d.jobs.job_list import read_job_list
from sds3d.jobs.processes import WorkerId
from sds3d.picture_files import read_picture
from sds3d.priors.embedded.prior import load_embedded
from sds3d.run.checkpoint import checkpoints_in, load_checkpoint
from sds3d.run.folder import RunFolder
from tests.export.splat_reader import read_splats_ply

LISTS = {
    "list.csv": b"prompt,seed,guidance.guidance_scale\na red ball,3,7.5\na blue ball,,\n",
    "list.jsonl": b'{"prompt": "a red ball", "seed": 3, "vary": {"guidance": ["sds", "csd"]}}\n"a blue ball"\n',
    "list.yaml": b"- a red ball\n- prompt: a blue ball\n  guidance: csd\n",
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, filled, repeated, or with a large number written over four of its bytes."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(found)))
        kind = rng.randrange(5)
        if kind == 0:
            del found[at:]
        elif kind == 1 and found:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            found[at : at + rng.randint(1, 64)] = bytes([rng.randrange(256)]) * rng.randint(0, 64)
        elif kind == 3:
            found[at:at] = found[at : at + 256]
        else:
            found[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00"])
    return bytes(found)


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "run"
    list(Session(small_config(steps=6), folder).run())
    return folder


def attack(read: Callable[[], object], path: Path, whole: bytes, count: int) -> int:
    """Number of damaged versions that were refused; any other exception, or 2 seconds for one, fails the test."""
    refused = 0
    for seed in range(count):
        path.write_bytes(damaged(whole, random.Random(seed)))
        begun, message = time.process_time(), refusal(read)
        assert time.process_time() - begun < 2.0, seed
        assert "\n" not in (message or ""), seed
        refused += message is not None
    return refused


def refusal(read: Callable[[], object]) -> str | None:
    """What the reader says against a file; None where it takes it."""
    try:
        read()
    except Sds3dError as error:
        return str(error)
    return None


@pytest.fixture
def count(full: bool) -> int:
    return 5000 if full else 100


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / name
    assert attack(lambda: read_job_list(path), path, LISTS[name], count) > 0.1 * count


def test_configs(count: int, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert attack(lambda: load_config(path), path, (run / "config.json").read_bytes(), count) > 0.5 * count


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_checkpoints(name: str, count: int, run: Path, tmp_path: Path) -> None:
    newest = checkpoints_in(run / "checkpoints")[0]
    for file in newest.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (newest / name).read_bytes()
    same = sum(damaged(whole, random.Random(seed)) == whole for seed in range(count))
    assert attack(lambda: load_checkpoint(tmp_path), tmp_path / name, whole, count) == count - same


def test_splats(count: int, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "splats.ply"
    attack(lambda: read_splats_ply(path), path, (run / "splats.ply").read_bytes(), count)
    header, _, body = (run / "splats.ply").read_bytes().partition(b"end_header\n")
    grown = header.replace(b"element vertex ", b"element vertex 9999999")
    path.write_bytes(grown + b"end_header\n" + body)
    with pytest.raises(Sds3dError):  # believed, the number would be gigabytes
        read_splats_ply(path)


def test_events(count: int, run: Path, tmp_path: Path) -> None:
    folder, whole = RunFolder(tmp_path), (run / "events.jsonl").read_bytes()
    assert attack(folder.status, tmp_path / "events.jsonl", whole, count) == 0
    assert attack(lambda: folder.reader().read(), tmp_path / "events.jsonl", whole, count) == 0


def test_jobs(count: int, tmp_path: Path, small_config) -> None:
    """job.json when a worker reads it, and both files of a job when the database is made again from the folders."""
    queue = Queue(tmp_path / "queue", attempts=1)
    job = queue.add(small_config())
    queue.release(queue.claim(WorkerId.here()), "no luck")
    whole = {name: (job.folder / name).read_bytes() for name in ("job.json", "result.json")}
    assert attack(lambda: queue.job(job.name).config, job.folder / "job.json", whole["job.json"], count) > 0.5 * count
    for name, data in whole.items():
        for other, sound in whole.items():
            (job.folder / other).write_bytes(sound)

        def remake() -> None:
            for path in (queue.folder / "database").iterdir():
                path.unlink()
            assert queue.jobs()[0].name == job.name

        assert attack(remake, job.folder / name, data, count // 5) == 0


def test_meshes(count: int, run: Path, tmp_path: Path) -> None:
    """What `sds3d info` says of them; its reader believes no number that the file's own length contradicts."""
    path = tmp_path / "mesh.glb"
    whole = (run / "mesh.glb").read_bytes()
    assert attack(lambda: read_info(path), path, whole[: len(whole) // 8], count) > 0.2 * count
    attack(lambda: read_info(path), path, whole, count)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "gif", "bmp", "ppm", "avif"])
def test_pictures(kind: str, count: int, tmp_path: Path) -> None:
    path, pixels = tmp_path / f"picture.{kind}", np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    PIL.fromarray(pixels).save(path)
    assert (
        attack(lambda: read_picture(str(path), "reference_image.path", is_color=True), path, path.read_bytes(), count)
        > 0.1 * count
    )


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    PIL.new("RGB", (16, 16)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = b"\x00\x00\xff\xff\x00\x00\xff\xff"  # width and height
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(Sds3dError, match=r"65535 x 65535|exceeds limit"):
        read_picture(str(path), "reference_image.path", is_color=True)


@pytest.mark.parametrize("name", ["unet/config.json", "text/config.json", "scheduler/scheduler_config.json"])
def test_priors(name: str, count: int, full: bool, tmp_path: Path) -> None:
    """Each takes some tenths of a second to load, so `count` is of the three files together."""
    folder = tmp_path / "prior"
    shutil.copytree(str(resources.files("sds3d_assets") / "embedded_prior"), folder)
    whole = (folder / name).read_bytes()
    load_embedded(str(folder))  # imports
    assert attack(lambda: load_embedded(str(folder)), folder / name, whole, count // 3 if full else 10) > 3


@pytest.mark.parametrize("name", ["unet", "text"])
def test_a_prior_whose_configuration_asks_for_gigabytes_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "prior"
    shutil.copytree(str(resources.files("sds3d_assets") / "embedded_prior"), folder)
    path = folder / name / "config.json"
    config = json.loads(path.read_text())
    config |= {"block_out_channels": [64, 128, 224_000]} if name == "unet" else {"width": 128_000}
    path.write_text(json.dumps(config))
    with pytest.raises(Sds3dError, match=r"describes [0-9,]+ weights"):
        load_embedded(str(folder))


@pytest.mark.parametrize(("name", "field"), [("unet", "layers_per_block"), ("text", "layers")])
@pytest.mark.parametrize("layers", [10**9, 0, -1])
def test_a_prior_whose_configuration_asks_for_layers_without_end_is_refused(
    name: str, field: str, layers: int, tmp_path: Path
) -> None:
    """It would be built for hours before its size is known."""
    folder = tmp_path / "prior"
    shutil.copytree(str(resources.files("sds3d_assets") / "embedded_prior"), folder)
    path = folder / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: layers}))
    with pytest.raises(Sds3dError, match=r"describes [-0-9,]+ layers"):
        load_embedded(str(folder))


def test_the_damage_is_varied() -> None:
    whole = json.dumps(list(range(100))).encode()
    assert len({damaged(whole, random.Random(seed)) for seed in range(100)}) > 95
