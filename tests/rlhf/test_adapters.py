"""LoRA layers give what the library's own give, and learn the same from it."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from rlhf.adapters import Adapted, add_lora
from rlhf.backbones import load_backbone

IDS = torch.arange(40, 58).reshape(2, 9)


@pytest.fixture
def adapted() -> nn.Module:
    """A tiny model with rank 4, whose adapters do something."""
    torch.manual_seed(3)
    model = add_lora(load_backbone("tiny").model, 4)
    for p in model.parameters():
        if p.requires_grad:
            nn.init.normal_(p, std=0.1)
    return model


def by_the_library(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for layer in twin.modules():
        if isinstance(layer, Adapted):
            layer.__class__ = Linear
    return twin


def learned(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and the gradients of a loss of them."""
    logits = model(input_ids=IDS).logits
    logits.square().mean().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_outputs_and_gradients_are_those_of_the_library(adapted: nn.Module) -> None:
    layers = [layer for layer in adapted.modules() if isinstance(layer, Adapted)]
    assert [layer.scaling for layer in layers] == [{"default": 2.0}] * 28  # 7 in each of 4 layers
    (ours, our_gradients), (theirs, their_gradients) = learned(adapted), learned(by_the_library(adapted))
    torch.testing.assert_close(ours, theirs)
    assert set(our_gradients) == set(their_gradients)
    assert all("lora_" in name and g.abs().max() > 0 for name, g in our_gradients.items())
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name])


def test_switched_off_it_is_the_model_itself(adapted: nn.Module) -> None:
    plain = load_backbone("tiny").model(input_ids=IDS).logits
    assert (adapted(input_ids=IDS).logits - plain).abs().max() > 0.1
    with adapted.disable_adapter():  # type: ignore[operator]
        assert torch.equal(adapted(input_ids=IDS).logits, plain)


def test_adapters_of_another_kind_than_the_weights_go_the_librarys_way() -> None:
    layer = add_lora(nn.Sequential(nn.Linear(8, 8, dtype=torch.bfloat16)), 4)
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    assert next(p.dtype for p in layer.parameters() if p.requires_grad) == torch.float32
    assert layer(x).dtype == torch.bfloat16
