"""The cache of embeddings: a second run of the same prompt loads no text encoder, and nothing else is ever found."""

import shutil

import pytest
import torch

from sds3d.errors import OutOfMemory, PriorUnavailable
from sds3d.priors import DiffusersConfig
from sds3d.priors.hub import embeddings, loading
from sds3d.priors.hub.loading import load_component
from sds3d.prompts import check_words
from tests.priors.hub.tiny_models import MODELS
from tests.sizes import at_full_size

pytestmark = pytest.mark.xdist_group("hub")


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Names of the components that are loaded from now on."""
    names: list[str] = []

    def load(found, name, dtype, device):
        names.append(name)
        return load_component(found, name, dtype, device)

    monkeypatch.setattr(loading, "load_component", load)
    return names


def build(folder, device="cpu", **options):
    return DiffusersConfig(model=str(folder), **options).build(device)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart-alpha", "sana", "deepfloyd"])
def test_the_second_run_with_the_same_prompt_loads_no_text_encoder(name, model_folder, loaded):
    texts = ["a red mug", "a red mug, front view", ""]
    first = build(model_folder(name)).embed(texts)
    assert any(part.startswith("text_encoder") for part in loaded)
    loaded.clear()
    second = build(model_folder(name)).embed(texts)
    assert torch.equal(first, second)
    assert loaded
    assert not any(part.startswith(("text_encoder", "tokenizer")) for part in loaded)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # tensors know it by the other name, as with cuda and cuda:0
def test_the_network_is_off_the_device_while_the_encoders_are_there(model_folder, monkeypatch, device):
    """Together they may be too large: T5 is as large as half of FLUX.1."""
    prior = build(model_folder("sd"), device=device)
    moves = []
    monkeypatch.setattr(type(prior.network), "to", lambda self, *place, **how: moves.append(("network", *place)))
    monkeypatch.setattr(type(prior.vae), "to", lambda self, *place, **how: moves.append(("vae", *place)))
    read = embeddings.load_pipeline

    def loading(*arguments):
        moves.append("encoders")
        return read(*arguments)

    monkeypatch.setattr(embeddings, "load_pipeline", loading)
    prior.embed(["a red mug"])
    cpu, own = torch.device("cpu"), torch.device(device)
    assert moves == [("network", cpu), ("vae", cpu), "encoders", ("network", own), ("vae", own)]
    prior.embed(["a red mug"])  # from the cache on disk
    assert len(moves) == 5


def test_a_network_that_does_not_fit_says_so(model_folder, monkeypatch):
    """It read "fetch the model again"."""

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(loading, "_load", full)
    with pytest.raises(
        OutOfMemory, match=r"does not fit into the memory of cpu: CUDA out of.*9 GiB\. \(use prior\.dtype"
    ):
        build(model_folder("sd"))


def test_only_what_is_new_is_read(model_folder, loaded, cache):
    prior = build(model_folder("sd"))
    prior.embed(["a red mug", ""])
    assert len(list(cache.glob("*.safetensors"))) == 2
    loaded.clear()
    prior.embed(["a blue cat", "a red mug", "a blue cat"])
    assert "text_encoder" in loaded
    assert len(list(cache.glob("*.safetensors"))) == 3


def test_other_models_precisions_and_changed_files_are_not_confused(model_folder, tmp_path, loaded):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("sd"), folder)
    build(folder).embed(["a red mug"])

    def reads(**options) -> bool:
        loaded.clear()
        build(options.pop("model", folder), **options).embed(["a red mug"])
        return "text_encoder" in loaded

    assert not reads()
    assert reads(dtype="bfloat16")
    assert reads(model=model_folder("sd-v"))
    weights = next((folder / "text_encoder").glob("*.safetensors"))
    weights.touch()
    assert reads()
    assert not reads()


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_entry_is_made_again(model_folder, cache, damage):
    first = build(model_folder("sd")).embed(["a red mug"])
    (path,) = cache.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10] if damage is None else damage)
    assert torch.equal(build(model_folder("sd")).embed(["a red mug"]), first)
    assert torch.equal(build(model_folder("sd")).embed(["a red mug"]), first)


def test_a_cache_that_cannot_be_written_costs_time_only(model_folder, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SDS3D_CACHE", str(blocked))
    assert torch.isfinite(build(model_folder("sd")).embed(["a red mug"])).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_embedding_is_what_the_pipeline_encodes(name, model_folder):
    """The words' states by encode_prompt, called here as the pipeline's own __call__ calls it."""
    import diffusers

    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3-without-t5" else {}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model_folder(name), **absent)
    asked = {"sd": ("a red mug", "cpu", 1, True), "sd3": ("a red mug", None, None)}.get(
        name.split("-")[0], ("a red mug",)
    )
    timestep = {"complex_human_instruction": None} if name == "sana" else {}
    states = pipeline.encode_prompt(*asked, **timestep)[0][0]
    ours = build(model_folder(name)).embed(["a red mug"])[0]
    if name == "sana":  # behind the pipeline's instruction, so not the same; see test_families for the whole pipeline
        assert ours.shape[0] == states.shape[0]
        return
    torch.testing.assert_close(ours[: states.shape[0], : states.shape[1]], states, rtol=1e-4, atol=1e-4)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path))
    assert embeddings.cache_folder() == tmp_path / "embeddings"
    monkeypatch.delenv("SDS3D_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert embeddings.cache_folder() == tmp_path / "xdg" / "sds3d" / "embeddings"


def test_a_user_without_a_home_has_no_cache_and_all_else(model_folder, monkeypatch, tmp_path, loaded):
    """As with `docker run --user 12345`: nobody of that number is known, and HOME is not set."""
    for name in ("HOME", "SDS3D_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.chdir(tmp_path)
    assert embeddings.cache_folder() is None
    for _ in range(2):
        loaded.clear()
        assert torch.isfinite(build(model_folder("sd")).embed(["a red mug"])).all()
        assert "text_encoder" in loaded
    with pytest.raises(PriorUnavailable, match="there is no folder ~/sd"):
        build("~/sd")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", ["/proc", "/sys", "/dev/null"])  # even root makes nothing there
def test_a_home_that_nobody_can_write_costs_time_only(home, model_folder, monkeypatch):
    for name in ("SDS3D_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    assert torch.isfinite(build(model_folder("sd")).embed(["a red mug"])).all()
    assert embeddings.cache_folder().is_relative_to(home)
    assert not embeddings.cache_folder().exists()


LONG = " ".join(f"w{number}" for number in range(400))
VIEWS = ("front view", "back view")


OTHERS = [
    pytest.param(name, marks=at_full_size) for name in ("sdxl", "sd3", "pixart-alpha", "pixart-sigma", "deepfloyd")
]


@pytest.mark.parametrize("name", ["sd", "flux", "sana", *OTHERS])
def test_view_words_are_read_behind_a_prompt_of_any_length(name, model_folder, caplog):
    """Cut off where a text encoder ends, the front was the same text as the back."""
    prior = build(model_folder(name))
    front, back = prior.embed([f"{LONG}, {view}" for view in VIEWS])
    assert not torch.equal(front, back)
    unread = prior.unread(LONG)
    assert LONG.endswith(unread)
    assert 0 < len(unread) < len(LONG)
    assert prior.unread("a mug") == prior.unread("") == ""
    assert build(model_folder(name)).unread(LONG) == unread, "kept with the embedding"
    assert not caplog.records


@pytest.mark.parametrize("text", ["杯" * 100, "a red mug, " * 30], ids=["no spaces", "words"])
def test_what_is_read_of_a_long_text_fits_with_its_view_words(text, model_folder):
    prior = build(model_folder("sd"))
    front, back = prior.embed([f"{text}, {view}" for view in VIEWS])
    assert not torch.equal(front, back)
    read = text[: text.rindex(prior.unread(text))].rstrip(" ,")
    assert torch.equal(prior.embed([f"{read}, {VIEWS[0]}"])[0], front)


def test_one_warning_names_what_is_not_read_of_prompt_and_negative_prompt(model_folder):
    config = DiffusersConfig(model=str(model_folder("sd")))
    prior = config.build("cpu")
    first, second = check_words(prior, config, "a red mug " + "p" * 40, "n" * 40, strict=False)
    assert first == f"the end of the prompt is too long to be read: '{'p' * 40}'"
    assert second.startswith("the end of the negative prompt is too long to be read: 'nnn")
    assert check_words(prior, config, "mug", "", strict=False) == []
