"""How probable each of a few given replies is, by a language model that is read and not sampled from.

    log π(y | x) = Σ_t log π(y_t | x, y_<t)

A question x and all replies y to it are one row of a packed forward, so each costs its tokens once and a reply of
several tokens is as exact as one of one. What several questions begin with alike is computed once for all. Nothing
here knows what a reply means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from labeling.records import Message, UserError
from rlhf.backbones import Backbone, decoder_of, device_of, encode_messages, encode_response, load_backbone
from rlhf.logprobs import check_layout, token_logprobs
from rlhf.packing import Group, micro_batches, pack
from rlhf.shared_prefix import common_length, prefill

TOKEN_BUDGET = 8192  # padded tokens in one forward


@dataclass(frozen=True)
class ReplyModel:
    """A model that is asked what it would reply. token_budget: padded tokens of a forward, shared ones in all rows."""

    backbone: Backbone
    token_budget: int = TOKEN_BUDGET

    @property
    def context(self) -> int:
        """The most tokens of a question and its longest reply together.

        At most the window of layers that see no further back: within it, they attend to everything.
        """
        window = getattr(self.backbone.model.config, "sliding_window", None)
        return min(self.backbone.context, window or self.backbone.context)

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a conversation that begins with a system turn, up to where the model replies.

        A chat template that knows no system turn gets its words at the head of the user's first turn. Raises UserError
        for one that takes neither.
        """
        from jinja2 import TemplateError

        system, *others = ({"role": message.role, "content": message.content} for message in messages)
        try:
            return tuple(encode_messages(self.backbone, [system, *others]))
        except TemplateError:
            merged = {**others[0], "content": f"{system['content']}\n\n{others[0]['content']}"}
        try:
            return tuple(encode_messages(self.backbone, [merged, *others[1:]]))
        except TemplateError as error:
            raise UserError(
                f"the chat template of {self.backbone.name!r} takes no conversation ({error}): choose another model"
            ) from error

    def longest(self, replies: Sequence[str]) -> int:
        """Tokens of the longest of these replies."""
        return max(map(len, self._encoded(replies)))

    def logprobs(
        self, questions: Sequence[tuple[int, ...]], replies: Sequence[str]
    ) -> Iterator[Mapping[int, list[float]]]:
        """Log-probability of each reply to each question, forward by forward, questions of like length together.

        Yields the question's index and (R,) numbers in nats. Deterministic but for rounding, whatever is asked beside.
        """
        candidates, shared = self._encoded(replies), common_length(questions)
        prefix = prefill(decoder_of(self.backbone.model), questions[0][:shared]) if shared else None
        # On a GPU every row has its own copy of the shared keys and values, so these count in all rows.
        for batch in micro_batches([Group(question, candidates) for question in questions], self.token_budget):
            groups = [Group(questions[i][shared:], candidates) for i in batch]
            packed = pack(groups, self.backbone.pad_id, device_of(self.backbone.model))
            with torch.inference_mode():  # (N, T), 0 outside the replies
                logp, _ = token_logprobs(self.backbone.model, packed, 1.0, prefix=prefix)
            rows: Any = logp.sum(1).view(len(batch), len(replies)).tolist()
            yield dict(zip(batch, rows, strict=True))

    def _encoded(self, replies: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(encode_response(self.backbone, reply, finished=False)) for reply in replies)


def open_reply_model(name: str) -> ReplyModel:
    """Load a model by name (see `load_backbone`), onto the first GPU if there is one. Raises UserError."""
    backbone = load_backbone(name)
    if torch.cuda.is_available():
        backbone.model.to("cuda")
    check_layout(backbone)
    return ReplyModel(backbone)
