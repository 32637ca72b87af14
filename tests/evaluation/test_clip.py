"""CLIP scores from a folder: a tiny random model, as save_pretrained writes it."""

import json

import pytest
import torch

from sds3d.errors import ConfigError
from sds3d.evaluation.clip import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    path = tmp_path_factory.mktemp("clip")
    words = ["a", "red", "mug", "blue", "chair"]
    tokens = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for word in words:
        for piece in (*word, f"{word[-1]}</w>"):
            tokens.setdefault(piece, len(tokens))
    (path / "vocab.json").write_text(json.dumps(tokens))
    (path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt")).save_pretrained(path)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**shape, "vocab_size": len(tokens), "max_position_embeddings": 32, "eos_token_id": 1},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_the_score_is_the_models_own_cosine(folder):
    from transformers import CLIPModel

    clip, images = Clip(folder), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    tokens = clip.tokenizer(["a red mug"], return_tensors="pt")
    out = CLIPModel.from_pretrained(folder).eval()(**tokens, pixel_values=(images - mean) / std)
    expected = 100.0 * (out.logits_per_image / out.logits_per_image.new_tensor(1.0)).mean()
    scale = CLIPModel.from_pretrained(folder).logit_scale.exp()
    assert clip.score(images, "a red mug") == pytest.approx(float(expected / scale), abs=1e-2)
    assert clip.score(images, "a red mug") != clip.score(images, "a blue chair")
    assert -100 <= clip.score(torch.rand(1, 3, 50, 40), "a red mug " * 50) <= 100  # resized, and cut to what it reads


def test_sides_are_read_by_the_nearest_of_three_texts(folder):
    clip, images = Clip(folder), torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    texts = [f"a duck, {side}" for side in ("front view", "side view", "back view")]
    scores = torch.tensor([[clip.score(image[None], text) for text in texts] for image in images])
    read = scores.argmax(dim=1)
    assert clip.side_agreement(images, "a duck", read) == 1.0
    assert clip.side_agreement(images, "a duck", (read + 1) % 3) == 0.0


def test_a_wrong_folder_is_one_line(tmp_path, folder):
    with pytest.raises(ConfigError, match=r"--clip .* config.json is missing"):
        Clip(tmp_path)
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot read a CLIP model") as caught:
        Clip(broken)
    assert "\n" not in str(caught.value)
