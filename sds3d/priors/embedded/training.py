"""Trains the embedded prior on procedural renders, resumably, on CPU or GPU.

Pictures are drawn when they are needed, by their number; all other random numbers come from a generator that is saved
with the state. So resumed training equals uninterrupted training, and the two files of the state are all it needs. The
weights that ship are the exponential moving average, rounded to float16.
"""

import json
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Int32
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from sds3d.atomic import atomic_folder
from sds3d.errors import CheckpointError
from sds3d.priors.base import has_bfloat16
from sds3d.priors.embedded.captions import RADIUS
from sds3d.priors.embedded.data import Batch, angle_cameras, chance_of, make_batch, random_backgrounds
from sds3d.priors.embedded.network import (
    BLOCK,
    SCHEDULER,
    TEXT,
    VOCABULARY,
    TextEncoder,
    alphas_cumprod,
    camera_features,
    make_unet,
    pixel_rays,
    predict_clean,
    ray_maps,
)
from sds3d.priors.embedded.render import over
from sds3d.priors.embedded.unet import WEIGHTS
from sds3d.priors.embedded.words import WORDS, token_batch

PROBE_SEED, PROBE_IMAGES = -1, 96  # objects that no training run sees
DETAIL = 3  # blocks: what is narrower counts as detail, as two stripes are


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; saved with its state."""

    batch: int = 48
    lr: float = 1e-3
    warmup: int = 300  # steps
    ema: float = 0.9995
    text_dropout: float = 0.08
    camera_dropout: float = 0.04
    max_weight: float = 6.0
    weight_decay: float = 1e-3
    depth_weight: float = 2.0
    part_weight: float = 4.0  # the most that a small part's pixel counts; 1: all count the same
    seed: int = 0  # of the objects, too: a run that starts from weights wants another than they had
    start_from: str = ""  # folder of the weights that training started from; empty: none


class Networks(nn.Module):
    """UNet and text encoder, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = make_unet()
        self.text = TextEncoder(len(VOCABULARY), **TEXT)


class Trainer:
    """Networks, their exponential moving average, optimizer and random state; `save` and `load` resume exactly."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)  # network initialisation is the only use of the global generator
        self.config, self.device, self.step, self.images = config, device, 0, 0
        self.networks = Networks().to(device)
        self.average = deepcopy(self.networks).requires_grad_(False)
        self.saved = nn.ModuleDict({"networks": self.networks, "average": self.average})
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        alphas = alphas_cumprod().to(device)
        self.alpha, self.sigma = alphas.sqrt(), (1.0 - alphas).sqrt()
        self.half = _computes_in_bfloat16() if device.type == "cpu" else has_bfloat16(device)

    def train(self, cooldown: int = 0) -> Iterator[dict[str, float]]:
        """Endless optimizer steps, one per item; with `cooldown` the learning rate falls to zero in that many steps."""
        begin, c = self.step, self.config
        while True:
            losses = self.losses(make_batch(c.seed, self.images, c.batch, chance=chance_of))
            rate = min(1.0, (self.step + 1) / c.warmup)
            if cooldown:
                rate *= max(0.0, 1.0 - (self.step - begin) / cooldown)
            for group in self.optimizer.param_groups:
                group["lr"] = c.lr * rate
            weights = {"depth": c.depth_weight}
            torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum().backward()
            nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            # Weights to start from are an average already, better than the first steps that follow: it is kept.
            decay = c.ema if c.start_from else min(c.ema, (1.0 + self.step) / (10.0 + self.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.networks.parameters()), 1.0 - decay)
            self.step += 1
            self.images += c.batch
            yield {"step": self.step, "images": self.images} | {k: float(v.detach()) for k, v in losses.items()}

    def losses(
        self, batch: Batch, networks: Networks | None = None, generator: torch.Generator | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """min(1 / sigma^2, max_weight) w ||x0_hat - x||^2 ("loss"), t = 1 - (1 - u)^2, u ~ U(0, 1); and auxiliary ones.

        w is `part_weights`. Most t are at high noise: at low noise the silhouette shows through, and the words would
        not be learned. "depth" is the squared error of the depths inside the object, times w; "paint" that of the
        texture head alone, given true depths, on the object's details; "frame" that of each block's frame; "second" the
        cross-entropy of which of two things a block shows. The last three, if learned only through the UNet, would be
        learned too late. Of `networks` if they are given, with draws from `generator`.
        """
        networks = networks or self.networks
        c, g, count = self.config, generator or self.generator, len(batch.captions)
        background = random_backgrounds(count, g)
        x = 2.0 * over(batch.rgba, background).permute(0, 3, 1, 2) - 1.0
        t = 1.0 - (1.0 - torch.rand(count, generator=g)).square()
        ticks = (t * len(self.alpha)).long().clamp_max(len(self.alpha) - 1)
        eps = torch.randn(x.shape, generator=g)
        keep_text = (torch.rand(count, generator=g) >= c.text_dropout).tolist()
        keep_camera = torch.rand(count, generator=g) >= c.camera_dropout
        texts = [text if keep else "" for text, keep in zip(batch.captions, keep_text, strict=True)]
        cameras = angle_cameras(batch.angles)
        camera, rays = camera_features(cameras, keep_camera), ray_maps(cameras, keep_camera)
        pixels, tokens = pixel_rays(cameras, keep_camera), token_batch(texts, VOCABULARY)
        inputs = (ticks, camera, rays, pixels, background, tokens)
        ticks, camera, rays, pixels, background, tokens = (tensor.to(self.device) for tensor in inputs)
        parts = part_weights(batch.parts, c.part_weight)
        x, eps, depths, cover, frames, parts = (
            tensor.to(self.device) for tensor in (x, eps, batch.depths, batch.rgba[..., 3], batch.frames, parts)
        )
        alpha, sigma = (table[ticks][:, None, None, None] for table in (self.alpha, self.sigma))
        x_t = (alpha * x + sigma * eps).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            text = networks.text
            embedding = text(tokens)
            predicted = predict_clean(
                networks.unet, text, x_t, ticks, alpha, embedding, camera, rays, pixels, background
            )
            (blocks, covered), words = _blocks(depths, cover), embedding[:, : TEXT["slots"]].flatten(1)
            paint = functional.pixel_shuffle(text.painter(pixels, blocks, torch.ones_like(blocks), words), BLOCK)
        weight, known = (1.0 / sigma.square()).clamp_max(c.max_weight), pixels[:, 0, ..., 6]
        met = _things_met(frames, pixels, blocks, covered)
        two = known * (frames[:, 0] != frames[:, 1]).any(1)[:, None, None]
        return {
            "loss": (weight * parts[:, None] * (predicted.x0 - x).square()).mean(),
            "depth": (parts * cover * (predicted.depths - depths).square()).mean(),
            "paint": _details(x - paint.float(), cover[:, None]).square().mean(),
            "frame": (known[..., None] * (predicted.frames - _target_frames(frames, met)).square()).mean(),
            "second": functional.binary_cross_entropy_with_logits(predicted.second.float(), met.float(), two),
        }

    @torch.no_grad()
    def probe(self) -> float:
        """The main loss of the average, on the same pictures and noise every time: shows what a restart costs."""
        batch, fixed = make_batch(PROBE_SEED, 0, PROBE_IMAGES), torch.Generator().manual_seed(0)
        return float(self.losses(batch, self.average, fixed)["loss"])

    def save(self, folder: Path) -> None:
        """Write state.safetensors and state.json atomically, the JSON last."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.saved.state_dict()
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        tensors["generator"] = self.generator.get_state()
        state = {"step": self.step, "images": self.images, "config": asdict(self.config), "saved": time.time()}
        with atomic_folder(folder / "state.json") as draft:
            save_file({k: v.contiguous() for k, v in tensors.items()}, draft.with_name("state.safetensors"))
            draft.write_text(json.dumps(state, indent=1))

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "Trainer":
        """The trainer that `save` wrote; CheckpointError if it cannot be read."""
        try:
            state = json.loads((folder / "state.json").read_text())
            tensors = load_file(folder / "state.safetensors")
        except Exception as error:  # safetensors and json raise many types
            raise CheckpointError(f"cannot read the training state in {folder}: {error}") from error
        trainer = cls(TrainConfig(**state["config"]), device)
        trainer.step, trainer.images = state["step"], state["images"]
        trainer.generator.set_state(tensors.pop("generator"))
        optimizer = trainer.optimizer.state_dict()
        for name in [name for name in tensors if name.startswith("optimizer.")]:
            _, number, key = name.split(".")
            optimizer["state"].setdefault(int(number), {})[key] = tensors.pop(name)
        trainer.optimizer.load_state_dict(optimizer)
        trainer.saved.load_state_dict(tensors)
        return trainer


def save_weights(networks: Networks, folder: Path, training: Mapping[str, Any] | None = None) -> None:
    """Write unet/, text/ and scheduler/ as float16 safetensors that diffusers loads, and training.json."""
    text, scheduler = folder / "text", folder / "scheduler"
    for part in (text, scheduler):
        part.mkdir(parents=True, exist_ok=True)
    networks.unet.save(folder / "unet")
    (scheduler / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
    save_file({k: v.half().contiguous() for k, v in networks.text.state_dict().items()}, text / "model.safetensors")
    (text / "config.json").write_text(json.dumps({**TEXT, "words": WORDS}, indent=1) + "\n")
    if training is not None:
        (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n")


def warm_start(trainer: Trainer, folder: Path) -> None:
    """Start from released weights, with a new optimizer.

    Words are matched by name, so the vocabulary may have grown. New input and output planes of the UNet start with zero
    weights; new layers of the text encoder keep their initialisation, and lost ones are dropped. Everything else must
    have the same shape.
    """
    words = json.loads((folder / "text" / "config.json").read_text())["words"]
    fresh = trainer.networks.state_dict()
    released = {f"text.{k}": v.float() for k, v in load_file(folder / "text" / "model.safetensors").items()}
    unet = load_file(folder / "unet" / WEIGHTS)
    released |= {f"unet.{k}": v.float() for k, v in unet.items()}
    rows = fresh["text.words.weight"].clone()
    for number, word in enumerate(words):
        if word in VOCABULARY:
            rows[VOCABULARY[word]] = released["text.words.weight"][number + 1]
    released["text.words.weight"] = rows
    for name in ("unet.conv_in.weight", "unet.conv_out.weight", "unet.conv_out.bias"):
        grown = torch.zeros_like(fresh[name])
        grown[tuple(slice(size) for size in released[name].shape)] = released[name]
        released[name] = grown
    released = {name: value for name, value in released.items() if name in fresh or name.startswith("unet.")}
    released = {name: value for name, value in fresh.items() if name.startswith("text.")} | released
    for networks in (trainer.networks, trainer.average):
        networks.load_state_dict(released)


def _details(image: Float[Tensor, "B 3 H W"], cover: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The object's colours minus their mean over its part of the surrounding square; zero outside the object."""
    around = functional.avg_pool2d(torch.cat([cover * image, cover], dim=1), BLOCK)
    around = functional.avg_pool2d(around, DETAIL, 1, DETAIL // 2)
    around = functional.interpolate(around, scale_factor=float(BLOCK), mode="bilinear")
    return cover * (image - around[:, :3] / around[:, 3:].clamp_min(1e-3))


def _things_met(
    frames: Float[Tensor, "B 2 4"],
    pixels: Float[Tensor, "B P h w 7"],
    depths: Float[Tensor, "B P h w"],
    cover: Float[Tensor, "B P h w"],
) -> Int[Tensor, "B h w"]:
    """The thing that each block shows, else the one that its ray comes nearest to: 0 or 1."""
    nearest, direction, _ = pixels.mean(1)[:, None].split((3, 3, 1), dim=-1)
    share = cover.mean(1)
    center, radius = frames[:, :, None, None].split((3, 1), dim=-1)
    depth = ((cover * depths).mean(1) / share.clamp_min(1e-3))[:, None, ..., None]
    depth = torch.where(share[:, None, ..., None] > 0.2, depth, ((center - nearest) * direction).sum(-1, keepdim=True))
    away = (nearest + depth * direction - center).norm(dim=-1) / radius[..., 0]
    return away.argmin(1)


def _target_frames(frames: Float[Tensor, "B 2 4"], met: Int[Tensor, "B h w"]) -> Float[Tensor, "B h w 4"]:
    """The frame of the thing that each block shows, in the parametrization of `Prediction.frames`."""
    center, radius = frames.split((3, 1), dim=-1)
    targets = torch.cat([center, (RADIUS / radius).log()], dim=-1)
    return targets[torch.arange(len(met), device=met.device)[:, None, None], met]


def _blocks(*images: Float[Tensor, "B H W"]) -> list[Float[Tensor, "B P h w"]]:
    return [functional.pixel_unshuffle(image[:, None], BLOCK) for image in images]


def part_weights(parts: Int32[Tensor, "B H W"], most: float) -> Float[Tensor, "B H W"]:
    """min(sqrt(A / a), most), with a the visible area of the part that a pixel shows and A that of all; 1 outside.

    An eye of 4 pixels on an object of 1000 counts 16 times as much, its body hardly more than once. Pitfall: where it
    is uncertain whether a pixel shows the part, the prediction, a weighted mean, leans towards it.
    """
    index = parts.flatten(1).long() + 1
    areas = torch.zeros(len(parts), int(index.max()) + 1).scatter_add_(1, index, torch.ones(index.shape))
    weights = (areas[:, 1:].sum(1, keepdim=True) / areas.clamp_min(1.0)).sqrt().clamp(1.0, most)
    weights[:, 0] = 1.0
    return weights.gather(1, index).view(parts.shape)


def _computes_in_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions; without them bfloat16 is some 50 times slower than float32."""
    return any(getattr(torch.cpu, f"_is_{kind}_supported", bool)() for kind in ("avx512_bf16", "amx_tile"))
