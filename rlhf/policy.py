"""The policy and its frozen reference: adapters switched off (LoRA), or a second copy at rest (full fine-tuning)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from rlhf.backbones import Backbone
from rlhf.resting import awake, lay_down


@dataclass(frozen=True)
class Policy:
    """A model being trained. reference_model: the frozen copy, or None when it is the adapter switched off."""

    backbone: Backbone
    model: nn.Module
    reference_model: nn.Module | None

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The reference policy, to be used without gradients."""
        with torch.no_grad():
            if self.reference_model is not None:
                with awake(self.reference_model):
                    yield self.reference_model
            else:
                with self.model.disable_adapter():  # type: ignore[operator]
                    yield self.model

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def make_policy(backbone: Backbone, adaptation: Literal["full", "lora"], lora_rank: int) -> Policy:
    """A policy that starts as the backbone. The backbone's own weights are used and, with "full", change."""
    if adaptation == "lora":
        from rlhf.adapters import add_lora  # peft takes a while to load

        return Policy(backbone, add_lora(backbone.model, lora_rank), None)
    reference = copy.deepcopy(backbone.model).requires_grad_(False).eval()
    lay_down(reference)
    return Policy(backbone, backbone.model, reference)
