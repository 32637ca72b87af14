"""The embedded prior's UNet: a diffusers UNet without attention, whose blocks are told more than one thing.

In "a red sphere beside a blue cube" one vector for the whole picture would scale and shift every block by both kinds,
and a cube would come out round. Where the picture is finer than COARSE the blocks are told of the one thing that they
show, so that they draw it as if it stood alone; only the coarsest are told the sentence. It is of a module of its own,
because diffusers takes a second to import.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

COARSE = 4  # blocks per side


class ThingUNet(UNet2DConditionModel):
    """Loads and saves as diffusers' own network; where sentence and things say the same, it computes the same."""

    def forward(  # type: ignore[override]
        self,
        planes: Float[Tensor, "B C H W"],
        ticks: Int[Tensor, "B"],
        told: Float[Tensor, "B 3 D"],
        second: Float[Tensor, "B 1 H W"],
    ) -> Float[Tensor, "B O H W"]:
        """`told` is what is said of the whole, of the first thing and of the second; `second` how much of each block
        of pixels shows the second, in [0, 1]."""
        net: Any = self  # diffusers' layers have no types
        time = net.time_embedding(net.get_time_embed(planes, ticks))
        told = functional.silu(time[:, None] + net.class_embedding(told.to(time.dtype)))
        x = net.conv_in(planes)
        skips = [x]
        for down in net.down_blocks:
            for resnet in down.resnets:
                x = _draw(resnet, x, told, second)
                skips.append(x)
            for smaller in down.downsamplers or ():
                x = smaller(x)
                skips.append(x)
        for resnet in net.mid_block.resnets:
            x = _draw(resnet, x, told, second)
        for up in net.up_blocks:
            for resnet in up.resnets:
                x = _draw(resnet, torch.cat([x, skips.pop()], dim=1), told, second)
            for larger in up.upsamplers or ():
                x = larger(x)
        said: Tensor = net.conv_out(net.conv_act(net.conv_norm_out(x)))
        return said


def _draw(
    resnet: Any, x: Float[Tensor, "B C h w"], told: Float[Tensor, "B 3 D"], second: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B K h w"]:
    """A residual block of diffusers, scaled and shifted at every place by what is told of what it shows."""
    hidden = resnet.norm2(resnet.conv1(resnet.nonlinearity(resnet.norm1(x))))
    if x.shape[3] > COARSE:
        share = functional.avg_pool2d(second, second.shape[3] // x.shape[3]).movedim(1, -1)
        one, other = resnet.time_emb_proj(told[:, 1:])[:, :, None, None].unbind(1)
        places = (one + share.to(one.dtype) * (other - one)).movedim(-1, 1)
    else:
        places = resnet.time_emb_proj(told[:, 0])[:, :, None, None]
    scale, shift = places.chunk(2, dim=1)
    hidden = resnet.conv2(resnet.nonlinearity(hidden * (1.0 + scale) + shift))
    drawn: Tensor = (x if resnet.conv_shortcut is None else resnet.conv_shortcut(x)) + hidden
    return drawn
