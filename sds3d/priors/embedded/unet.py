"""The embedded prior's UNet: a diffusers UNet without attention, with a conditioning that differs between places.

In "a red sphere beside a blue cube", one conditioning vector for the whole image would scale and shift every place by
both kinds, and the cube would come out round. At resolutions above COARSE, each place is conditioned on the one thing
that it shows, as if that stood alone; only the coarsest level is conditioned on the sentence. A module of its own,
because importing diffusers takes a second.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

COARSE = 4  # pixel blocks per side


class ThingUNet(UNet2DConditionModel):
    """Loads and saves like diffusers' own UNet, and equals it if the sentence and both things have one condition."""

    def forward(  # type: ignore[override]
        self,
        planes: Float[Tensor, "B C H W"],
        ticks: Int[Tensor, " B"],
        condition: Float[Tensor, "B 3 D"],
        second: Float[Tensor, "B 1 H W"],
    ) -> Float[Tensor, "B O H W"]:
        """`condition` is that of the sentence, of its first and of its second thing; `second` is the share of each
        place, in [0, 1], that shows the second thing."""
        net: Any = self  # diffusers' layers have no types
        time = net.time_embedding(net.get_time_embed(planes, ticks))
        condition = functional.silu(time[:, None] + net.class_embedding(condition.to(time.dtype)))
        x = net.conv_in(planes)
        skips = [x]
        for down in net.down_blocks:
            for resnet in down.resnets:
                x = _resnet(resnet, x, condition, second)
                skips.append(x)
            for smaller in down.downsamplers or ():
                x = smaller(x)
                skips.append(x)
        for resnet in net.mid_block.resnets:
            x = _resnet(resnet, x, condition, second)
        for up in net.up_blocks:
            for resnet in up.resnets:
                x = _resnet(resnet, torch.cat([x, skips.pop()], dim=1), condition, second)
            for larger in up.upsamplers or ():
                x = larger(x)
        out: Tensor = net.conv_out(net.conv_act(net.conv_norm_out(x)))
        return out


def _resnet(
    resnet: Any, x: Float[Tensor, "B C h w"], condition: Float[Tensor, "B 3 D"], second: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B K h w"]:
    """A residual block of diffusers, scaled and shifted at each place by the condition of what the place shows."""
    hidden = resnet.norm2(resnet.conv1(resnet.nonlinearity(resnet.norm1(x))))
    if x.shape[3] > COARSE:
        share = functional.avg_pool2d(second, second.shape[3] // x.shape[3]).movedim(1, -1)
        one, other = resnet.time_emb_proj(condition[:, 1:])[:, :, None, None].unbind(1)
        places = (one + share.to(one.dtype) * (other - one)).movedim(-1, 1)
    else:
        places = resnet.time_emb_proj(condition[:, 0])[:, :, None, None]
    scale, shift = places.chunk(2, dim=1)
    hidden = resnet.conv2(resnet.nonlinearity(hidden * (1.0 + scale) + shift))
    out: Tensor = (x if resnet.conv_shortcut is None else resnet.conv_shortcut(x)) + hidden
    return out
