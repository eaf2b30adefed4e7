"""LoRA adapters (arXiv 2106.09685) on the linear layers of a model."""

from __future__ import annotations

import warnings

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn


class Adapted(Linear):
    """`W·x + b + α/r·B·(A·x)` in two small products and one sum, where all numbers are of one kind.

    The library's own takes four passes over the output more, each of which is kept for the backward pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) of a (…, in) input."""
        ((name, a),) = self.lora_A.items()
        if self.disable_adapters or a.weight.dtype != x.dtype:
            return super().forward(x)
        y, inner = self.base_layer(x), x.flatten(0, -2) @ a.weight.mT
        return torch.addmm(y.flatten(0, -2), inner, self.lora_B[name].weight.mT, alpha=self.scaling[name]).view_as(y)


def add_lora(module: nn.Module, rank: int) -> nn.Module:
    """Freeze a module and add adapters to its linear layers, α = 2·rank, no dropout."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    config._register_custom_module({nn.Linear: Adapted})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that will change
        adapted = get_peft_model(module, config)
    return adapted.eval()
