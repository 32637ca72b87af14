"""The embedded prior: loading, text embeddings, noise schedule and noise prediction."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sds3d.errors import PriorUnavailable, first_line
from sds3d.priors.base import eps_from_sample, has_bfloat16
from sds3d.priors.embedded.captions import parse
from sds3d.priors.embedded.data import SIZE
from sds3d.priors.embedded.network import (
    BLOCK,
    CAMERA_FEATURES,
    GRID,
    RAY_PLANES,
    SCHEDULER,
    TextEncoder,
    alphas_cumprod,
    camera_features,
    pixel_rays,
    predict_clean,
    ray_maps,
)
from sds3d.priors.embedded.object_kinds import COLORS, KINDS, MATERIALS, PATTERNS
from sds3d.priors.embedded.unet import ThingUNet, read_config
from sds3d.priors.embedded.words import token_batch, with_colors, words_of
from sds3d.priors.lora import LowRankCopy
from sds3d.types import ViewCondition

# IoU of the samples' silhouettes with true ones, over that of two true objects with one caption. Below this ratio a
# stranger would not recognise the kind.
WEAK_SHARE = 0.75
MULTIPLIES = (nn.Conv2d, nn.Linear)
HINT = "reinstall sds3d, or leave prior.weights out to use the weights it ships with"


class EmbeddedPrior:
    """A diffusion model of procedural objects, 64 x 64 pixels, conditioned on words, cameras and backgrounds.

    x is the image in [-1, 1]. The network predicts x0, and eps_hat = (x_t - alpha x0) / sigma. Unknown words are left
    out of the text; `unknown_words` lists them.
    """

    latent_shape = (3, SIZE, SIZE)

    def __init__(
        self,
        unet: ThingUNet,
        text: TextEncoder,
        words: Sequence[str],
        device: torch.device | str,
        weak: Sequence[str] = (),
    ) -> None:
        self.device, self.weak = torch.device(device), tuple(weak)
        # bfloat16 is about twice as fast on devices that support it; the schedule stays float32.
        on_cpu = self.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"
        self.half = on_cpu or has_bfloat16(self.device)
        self.unet = unet.float().to(self.device).eval().requires_grad_(False)
        if self.half:  # otherwise autocast would convert the weights in every call
            for layer in self.unet.modules():
                if isinstance(layer, MULTIPLIES):
                    layer.to(torch.bfloat16)
        self.text = text.to(self.device).eval().requires_grad_(False)
        self.ids = {word: number + 1 for number, word in enumerate(words)}
        alphas = alphas_cumprod().to(self.device)
        self.alpha, self.sigma = alphas.sqrt(), (1.0 - alphas).sqrt()

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "T N D"]:
        """See `TextEncoder`; the empty text is the null condition."""
        return self.text(token_batch(texts, self.ids).to(self.device))

    def unknown_words(self, text: str) -> list[str]:
        """Every word that is not in the training captions."""
        return [word for word in dict.fromkeys(words_of(text)) if word not in self.ids]

    def cautions(self, text: str) -> list[str]:
        """Kinds it draws poorly by its measured figures, things without a colour, and sentences unlike its training
        captions."""
        words, colors = with_colors(words_of(text))
        cautions = [f"it draws a {kind} poorly" for kind in dict.fromkeys(words) if kind in self.weak]
        cautions += [f"no colour is said of the {kind}, so it is made {color}" for kind, color in colors.items()]
        if parse(" ".join(words)) is None and not self.unknown_words(text):
            cautions.append("it was trained on sentences such as 'a red cone on a blue cube' and may misread this one")
        return cautions

    def encode(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """To [-1, 1], resized to 64 x 64."""
        if image.shape[2:] != self.latent_shape[1:]:
            image = functional.interpolate(image, size=self.latent_shape[1:], mode="bilinear", antialias=True)
        return 2.0 * image - 1.0

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Back to [0, 1]."""
        return ((x + 1.0) / 2.0).clamp(0.0, 1.0)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """sqrt(alphas_cumprod) and sqrt(1 - alphas_cumprod) at the nearest of 1000 ticks; always float32."""
        ticks = self._ticks(t)
        return self.alpha[ticks][:, None, None, None], self.sigma[ticks][:, None, None, None]

    def _ticks(self, t: Tensor) -> Tensor:
        return (t.double() * len(self.alpha)).round().long().clamp(0, len(self.alpha) - 1).to(self.device)

    @torch.no_grad()
    def predict_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        embeddings: Sequence[Float[Tensor, "B N D"]],
        view: ViewCondition | None = None,
    ) -> list[Float[Tensor, "B C h w"]]:
        """eps_hat for each condition, in one batch; without a view, of an unknown camera and mid-grey background."""
        return self._predict(self.unet, x_t, t, embeddings, view)

    def trainable_copy(self, rank: int, generator: torch.Generator) -> nn.Module:
        """LoRA on every convolution and linear layer of the UNet; conditioned on the view like the prior itself."""
        layers = [name for name, layer in self.unet.named_modules() if isinstance(layer, MULTIPLIES)]
        return LowRankCopy(self.unet, layers, rank, generator, self._predict)

    def _predict(
        self, unet: Any, x_t: Tensor, t: Tensor, embeddings: Sequence[Tensor], view: ViewCondition | None
    ) -> list[Tensor]:
        """`predict_noise` with any network of this architecture, with gradients."""
        alpha, sigma = self.alpha_sigma(t)
        inputs = (x_t, self._ticks(t), alpha, *self._view(view, len(x_t)))
        x_ts, ticks, alphas, *seen = (x.repeat(len(embeddings), *[1] * (x.dim() - 1)) for x in inputs)
        x_ts = x_ts.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            predicted = predict_clean(unet, self.text, x_ts, ticks, alphas, torch.cat(list(embeddings)), *seen)
        return [eps_from_sample(x0, x_t, alpha, sigma) for x0 in predicted.x0.chunk(len(embeddings))]

    def _view(
        self, view: ViewCondition | None, batch: int
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B R 16 16"], Float[Tensor, "B 16 16 16 7"], Float[Tensor, "B 3"]]:
        """Camera features, rays of blocks and pixels, and background colours; zeros and mid-grey without a view."""
        camera, rays = torch.zeros(batch, CAMERA_FEATURES), torch.zeros(batch, RAY_PLANES, GRID, GRID)
        pixels, background = torch.zeros(batch, BLOCK**2, GRID, GRID, 7), torch.full((batch, 3), 0.5)
        if view is not None:
            known = torch.ones(batch, dtype=torch.bool, device=view.cameras.azimuth.device)
            camera, rays, pixels = (make(view.cameras, known) for make in (camera_features, ray_maps, pixel_rays))
            background = background if view.background is None else view.background
        return camera.to(self.device), rays.to(self.device), pixels.to(self.device), background.to(self.device)


def load_embedded(folder: str | None = None, device: torch.device | str = "cpu") -> EmbeddedPrior:
    """The prior from `assets/embedded_prior`, or from another folder with unet/, text/ and scheduler/.

    PriorUnavailable, naming the file, if something is missing, truncated or does not fit.
    """
    with _weights(folder) as path:
        try:
            settings = json.loads((path / "text" / "config.json").read_text())
            words = settings.pop("words")
            with torch.device("meta"):  # a damaged config could ask for a network of any size
                sizes = ThingUNet.sizes_in(path / "unet")
                _check_layers(sizes["layers_per_block"], path / "unet")
                _check_layers(settings["layers"], path / "text")
                _check_size(ThingUNet(**sizes), path / "unet")
                _check_size(TextEncoder(len(words), **settings), path / "text")
            read_config(path / "scheduler" / "scheduler_config.json", SCHEDULER)
            unet, text = ThingUNet.load(path / "unet"), TextEncoder(len(words), **settings)
            weak = weak_kinds(path / "figures.json")
            tensors = load_file(path / "text" / "model.safetensors")
            text.load_state_dict({name: value.float() for name, value in tensors.items()})
        except Exception as error:  # json, torch and safetensors raise many types
            raise PriorUnavailable(f"cannot read the embedded prior in {path}: {first_line(error)}", HINT) from error
    return EmbeddedPrior(unet, text, words, device, weak)


def _check_layers(layers: int, folder: Path) -> None:
    """ValueError if the file in `folder` has not one tensor for each layer: a billion would be built for hours."""
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, "pt") as tensors:
        stored = len(tensors.keys())
    if not 1 <= layers <= stored:
        raise ValueError(
            f"{folder.name}/config.json describes {layers:,} layers, and {file.name} holds {stored} tensors"
        )


def _check_size(network: nn.Module, folder: Path) -> None:
    """ValueError if the file in `folder` is too small for the network's weights at two bytes each."""
    (file,) = folder.glob("*.safetensors")
    needed, stored = sum(parameter.numel() for parameter in network.parameters()), file.stat().st_size // 2
    if needed > stored:
        raise ValueError(f"{folder.name}/config.json describes {needed:,} weights, and {file.name} holds {stored:,}")


@contextmanager
def _weights(folder: str | None) -> Iterator[Path]:
    """The folder with the weights; PriorUnavailable if there are none."""
    try:
        source = resources.files("sds3d_assets") / "embedded_prior" if folder is None else Path(folder)
    except ModuleNotFoundError:
        raise PriorUnavailable("sds3d is not installed, so its weights are not found", HINT) from None
    with resources.as_file(source) as path:
        if not (path / "text" / "config.json").is_file():
            raise PriorUnavailable(f"no embedded prior in {path}: text/config.json is missing", HINT)
        yield path


def weak_kinds(figures: Path) -> list[str]:
    """Kinds that the prior draws poorly: see WEAK_SHARE; measured by benchmarks/embedded_prior.py."""
    if not figures.is_file():
        return []
    kinds = json.loads(figures.read_text())["kinds"]
    return [kind for kind, row in kinds.items() if row["same"] < WEAK_SHARE * row["ceiling"]]


def known_things(folder: str | None = None) -> str:
    """One line about what the weights in `folder` can draw."""
    with _weights(folder) as path:
        words = set(json.loads((path / "text" / "config.json").read_text())["words"])
    groups: dict[str, Iterable[str]] = {
        "colours": COLORS,
        "things": KINDS,
        "patterns": PATTERNS,
        "materials": MATERIALS,
    }
    known = {name: [word.replace("_", " ") for word in group if word in words] for name, group in groups.items()}
    listed = "; ".join(f"{name} {', '.join(names)}" for name, names in known.items() if names)
    return f"{listed}; 'a COLOUR THING on a COLOUR cube'"
