"""LoRA files and words learned by textual inversion, as their own libraries write them."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from sds3d import Session
from sds3d.errors import PriorUnavailable
from sds3d.priors import DiffusersConfig
from sds3d.run.events import StepDone, Stop

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
    ],
)
def test_what_does_not_fit_is_one_line(model_folder, tmp_path, option, name, said):
    (tmp_path / "style.bin").write_bytes(b"")
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
    files = {"lora": ["style.safetensors"], "words": ["toy.safetensors"]}
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
