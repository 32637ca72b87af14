"""Loading, text, cameras and predictions, on freshly made networks and on the weights that ship."""

import json
from importlib import resources

import pytest
import torch

from benchmarks.embedded_prior import azimuth_test
from sds3d.cameras import orbit
from sds3d.errors import ConfigError, PriorUnavailable
from sds3d.priors.base import Prior
from sds3d.priors.embedded.config import EmbeddedConfig
from sds3d.priors.embedded.network import predict_clean
from sds3d.priors.embedded.prior import load_embedded
from sds3d.priors.embedded.training import Networks, save_weights
from sds3d.prompts import check_words
from sds3d.types import ViewCondition


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("prior")
    save_weights(Networks(), path)
    return path


@pytest.fixture(scope="module")
def prior(folder):
    return load_embedded(str(folder))


def _query(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randn(count, 3, 64, 64, generator=generator)
    return x_t, torch.linspace(0.3, 0.8, count)


def test_it_is_a_prior(prior):
    assert isinstance(prior, Prior)


def test_coefficients_are_float32_and_keep_variance(prior):
    alpha, sigma = prior.alpha_sigma(torch.tensor([0.02, 0.5, 0.98]))
    assert alpha.dtype == sigma.dtype == torch.float32
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    assert (alpha.flatten().diff() < 0).all()


def test_predicted_noise_follows_from_the_predicted_image(prior):
    x_t, t = _query()
    embedding = prior.embed(["a red mug", "a blue chair"])
    view = ViewCondition(orbit(2), torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.2, 0.3]]))
    (eps,) = prior.predict_noise(x_t, t, [embedding], view)
    alpha, sigma = prior.alpha_sigma(t)
    camera, rays, pixels, background = prior._view(view, 2)
    ticks = (t * 1000).round().long()
    with torch.autocast("cpu", torch.bfloat16, enabled=prior.half):  # where the processor has it
        found = predict_clean(prior.unet, prior.text, x_t, ticks, alpha, embedding, camera, rays, pixels, background)
    torch.testing.assert_close((x_t - sigma * eps) / alpha, found.x0, rtol=0, atol=0.05)


def test_conditions_share_one_batch_without_mixing(prior):
    x_t, t = _query()
    mug, null = prior.embed(["a red mug"]).expand(2, -1, -1), prior.embed([""]).expand(2, -1, -1)
    both = prior.predict_noise(x_t, t, [mug, null])
    (alone,) = prior.predict_noise(x_t, t, [null])
    torch.testing.assert_close(both[1], alone, rtol=0, atol=0.05)
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_words_order_camera_and_background_all_count(prior):
    one, other, same = prior.embed(
        ["a red cone on a blue cube", "a blue cone on a red cube", "A red CONE, on the blue cube!"]
    )
    assert (one - other).abs().max() > 1e-3
    assert torch.equal(one, same)
    x_t, t = _query(1)
    embedding = one[None]
    grey = torch.full((1, 3), 0.5)
    (front,) = prior.predict_noise(x_t, t, [embedding], ViewCondition(orbit(1), grey))
    (nowhere,) = prior.predict_noise(x_t, t, [embedding])
    (white,) = prior.predict_noise(x_t, t, [embedding], ViewCondition(orbit(1), torch.ones(1, 3)))
    assert (front - nowhere).abs().max() > 1e-4
    assert (front - white).abs().max() > 1e-2


def test_unknown_words_are_named_once_and_articles_are_not(prior):
    assert prior.unknown_words("a red dragon under the dragon's mug") == ["dragon", "under"]
    assert torch.equal(prior.embed(["a red dragon mug"]), prior.embed(["red mug"]))


def test_an_unknown_word_is_reported_with_what_is_near(prior):
    config = EmbeddedConfig()
    [warning] = check_words(prior, config, "a red dragon mug", "", strict=False)
    assert warning.startswith("the embedded prior does not know: dragon (nearest: cat, pig, duck); it uses the")
    with pytest.raises(
        ConfigError, match=r"without it there is no thing in 'a red dragon' \(did you mean 'a red cat', "
    ):
        check_words(prior, config, "a red dragon", "", strict=False)
    with pytest.raises(ConfigError, match=r"finds no thing in 'a red' \(it knows colours red.*prior\.anything=true"):
        check_words(prior, config, "a red", "", strict=False)
    assert len(check_words(prior, EmbeddedConfig(anything=True), "a red dragon", "", strict=False)) == 1
    assert check_words(prior, config, "letter L", "", strict=False) != []  # no colour, but a thing it knows
    with pytest.raises(ConfigError, match=r"dragon \(nearest: cat"):
        check_words(prior, config, "the dragon", "", strict=False)


def test_it_says_what_it_does_badly(folder, tmp_path):
    import shutil

    measured = tmp_path / "measured"
    shutil.copytree(folder, measured)
    kinds = {"chair": {"same": 0.5, "ceiling": 0.7}, "mug": {"same": 0.8, "ceiling": 0.9}}
    (measured / "figures.json").write_text(json.dumps({"kinds": kinds}))
    prior = load_embedded(str(measured))
    assert prior.cautions("a red mug") == []
    assert prior.cautions("a red chair") == ["it draws a chair poorly"]
    assert "misread" in prior.cautions("a red mug on a blue mug")[0]
    assert prior.cautions("a red dragon") == []  # its unknown words say enough


def test_encode_and_decode_are_inverse_and_differentiable(prior):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    x = prior.encode(image)
    torch.testing.assert_close(prior.decode(x), image)
    x.sum().backward()
    assert image.grad is not None
    assert prior.encode(torch.rand(1, 3, 100, 90)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncate", "cannot read"),
        ("garbage", "cannot read"),
        ("missing", "text/config.json is missing"),
        ("vocabulary", "state_dict"),
        ("attention", "down_block_types"),
    ],
)
def test_damaged_weights_are_one_clear_error(folder, tmp_path, damage, said):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "garbage":
        weights.write_bytes(b"\x80\x04not a model")
    elif damage == "missing":
        (broken / "text" / "config.json").unlink()
    elif damage == "attention":  # which would be passed over
        config = json.loads((broken / "unet" / "config.json").read_text())
        config["down_block_types"][1] = "CrossAttnDownBlock2D"
        (broken / "unet" / "config.json").write_text(json.dumps(config))
    else:
        config = json.loads((broken / "text" / "config.json").read_text())
        config["words"].pop()
        (broken / "text" / "config.json").write_text(json.dumps(config))
    with pytest.raises(PriorUnavailable, match=said) as caught:
        load_embedded(str(broken))
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_shipped_weights_are_small_and_follow_the_camera():
    shipped = resources.files("sds3d_assets") / "embedded_prior"
    with resources.as_file(shipped) as path:
        assert sum(file.stat().st_size for file in path.rglob("*.safetensors")) <= 16 * 2**20
    directional = ("chair", "car", "mug", "house")  # their silhouettes show the camera's azimuth
    figures = azimuth_test(load_embedded(), directional, per_kind=1)
    same, turned = (sum(row[key] for row in figures.values()) / len(figures) for key in ("same", "plus_90"))
    assert same > turned + 0.1
    assert same > 0.5


def test_what_it_knows_is_read_from_the_weights(folder, tmp_path):
    import shutil

    line = EmbeddedConfig(weights=str(folder)).knows()
    assert all(word in line for word in ("cyan", "windmill", "checkered", "wooden", "letter l"))
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    config = json.loads((older / "text" / "config.json").read_text())
    config["words"] = ["red", "blue", "mug"]
    (older / "text" / "config.json").write_text(json.dumps(config))
    assert (
        EmbeddedConfig(weights=str(older)).knows() == "colours red, blue; things mug; 'a COLOUR THING on a COLOUR cube'"
    )


def test_the_config_knows_the_words_without_loading_the_weights() -> None:
    from sds3d.priors.embedded.config import EmbeddedConfig

    prior = load_embedded()
    for text in ("a red mug", "a zzz mug on a qqq", "", "front view of a dragon"):
        assert EmbeddedConfig().unknown_words(text) == prior.unknown_words(text)
    assert EmbeddedConfig(weights="elsewhere").unknown_words("a zzz") == []
