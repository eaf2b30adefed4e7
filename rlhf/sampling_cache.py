"""The cache of keys and values while sampling: prompts computed once, with room for all the tokens to come."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer


def expand(cache: Any, repeats: int, room: int) -> None:
    """Repeat each row of a prefilled cache `repeats` times, and make room for `room` tokens more.

    A layer of a kind of its own (a sliding window, say) is repeated and grows as its library wants it to.
    """
    for n, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[n] = _RoomyLayer(layer, repeats, room)
        else:
            layer.batch_repeat_interleave(repeats)


class _RoomyLayer(DynamicLayer):
    """Keys and values are views of larger tensors, so that a new token is written and the old ones stay.

    The library's own layer copies everything at each token: a third of the time of sampling.
    """

    def __init__(self, layer: Any, repeats: int, room: int) -> None:
        super().__init__()
        self.is_initialized, self.dtype, self.device = True, layer.dtype, layer.device
        self.used = layer.keys.shape[-2]
        self.whole = [pad(x.repeat_interleave(repeats, 0), (0, 0, 0, room)) for x in (layer.keys, layer.values)]
        self.keys, self.values = self._view()

    def _view(self) -> tuple[Tensor, Tensor]:
        keys, values = self.whole
        return keys[:, :, : self.used], values[:, :, : self.used]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        before, self.used = self.used, self.used + key_states.shape[-2]
        keys, values = self._view()
        keys[:, :, before:], values[:, :, before:] = key_states, value_states
        self.keys, self.values = keys, values
        return keys, values

    def batch_select_indices(self, indices: Tensor) -> None:
        self.whole = [x[indices] for x in self.whole]
        self.keys, self.values = self._view()
