"""Where gradients lie while they are summed over micro-batches."""

from __future__ import annotations

import torch
from torch import nn


def lay_out_gradients(model: nn.Module, forwards: int) -> None:
    """Prepare for the gradients of a step of so many forwards, before the first of them.

    Of one forward they come as its activations go, and take their place. Those of several begin as zeros: so they lie
    side by side, and not between what each forward frees, where the next one would find too many holes too small for
    it (a fifth of a step's memory). And the gradient of an embedding is then of the rows that were looked up alone,
    added to the zeros of the others, which takes no second table.
    """
    for module in model.modules():
        if type(module) is nn.Embedding:
            module.sparse = forwards > 1 and module.weight.requires_grad
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if forwards > 1 and parameter.requires_grad else None
