"""LoRA files and words learned by textual inversion, as their own libraries write them."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sds3d import Session
from sds3d.errors import PriorUnavailable
from sds3d.options import split_strength
from sds3d.priors import DiffusersConfig
from sds3d.run.events import StepDone, Stop
from tests.sizes import at_full_size

pytestmark = pytest.mark.xdist_group("hub")


def build(folder, **options):
    return DiffusersConfig(model=str(folder), image_size=64, **options).build("cpu")


def lora_file(path, model_folder, name):
    """Random LoRA weights for the attention of the model's network, saved by diffusers."""
    import diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = diffusers.DiffusionPipeline.from_pretrained(model_folder(name))
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    torch.manual_seed(0)
    for key, parameter in network.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.5)
    layers = {
        ("unet" if hasattr(pipeline, "unet") else "transformer") + "_lora_layers": get_peft_model_state_dict(network)
    }
    pipeline.save_lora_weights(path.parent, **layers, weight_name=path.name)
    return network


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "sana"])
def test_lora_weights_are_added_to_the_network(name, model_folder, tmp_path):
    path = tmp_path / "style.safetensors"
    network = lora_file(path, model_folder, name)
    plain, changed = build(model_folder(name)), build(model_folder(name), lora=(str(path),))
    x_t = torch.randn(1, *plain.latent_shape, generator=torch.Generator().manual_seed(0))
    t, text = torch.tensor([0.5]), plain.embed(["a red mug"])
    (before,), (after,) = plain.predict_noise(x_t, t, [text]), changed.predict_noise(x_t, t, [text])
    assert (before - after).abs().max() > 1e-4
    plain.network = network  # the same LoRA, still beside its layers, by peft itself
    plain._ask = network
    torch.testing.assert_close(plain.predict_noise(x_t, t, [text])[0], after, rtol=1e-4, atol=1e-4)
    critic = changed.trainable_copy(2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic(x_t, t, text), after, rtol=0, atol=1e-6)


def kohya_file(path, pipeline, rank=2, alpha=1.0):
    """A LoRA as kohya's scripts write it, of the network and of all text encoders: (encoder's name, layer's name): what
    it adds to the layer's weight at full strength."""
    generator, tensors, added = torch.Generator().manual_seed(1), {}, {}
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    if hasattr(pipeline, "text_encoder_2"):
        prefixes["text_encoder"] = "lora_te1_"
    layers = ("attn1.to_q", "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    for part, prefix in prefixes.items():
        for name, layer in getattr(pipeline, part, torch.nn.Module()).named_modules():
            if not name.endswith(layers):
                continue
            before = "" if part == "unet" or name.startswith("text_model") else "text_model_"
            key = f"{prefix}{before}{name.replace('.', '_')}"
            rows, columns = layer.weight.shape
            down, up = (torch.randn(*shape, generator=generator) / 4 for shape in ((rank, columns), (rows, rank)))
            tensors |= {
                f"{key}.lora_down.weight": down,
                f"{key}.lora_up.weight": up,
                f"{key}.alpha": torch.tensor(alpha),
            }
            added[part, name] = alpha / rank * up @ down
    save_file(tensors, path)
    return added


@pytest.mark.parametrize(
    ("name", "strength"), [pytest.param("sd", 1.0, marks=at_full_size), ("sd", 0.6), ("sdxl", -0.5)]
)
def test_both_parts_of_a_lora_are_used_by_their_strength(name, strength, model_folder, tmp_path):
    import diffusers

    path = tmp_path / "style.safetensors"
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model_folder(name))
    added, texts = kohya_file(path, pipeline), ["a red mug", ""]
    said = str(path) if strength == 1.0 else f"{path}:{strength}"
    plain, changed = build(model_folder(name)), build(model_folder(name), lora=(said,))
    layers, before = dict(changed.network.named_modules()), dict(plain.network.named_modules())
    for (part, layer), weight in added.items():
        if part == "unet":
            expected = before[layer].weight + strength * weight
            torch.testing.assert_close(layers[layer].weight, expected, rtol=1e-5, atol=1e-5)
        else:
            getattr(pipeline, part).get_submodule(layer).weight.data.add_(strength * weight)
    states = pipeline.encode_prompt(["a red mug"], **({} if name == "sdxl" else SD_ENCODES))[0][0]
    embedded = changed.embed(texts)
    torch.testing.assert_close(embedded[0, : states.shape[0]], states, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(embedded, plain.embed(texts), atol=1e-2)
    other = build(model_folder(name), lora=(f"{path}:{strength / 2}",)).embed(texts)
    assert not torch.allclose(other, embedded, atol=1e-3), "the strength is part of the key"
    assert torch.equal(build(model_folder(name), lora=(said,)).embed(texts), embedded)


SD_ENCODES = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}


def test_several_files_add_up_whichever_parts_they_have(model_folder, tmp_path):
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(model_folder("sd"))
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    kohya_file(first, pipeline)
    tensors = {key: value for key, value in load_file(first).items() if key.startswith("lora_te_")}
    save_file(tensors, second)  # words alone
    texts = ["a red mug"]
    both = build(model_folder("sd"), lora=(f"{first}:0.5", f"{second}:0.5"))
    whole = build(model_folder("sd"), lora=(str(first),))
    torch.testing.assert_close(both.embed(texts), whole.embed(texts), rtol=1e-4, atol=1e-4)
    style = tmp_path / "style.safetensors"
    lora_file(style, model_folder, "sd")  # the network alone: texts are as they were, and in the cache
    assert torch.equal(
        build(model_folder("sd"), lora=(str(style),)).embed(texts), build(model_folder("sd")).embed(texts)
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("C:/b.safetensors:0.6", ("C:/b.safetensors", 0.6)),
        ("c.safetensors:-1e-1", ("c.safetensors", -0.1)),
        ("d.safetensors:strong", ("d.safetensors:strong", 1.0)),
        ("e:3", ("e:3", 1.0)),
    ],
)
def test_a_strength_is_what_comes_after_the_file(name, parts):
    assert split_strength(name) == parts


def test_a_word_learned_by_textual_inversion_is_read(model_folder, tmp_path):
    path = tmp_path / "toy.safetensors"
    save_file({"emb_params": torch.full((1, 16), 3.0)}, path)
    plain, taught = build(model_folder("sd")), build(model_folder("sd"), words=(str(path),))
    texts = ["a red mug", "a <toy>"]
    before, after = plain.embed(texts), taught.embed(texts)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    save_file({"emb_params": torch.full((1, 16), -3.0)}, path)
    again = build(model_folder("sd"), words=(str(path),)).embed(texts)
    assert not torch.equal(again[1], after[1]), "another file of the same name is another word"


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("lora", "style.bin", "not a .safetensors"),
        ("lora", "absent.safetensors", "there is no file"),
        ("words", "absent.safetensors", "there is no file"),
        ("lora", "text.safetensors", "does not fit this model"),
        ("words", "text.safetensors", "does not fit this model"),
        ("lora", "foreign.safetensors", "does not fit this model"),
        ("lora", "pointer.safetensors", "only stands for the file, which Git LFS has"),
        ("words", "pointer.safetensors", "only stands for the file, which Git LFS has"),
    ],
)
def test_what_does_not_fit_is_one_line(model_folder, tmp_path, option, name, said):
    (tmp_path / "style.bin").write_bytes(b"")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"some.layer.lora_A.weight": torch.zeros(2, 7)}, tmp_path / "foreign.safetensors")
    with pytest.raises(PriorUnavailable, match=said) as caught:
        build(model_folder("sd"), **{option: (str(tmp_path / name),)}).embed(["a mug"])
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_elsewhere_without_the_files_that_were_added(model_folder, tmp_path, small_config, monkeypatch):
    """Bit for bit, in the same words: <toy> is named by its file."""
    mine = tmp_path / "mine"
    mine.mkdir()
    lora_file(mine / "style.safetensors", model_folder, "sd")
    save_file({"emb_params": torch.full((1, 16), 3.0)}, mine / "toy.safetensors")
    monkeypatch.chdir(mine)
    files = {"lora": ["style.safetensors:0.5"], "words": ["toy.safetensors"]}
    prior = {"name": "diffusers", "model": str(model_folder("sd")), "image_size": 64, **files}
    config = small_config(prompt="a <toy>", steps=4, checkpoint_every=2, prior=prior)
    whole = Session(config, tmp_path / "whole")
    list(whole.run())
    session = Session(config, "run")
    for event in session.run():
        if isinstance(event, StepDone) and event.step == 2:
            session.send(Stop())
    moved = (mine / "run").rename(tmp_path / "moved")
    shutil.rmtree(mine)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path / "no-embeddings-yet"))
    again = Session.resume(moved)
    list(again.run())
    for name, value in whole.scene().state_dict().items():
        assert torch.equal(again.scene().state_dict()[name], value), name
