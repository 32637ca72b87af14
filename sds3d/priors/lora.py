"""A trainable low-rank copy of a frozen network (Hu et al. 2021, LoRA), by peft."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sds3d.priors.base import Embeddings, Latents, Times
from sds3d.types import ViewCondition

Predict = Callable[..., list[Tensor]]  # (network, x_t, t, embeddings, view): eps_hat for each of the embeddings


class LowRankCopy(nn.Module):
    """y = W x + B A x in the layers named by `targets`: A [rank, in] and B [out, rank] are trained, W is the network's.

    The copy has its own modules around the network's tensors: no second set of weights, and no adapter in the network
    that could be left switched on. B starts at zero, so the copy starts equal to the network. A and B are float32
    whatever the network is. `extra` are further trained layers that replace attributes of the copy, by name.
    Pitfall: the frozen tensors are shared, so moving the network to another device moves the copy's too.
    """

    def __init__(
        self,
        network: Any,
        targets: Sequence[str],
        rank: int,
        generator: torch.Generator,
        predict: Predict,
        **extra: nn.Module,
    ) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        super().__init__()
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        copy = deepcopy(network, shared)
        with torch.random.fork_rng(devices=[]):  # peft initialises A from the global generator; `fill` does it again
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)), copy)
        self.added = nn.ModuleDict()
        for name, layer in copy.named_modules():
            if isinstance(layer, LoraLayer):
                down: Any = layer.lora_A["default"].float()
                up: Any = layer.lora_B["default"].float()
                fill(down.weight, generator)
                self.added[name.replace(".", "/")] = nn.ModuleDict({"A": down, "B": up})
        for name, module in extra.items():
            setattr(copy, name, module)
        self.extra = nn.ModuleDict(extra)
        self._network = (copy,)  # in a tuple, so that its frozen weights are not parameters of this module
        self._predict = predict

    def forward(self, x_t: Latents, t: Times, embeddings: Embeddings, view: ViewCondition | None = None) -> Latents:
        """eps_hat of one condition."""
        return self._predict(self._network[0], x_t, t, [embeddings], view)[0]


class CameraEmbedding(nn.Module):
    """camera_to_world, 16 numbers, to a vector as wide as a network's time embedding; its output starts at zero."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.utils.skip_init(nn.Linear, 16, width)
        self.last = nn.utils.skip_init(nn.Linear, width, width)
        fill(self.first.weight, generator)
        for tensor in (self.first.bias, self.last.weight, self.last.bias):
            nn.init.zeros_(tensor)

    def forward(self, camera: Float[Tensor, "B 16"]) -> Float[Tensor, "B W"]:
        hidden: Tensor = self.last(functional.silu(self.first(camera)))
        return hidden


@torch.no_grad()
def fill(weight: Tensor, generator: torch.Generator) -> None:
    """Uniform with variance 1 / (3 fan_in), the default of torch's layers."""
    bound = 1.0 / math.sqrt(weight[0].numel())
    weight.copy_(bound * (2.0 * torch.rand(weight.shape, generator=generator) - 1.0))
