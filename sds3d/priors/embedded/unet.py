"""The embedded prior's UNet: convolutions without attention, with a conditioning that differs between places.

In "a red sphere beside a blue cube", one conditioning vector for the whole image would scale and shift every place by
both kinds, and the cube would come out round. At resolutions above COARSE, each place is conditioned on the one thing
that it shows, as if that stood alone; only the coarsest level is conditioned on the sentence.

The layers, the names of their weights and the files are those of diffusers' UNet2DConditionModel, which loads them.
They are written out here because importing diffusers takes seconds, which everyone who asks for an object would wait.
"""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

COARSE = 4  # pixel blocks per side
# What unet/config.json says of any such network, in diffusers' words.
ARCHITECTURE: dict[str, Any] = {
    "down_block_types": ["DownBlock2D"] * 3,
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["UpBlock2D"] * 3,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "resnet_time_scale_shift": "scale_shift",
    "class_embed_type": "projection",
    "cross_attention_dim": 8,  # unused, as no block has attention; diffusers needs a number
}
SIZES = (
    "sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "norm_num_groups",
    "projection_class_embeddings_input_dim",
)  # fmt: skip
WEIGHTS = "diffusion_pytorch_model.safetensors"


def read_config(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """What a file of diffusers says; ValueError if that is not what is `expected` of this prior."""
    config: dict[str, Any] = json.loads(path.read_text())
    for name, value in expected.items():
        if config.get(name) != value:
            file = f"{path.parent.name}/{path.name}"
            raise ValueError(f"{file} has {name} {config.get(name)}, where this prior has {value}")
    return config


class ThingUNet(nn.Module):
    """Equals diffusers' UNet of the same configuration if the sentence and both things have one condition."""

    def __init__(
        self,
        *,
        sample_size: int,
        in_channels: int,
        out_channels: int,
        block_out_channels: Sequence[int],
        layers_per_block: int,
        norm_num_groups: int,
        projection_class_embeddings_input_dim: int,
    ) -> None:
        """`sample_size` is the pixel blocks per side, for the file only: the network takes any."""
        super().__init__()
        first, *_, last = widths = block_out_channels
        sizes = (sample_size, in_channels, out_channels, list(widths), layers_per_block, norm_num_groups)
        self.config = ARCHITECTURE | dict(zip(SIZES, (*sizes, projection_class_embeddings_input_dim), strict=True))
        self.first, condition_width, groups = first, 4 * first, norm_num_groups
        block = partial(ResnetBlock, condition_width=condition_width, groups=groups)
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        self.time_embedding = TimestepEmbedding(first, condition_width)
        self.class_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, condition_width)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [first], first
        for number, out in enumerate(widths):
            inputs = [width] + [out] * (layers_per_block - 1)
            smaller = [Resampled(out, 2)] if number < len(widths) - 1 else []
            self.down_blocks.append(Level([block(i, out) for i in inputs], downsamplers=smaller))
            skips += [out] * (layers_per_block + len(smaller))
            width = out
        self.mid_block = Level([block(last, last)])
        for number, out in enumerate(reversed(widths)):
            inputs = [width + skips.pop()] + [out + skips.pop() for _ in range(layers_per_block)]
            larger = [Resampled(out, 1)] if number < len(widths) - 1 else []
            self.up_blocks.append(Level([block(i, out) for i in inputs], upsamplers=larger))
            width = out
        self.conv_norm_out = nn.GroupNorm(groups, first)
        self.conv_out = nn.Conv2d(first, out_channels, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types know of tensors only

    def forward(
        self,
        planes: Float[Tensor, "B C H W"],
        ticks: Int[Tensor, " B"],
        condition: Float[Tensor, "B 3 D"],
        second: Float[Tensor, "B 1 H W"],
    ) -> Float[Tensor, "B O H W"]:
        """`condition` is that of the sentence, of its first and of its second thing; `second` is the share of each
        place, in [0, 1], that shows the second thing."""
        net: Any = self  # the children of a module have no types
        time = net.time_embedding(_sinusoids(ticks, self.first).to(planes.dtype))
        condition = functional.silu(time[:, None] + net.class_embedding(condition.to(time.dtype)))
        x = net.conv_in(planes)
        skips = [x]
        for down in net.down_blocks:
            for resnet in down.resnets:
                x = resnet(x, condition, second)
                skips.append(x)
            for smaller in down.downsamplers:
                x = smaller(x)
                skips.append(x)
        for resnet in net.mid_block.resnets:
            x = resnet(x, condition, second)
        for up in net.up_blocks:
            for resnet in up.resnets:
                x = resnet(torch.cat([x, skips.pop()], dim=1), condition, second)
            for larger in up.upsamplers:
                x = larger(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        out: Tensor = net.conv_out(functional.silu(net.conv_norm_out(x)))
        return out

    @staticmethod
    def sizes_in(folder: Path) -> dict[str, Any]:
        """What to make the network in `folder` with; ValueError if its config.json asks for layers other than these."""
        config = read_config(folder / "config.json", ARCHITECTURE)
        return {name: config[name] for name in SIZES}

    @classmethod
    def load(cls, folder: Path) -> "ThingUNet":
        """The network that `save` wrote."""
        unet = cls(**cls.sizes_in(folder))
        unet.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
        return unet

    def save(self, folder: Path) -> None:
        """Write config.json and the weights as float16, as diffusers would."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "UNet2DConditionModel", **self.config}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {name: value.half().contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


class TimestepEmbedding(nn.Module):
    """Two linear layers; diffusers has them, under this name, for classes too."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        out: Tensor = self.linear_2(functional.silu(self.linear_1(x)))
        return out


class Level(nn.Module):
    """The blocks at one resolution, and what leads to the next."""

    def __init__(
        self, resnets: Sequence[nn.Module], downsamplers: Sequence[nn.Module] = (), upsamplers: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.resnets, self.downsamplers, self.upsamplers = map(nn.ModuleList, (resnets, downsamplers, upsamplers))


class Resampled(nn.Module):
    """A convolution, at each pixel or at every second one."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        out: Tensor = self.conv(x)
        return out


class ResnetBlock(nn.Module):
    """A residual block of diffusers, scaled and shifted at each place by the condition of what the place shows."""

    def __init__(self, width: int, out: int, condition_width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(condition_width, 2 * out)
        self.norm2 = nn.GroupNorm(groups, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width, out, 1) if width != out else None

    def forward(
        self, x: Float[Tensor, "B C h w"], condition: Float[Tensor, "B 3 D"], second: Float[Tensor, "B 1 H W"]
    ) -> Float[Tensor, "B K h w"]:
        hidden = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        if x.shape[3] > COARSE:
            share = functional.avg_pool2d(second, second.shape[3] // x.shape[3]).movedim(1, -1)
            one, other = self.time_emb_proj(condition[:, 1:])[:, :, None, None].unbind(1)
            places = (one + share.to(one.dtype) * (other - one)).movedim(-1, 1)
        else:
            places = self.time_emb_proj(condition[:, 0])[:, :, None, None]
        scale, shift = places.chunk(2, dim=1)
        hidden = self.conv2(functional.silu(hidden * (1.0 + scale) + shift))
        out: Tensor = (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden
        return out


def _sinusoids(ticks: Int[Tensor, " B"], width: int) -> Float[Tensor, "B W"]:
    """cos and sin of t / 10000^(k / half): the sinusoidal positions of Vaswani et al. 2017."""
    half = width // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=ticks.device) / half)
    angles = ticks[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
