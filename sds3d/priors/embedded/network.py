"""The embedded prior's two networks: a small text encoder and a UNet without attention.

The UNet sees the 64 px image as 4x4 pixel blocks (48 channels at 16x16; a rearrangement, so white noise stays white)
and predicts the clean image minus its background, which is an input (three constant planes). A vector of words and
camera scales and shifts its features: at fine resolutions, the vector of the one thing that each place shows (unet.py).
Every block also attends to the words (layers.py) and gets its own ray as input (ray maps, as in CAT3D, Gao et
al. 2024), in the frame of the thing it attends to: from words alone a convolution cannot know where "behind the seat"
is. The UNet also predicts the depth of each pixel's surface, where the texture head adds detail finer than a block.
"""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.embedded.layers import (
    FIELD_PLANES,
    FRAME,
    FRONT,
    RAY_PLANES,
    READ_PLANES,
    WORD_PLANES,
    RayField,
    TextureHead,
    WordAttention,
    ray_planes,
)
from sds3d.priors.embedded.render import camera_rays
from sds3d.priors.embedded.unet import ThingUNet
from sds3d.priors.embedded.words import MAX_WORDS, WORDS
from sds3d.types import Cameras

BLOCK = 4  # pixels per side of an unshuffled block
GRID = 16  # blocks per side of the image
CAMERA_FEATURES = 10
CAMERA_GAIN = 3.0  # without it, ten numbers beside 384 of text are learned late
VOCABULARY = {word: number + 1 for number, word in enumerate(WORDS)}  # 0 is padding

INPUT_PLANES = 3 * BLOCK**2 + 3 + RAY_PLANES  # the image, its background, the rays
UNET: dict[str, Any] = {
    "sample_size": GRID,
    "in_channels": INPUT_PLANES + READ_PLANES + FIELD_PLANES + FRAME,
    "out_channels": (3 + 1 + 1) * BLOCK**2,  # per pixel: colour, share of the texture that it shows, depth
    "block_out_channels": (64, 128, 224),
    "layers_per_block": 1,
    "norm_num_groups": 16,
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "prediction_type": "sample",
    "clip_sample": False,
}  # what scheduler/scheduler_config.json says, in diffusers' words
TEXT: dict[str, int] = {"width": 128, "layers": 2, "heads": 4, "slots": 3}


class TextEncoder(nn.Module):
    """Words to a fixed number of slot vectors, followed by the words in their context (zero for padding).

    A transformer reads learned slots together with the words, so the slots, which scale and shift the UNet's features,
    depend on word order ("red on blue"). `reader`, `field` and `painter` (word attention, ray field, texture head)
    belong to the UNet; they are here, under these names, because the released weights have them here.
    """

    def __init__(self, words: int, width: int, layers: int, heads: int, slots: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words + 1, width, padding_idx=0)
        self.slots = nn.Parameter(torch.randn(slots, width) * 0.5)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.reader = WordAttention(width, INPUT_PLANES)
        self.field = RayField()
        self.painter = TextureHead(slots * width)
        self.second = nn.Linear(WORD_PLANES, 1)  # whether a block shows the second thing, from the words it attends to

    def forward(self, ids: Int[Tensor, "T 3 L"]) -> Float[Tensor, "T N D"]:
        """Slots of the sentence, of its first and of its second thing, then the sentence's words; see `token_batch`."""
        sentences = ids.flatten(0, 1)
        slots = self.slots.expand(len(sentences), -1, -1)
        words = self.words(sentences) + self.positions
        padding = functional.pad(sentences == 0, (slots.shape[1], 0), value=False)
        read = self.transformer(torch.cat([slots, words], dim=1), src_key_padding_mask=padding)
        read = read.masked_fill(padding[..., None], 0.0).unflatten(0, (-1, 3))
        slots, words = read.split((slots.shape[1], MAX_WORDS), dim=2)
        return torch.cat([slots.flatten(1, 2), words[:, 0]], dim=1)


def make_unet(**changes: Any) -> ThingUNet:
    """The UNet with fresh weights."""
    conditioning = TEXT["slots"] * TEXT["width"] + CAMERA_FEATURES
    return ThingUNet(**{**UNET, "projection_class_embeddings_input_dim": conditioning, **changes})


def alphas_cumprod() -> Float[Tensor, " T"]:
    """alpha^2 at 1000 ticks: prod(1 - beta), with squared-cosine betas (Nichol & Dhariwal 2021)."""
    steps = SCHEDULER["num_train_timesteps"]
    kept = [math.cos((tick / steps + 0.008) / 1.008 * math.pi / 2.0) ** 2 for tick in range(steps + 1)]
    betas = [min(1.0 - later / now, 0.999) for now, later in pairwise(kept)]
    return (1.0 - torch.tensor(betas, dtype=torch.float32)).cumprod(0)


def camera_features(cameras: Cameras, known: Bool[Tensor, " B"]) -> Float[Tensor, "B 10"]:
    """Harmonics of the azimuth, the elevation, the distance and a flag; all zero if the camera is unknown."""
    azimuth, elevation = cameras.azimuth, cameras.elevation
    waves = [wave(k * azimuth) for k in (1.0, 2.0, 4.0) for wave in (torch.sin, torch.cos)]
    flag = torch.ones_like(azimuth)
    features = torch.stack([*waves, elevation.sin(), elevation.cos(), 3.0 * (cameras.distance - 3.0), flag], -1)
    return features * known[:, None]


def ray_maps(cameras: Cameras, known: Bool[Tensor, " B"]) -> Float[Tensor, "B R 16 16"]:
    """`ray_planes` of the ray through the centre of each block; all zero if the camera is unknown."""
    return ray_planes(_rays(cameras, known, GRID).unflatten(1, (GRID, GRID))).movedim(-1, 1)


def pixel_rays(cameras: Cameras, known: Bool[Tensor, " B"]) -> Float[Tensor, "B 16 16 16 7"]:
    """For the ray through each pixel p, d and a flag, by blocks as `pixel_unshuffle` orders them; zero as above."""
    planes = _rays(cameras, known, GRID * BLOCK).transpose(1, 2).unflatten(2, (GRID * BLOCK, GRID * BLOCK))
    return functional.pixel_unshuffle(planes, BLOCK).unflatten(1, (planes.shape[1], -1)).movedim(1, -1).contiguous()


def _rays(cameras: Cameras, known: Bool[Tensor, " B"], side: int) -> Float[Tensor, "B N 7"]:
    """Through side x side points of the view, row by row: the point nearest to the origin, unit direction and flag."""
    shrink = torch.tensor([side / cameras.width, side / cameras.height, 1.0], device=cameras.intrinsics.device)
    resized = replace(cameras, intrinsics=shrink[:, None] * cameras.intrinsics, height=side, width=side)
    rays_o, rays_d = camera_rays(resized)
    direction = functional.normalize(rays_d, dim=-1)
    nearest = rays_o - (rays_o * direction).sum(-1, keepdim=True) * direction
    return torch.cat([nearest, direction, torch.ones_like(direction[..., :1])], dim=-1) * known[:, None, None]


class Prediction(NamedTuple):
    x0: Float[Tensor, "B 3 H W"]  # the expected clean image, in [-1, 1]
    depths: Float[Tensor, "B H W"]  # of the surface: world units from each ray's point nearest to the origin
    frames: Float[Tensor, "B 16 16 4"]  # of each block's thing: its centre, and log(RADIUS / its radius)
    second: Float[Tensor, "B 16 16"]  # logit of that being the second of two things


def predict_clean(
    unet: Any,
    text: TextEncoder,
    x_t: Float[Tensor, "B 3 H W"],
    ticks: Int[Tensor, " B"],
    alpha: Float[Tensor, "B 1 1 1"],
    embedding: Float[Tensor, "B N D"],
    camera: Float[Tensor, "B 10"],
    rays: Float[Tensor, "B R 16 16"],
    pixels: Float[Tensor, "B 16 16 16 7"],
    background: Float[Tensor, "B 3"],
) -> Prediction:
    """E[x | x_t, words, camera, background], with the predicted depths and frames of the things.

    x0_hat = bg + net(x_t - alpha bg, bg, t, text, camera): outside the object the network's output is zero whatever
    the background.
    """
    plane = (2.0 * background - 1.0)[:, :, None, None]
    blocks = functional.pixel_unshuffle(x_t - alpha * plane, BLOCK)
    image_planes = [blocks, plane.expand(-1, -1, GRID, GRID)]
    slots, words = embedding.split((3 * text.slots.shape[0], MAX_WORDS), dim=1)
    slots = slots.unflatten(1, (3, -1)).flatten(2)
    attended, word_planes = text.reader(torch.cat([*image_planes, rays], dim=1), words)
    ray_features, field, frames = text.field(pixels.mean(1), word_planes)
    planes = torch.cat([*image_planes, ray_features, attended, field, frames.detach().movedim(-1, 1)], dim=1)
    planes = planes.contiguous(memory_format=torch.channels_last)
    second = text.second(word_planes.movedim(1, -1))[..., 0]
    condition = torch.cat([slots, CAMERA_GAIN * camera[:, None].expand(-1, 3, -1)], dim=2)
    out = unet(planes, ticks, condition, second.detach().sigmoid()[:, None])
    residual, share, depths = out.split((3 * BLOCK**2, BLOCK**2, BLOCK**2), dim=1)
    depths = depths + FRONT
    residual = residual + text.painter(pixels, depths, share.sigmoid(), slots[:, 0])
    x0, depths = (functional.pixel_shuffle(blocks, BLOCK) for blocks in (residual, depths))
    return Prediction(x0.float() + plane, depths[:, 0], frames, second)
