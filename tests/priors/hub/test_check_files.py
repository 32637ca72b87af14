"""A model's folder is looked at before anything is loaded: what is missing, cut off, pickled or foreign is one line."""

import json
import shlex
import shutil

import pytest
import torch
from safetensors.torch import save_file

from sds3d.errors import PriorUnavailable
from sds3d.priors import DiffusersConfig
from sds3d.priors.hub.check_files import inspect_model
from sds3d.priors.hub.locate import find_model

pytestmark = pytest.mark.xdist_group("hub")


@pytest.fixture
def copy(model_folder, tmp_path):
    def make(name="sd"):
        target = tmp_path / name
        shutil.copytree(model_folder(name), target)
        return target

    return make


def weights(folder, component="unet"):
    return next((folder / component).glob("*.safetensors"))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n"


def point_weights(folder):
    weights(folder).write_text(POINTER)


def drop_index(folder):
    (folder / "model_index.json").unlink()


def cut_weights(folder):
    weights(folder).write_bytes(weights(folder).read_bytes()[:-100])


def cut_header(folder):
    weights(folder).write_bytes(weights(folder).read_bytes()[:20])


def drop_weights(folder):
    weights(folder).unlink()


def drop_shard(folder):
    path = weights(folder)
    path.rename(path.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors",
                            "b": "diffusion_pytorch_model-00002-of-00002.safetensors"}}  # fmt: skip
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def drop_shard_index(folder):
    weights(folder).rename(folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")


def pickle_weights(folder):
    weights(folder).unlink()
    torch.save({"a": torch.zeros(1)}, folder / "unet" / "diffusion_pytorch_model.bin")


DAMAGES = {
    "no index": (drop_index, "no model_index.json"),
    "index is no JSON": (lambda f: (f / "model_index.json").write_text("{"), "cannot be read"),
    "index is a list": (lambda f: (f / "model_index.json").write_text("[]"), "not a JSON object"),
    "other pipeline": (lambda f: edit(f / "model_index.json", _class_name="ShapEPipeline"), "ShapEPipeline.*supported"),
    "custom pipeline": (lambda f: edit(f / "model_index.json", _class_name=["pipe", "Mine"]), "not supported"),
    "custom component": (lambda f: edit(f / "model_index.json", unet=["my_unet", "Mine"]), "never runs such code"),
    "no entry": (lambda f: edit(f / "model_index.json", vae=None), "does not name a vae"),
    "folder gone": (lambda f: shutil.rmtree(f / "vae"), "lacks the folder vae"),
    "config gone": (lambda f: (f / "unet" / "config.json").unlink(), "lacks config.json"),
    "tokenizer gone": (lambda f: [p.unlink() for p in (f / "tokenizer").iterdir()], "tokenizer lacks"),
    "weights gone": (drop_weights, "lacks its weights"),
    "weights not fetched": (point_weights, "only stands for the file"),
    "weights cut off": (cut_weights, "bytes of .* are there"),
    "header cut off": (cut_header, "incomplete"),
    "a shard gone": (drop_shard, "00002-of-00002"),
    "index of shards gone": (drop_shard_index, "index of its shards"),
    "pickled": (pickle_weights, "pickled weights.*--allow-pickle"),
    "wrong class": (lambda f: edit(f / "model_index.json", unet=["diffusers", "DDIMScheduler"]), "not a ModelMixin"),
    "no such class": (lambda f: edit(f / "model_index.json", unet=["diffusers", "NoSuchModel"]), "not a ModelMixin"),
    "config of another": (lambda f: edit(f / "unet" / "config.json", block_out_channels=[32, 64]), "cannot load"),
}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model_index.json", "{}", "is a file of a model .give its folder: "),
        ("model.safetensors", POINTER, "only stands for the file, which Git LFS has"),
        ("style.safetensors", ("lora_unet_down.lora_up.weight",), r"is a LoRA.*prior\.lora="),
        ("old.ckpt", "pickled", "is a file, not a folder"),
        ("all in one.safetensors", ("model.diffusion_model.a", "cond_stage_model.b"), "StableDiffusionPipeline as P; "),
        ("xl.safetensors", ("conditioner.embedders.1.model.b",), "StableDiffusionXLPipeline as P; .*then give xl"),
        ("flux.safetensors", ("double_blocks.0.img_attn.qkv.weight",), "FluxPipeline as P; "),
    ],
)
def test_a_file_in_place_of_a_folder_is_named_with_what_to_do(name, content, said, tmp_path):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        save_file({key: torch.zeros(1) for key in content}, path)
    with pytest.raises(PriorUnavailable, match=said) as caught:
        find_model(str(path))
    assert "\n" not in str(caught.value)


def test_the_code_that_is_named_for_a_single_file_is_code(tmp_path):
    """It is tried with what it calls replaced: the real call needs the hub's configs."""
    path = tmp_path / "it's mine.safetensors"
    save_file({"cond_stage_model.a": torch.zeros(1)}, path)
    with pytest.raises(PriorUnavailable) as caught:
        find_model(str(path))
    words = shlex.split(caught.value.hint.partition(": ")[2].rpartition(", then give")[0])
    assert words[:2] == ["python", "-c"]
    assert repr(str(path)) in words[2]
    compile(words[2], "hint", "exec")


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_folder_is_one_line_with_what_to_do(copy, damage):
    folder = copy()
    act, said = DAMAGES[damage]
    act(folder)
    with pytest.raises(PriorUnavailable, match=said) as caught:
        DiffusersConfig(model=str(folder)).build("cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_half_precision_alone_is_loaded_and_so_are_mixed_precisions(copy):
    """As hubs have them: one component in fp16 files, one in bfloat16, one in plain float32."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder = copy()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").half()
    vae = AutoencoderKL.from_pretrained(folder / "vae").bfloat16()
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", variant="fp16")
    vae.save_pretrained(folder / "vae")
    files = inspect_model(folder)
    assert dict(files.variants) == {"unet": "fp16", "vae": None, "text_encoder": None}
    prior = DiffusersConfig(model=str(folder)).build("cpu")
    assert {p.dtype for network in (prior.network, prior.vae) for p in network.parameters()} == {torch.float32}
    x = prior.encode(torch.rand(1, 3, 64, 64))
    assert torch.isfinite(prior.predict_noise(x, torch.tensor([0.5]), [prior.embed(["a mug"])])[0]).all()


def test_shards_are_loaded(copy):
    from diffusers import UNet2DConditionModel

    folder = copy()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="40KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    prior = DiffusersConfig(model=str(folder)).build("cpu")
    theirs = dict(unet.named_parameters())
    assert all(torch.equal(theirs[name], p) for name, p in prior.network.named_parameters())


def test_a_whole_variant_is_used_where_the_plain_weights_are_cut_off(copy):
    from diffusers import UNet2DConditionModel

    folder = copy()
    UNet2DConditionModel.from_pretrained(folder / "unet").half().save_pretrained(folder / "unet", variant="fp16")
    assert inspect_model(folder).variants["unet"] is None
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    plain.write_bytes(plain.read_bytes()[:-100])
    prior = DiffusersConfig(model=str(folder)).build("cpu")
    (note,) = prior.cautions("a mug")
    assert note.startswith(f"its unet is loaded from the fp16 weights, because {plain} is incomplete")
    assert {parameter.half().float().equal(parameter) for parameter in prior.network.parameters()} == {True}
    half = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    half.write_bytes(half.read_bytes()[:-100])
    with pytest.raises(PriorUnavailable, match="is incomplete"):
        inspect_model(folder)


@pytest.mark.parametrize(
    ("spoil", "said"), [(cut_header, "incomplete"), (point_weights, "Git LFS"), (drop_shard, "00002-of-00002")]
)
def test_a_variant_stands_in_for_plain_weights_that_are_no_use_in_any_way(copy, spoil, said):
    folder = copy()
    plain = weights(folder)
    half = plain.with_name("diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(plain, half)
    kept = half.rename(folder / half.name)
    spoil(folder)
    with pytest.raises(PriorUnavailable, match=said):
        inspect_model(folder)
    kept.rename(half)
    files = inspect_model(folder)
    assert files.variants["unet"] == "fp16"
    assert said in files.notes[0]


@pytest.mark.parametrize("name", ["unet", "text_encoder"])
def test_shards_of_a_variant_are_loaded_by_their_new_and_their_old_names(copy, name):
    """diffusers#9253: model-00001-of-00002.fp16.safetensors, now model.fp16-00001-of-00002.safetensors."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = copy()
    kind, stem = {"unet": (UNet2DConditionModel, "diffusion_pytorch_model"), "text_encoder": (CLIPTextModel, "model")}[
        name
    ]
    network = kind.from_pretrained(folder / name).half()
    shutil.rmtree(folder / name)
    network.save_pretrained(folder / name, variant="fp16", max_shard_size="4KB")
    shards = list((folder / name).glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert inspect_model(folder).variants[name] == "fp16"
    new = DiffusersConfig(model=str(folder)).build("cpu").embed(["a mug"])
    (index,) = (folder / name).glob("*.index*.json")
    text = index.read_text()
    for shard in shards:
        old = shard.name.replace(".fp16", "").replace(".safetensors", ".fp16.safetensors")
        shard.rename(shard.with_name(old))
        text = text.replace(shard.name, old)
    index.unlink()
    (folder / name / f"{stem}.safetensors.index.fp16.json").write_text(text)
    assert inspect_model(folder).variants[name] == "fp16"
    prior = DiffusersConfig(model=str(folder)).build("cpu")
    assert torch.equal(prior.embed(["a mug"]), new)
    if name == "unet":
        theirs = dict(network.float().named_parameters())
        assert all(torch.equal(theirs[key], p) for key, p in prior.network.named_parameters())


def test_pickles_load_only_where_the_person_says_so(copy, monkeypatch):
    from diffusers import UNet2DConditionModel

    folder = copy()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    weights(folder).unlink()
    unet.save_pretrained(folder / "unet", safe_serialization=False)
    with pytest.raises(PriorUnavailable, match="allow-pickle"):
        DiffusersConfig(model=str(folder)).build("cpu")
    monkeypatch.setenv("SDS3D_ALLOW_PICKLE", "1")
    assert inspect_model(folder, allow_pickle=True).pickled == ("unet",)
    prior = DiffusersConfig(model=str(folder)).build("cpu")
    theirs = dict(unet.named_parameters())
    assert all(torch.equal(theirs[name], p) for name, p in prior.network.named_parameters())
    (caution,) = prior.cautions("a mug")
    assert "unet was loaded from a pickle" in caution


class Payload:
    def __reduce__(self):
        return (print, ("the payload ran",))


def test_a_pickle_named_safetensors_is_refused_unopened(copy, capsys):
    import pickle

    folder = copy()
    weights(folder).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(PriorUnavailable, match="incomplete"):
        DiffusersConfig(model=str(folder)).build("cpu")
    assert "payload" not in capsys.readouterr().out


def test_an_encoder_that_the_index_leaves_out_is_no_damage(model_folder):
    files = inspect_model(model_folder("sd3-without-t5"))
    assert "text_encoder_3" not in files.components
    assert "text_encoder_2" in files.components
