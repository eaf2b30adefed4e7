"""Sampling responses: prompts prefilled once, their cache expanded to G rows, finished rows leaving the batch.

Everything random comes from the given generator, so the same seed gives the same responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from labeling.records import UserError
from rlhf.backbones import Backbone, decoder_of, device_of, head_of
from rlhf.kept_memory import keep_memory
from rlhf.linear_layers import Joined, layers_by, of_few_rows, plain, threads_for, watched, wide_layers
from rlhf.nameless_file import room
from rlhf.noted_forward import Noted, Notes, Places
from rlhf.packing import piecewise
from rlhf.shared_prompts import continuation

SHRINK_BELOW = 0.75  # copying the cache to fewer rows pays once a quarter of them have finished
FEW = 2**13  # rows · positions: attention over more is worth all threads
BLOCK = 256  # tokens of the vocabulary that are drawn together at first


@dataclass(frozen=True)
class Sampled:
    """One response: its token ids (with the end-of-sequence token if it was reached) and their log-probabilities.

    noted: what is kept of the forwards over its prompt and itself, for a forward over them by the same weights.
    """

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    finished: bool
    noted: Noted | None = field(default=None, compare=False, repr=False)


@torch.no_grad()
def sample(
    backbone: Backbone,
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
    on_token: Callable[[int, int], None] = lambda done, total: None,
    note: int = 0,
) -> list[list[Sampled]]:
    """Sample `per_prompt` responses for each prompt at `temperature` (0 = greedy).

    Returns one list of responses per prompt. `logp` is at the sampling temperature. `on_token(done, total)` is
    called after each position. note: of how many prompts, the first ones, the forwards are kept.
    Raises UserError for a model whose logits are NaN or infinite.
    """
    keep_memory()
    device, decoder, head = device_of(model), decoder_of(model), head_of(model)
    count = len(prompts) * per_prompt
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), backbone.pad_id)
    attention = torch.zeros(len(prompts), longest, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids[b, longest - len(prompt) :] = torch.tensor(prompt)
        attention[b, longest - len(prompt) :] = 1
    ids, attention = ids.to(device), attention.to(device)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    notebook = _Notebook(model, attention, per_prompt, max_new_tokens, note)
    with notebook.prompts():
        out = decoder(input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=True)
    onward = continuation(decoder, out.past_key_values, attention, per_prompt, max_new_tokens - 1)
    logits = _logits(head, out.last_hidden_state[:, -1])
    if not logits.amax(1).isfinite().all():
        raise UserError(
            "the model gives no probabilities, but NaN or infinity: it came damaged, or an update was too large and "
            "learning_rate in [recipe] must be lower"
        )
    logits = logits.repeat_interleave(per_prompt, 0)

    tokens = torch.full((count, max_new_tokens), backbone.pad_id, device=device)
    logps = torch.zeros(count, max_new_tokens, device=device)
    lengths = torch.full((count,), max_new_tokens, device=device)
    finished = torch.zeros(count, dtype=torch.bool, device=device)
    ends = torch.tensor(backbone.eos_ids, device=device)
    rows = torch.arange(count, device=device)  # which response each row of the batch is
    for t in range(max_new_tokens):
        token, logp, log_z, entropy = _draw(logits, temperature, generator)
        notebook.drawn(rows, t, log_z, entropy)
        alive = ~finished[rows]
        tokens[rows[alive], t], logps[rows[alive], t] = token[alive], logp[alive]
        ended = alive & torch.isin(token, ends)
        lengths[rows[ended]] = t + 1
        finished[rows[ended]] = True
        on_token(t + 1, max_new_tokens)
        alive &= ~ended
        if not alive.any() or t + 1 == max_new_tokens:
            break
        if alive.sum() < SHRINK_BELOW * len(rows):
            keep = alive.nonzero()[:, 0]
            onward.keep(keep)
            rows, token = rows[keep], token[keep]
        with notebook.responses(rows, t):
            states = onward.states(token)
        logits = _logits(head, states)
    on_token(max_new_tokens, max_new_tokens)

    responses = [
        Sampled(
            tuple(tokens[n, :length].tolist()),
            tuple(logps[n, :length].tolist()),
            bool(finished[n]),
            notebook.noted(n, length),
        )
        for n, length in enumerate(lengths.tolist())
    ]
    return [responses[b * per_prompt : (b + 1) * per_prompt] for b in range(len(prompts))]


def _logits(head: nn.Module, states: Tensor) -> Tensor:
    """(R, V) of the head at (R, H) states."""
    assert isinstance(head, nn.Linear)  # see check_layout
    product = of_few_rows if states.device.type == "cpu" else plain
    return product(head, states).contiguous()


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One token for each row of (R, V) logits, its log-probability at the temperature, and log Z and entropy there."""
    scaled = logits.float() if temperature in (0, 1) else logits.float() / temperature
    highest = scaled.amax(1, keepdim=True)
    weights = (scaled - highest).exp_()
    token = scaled.argmax(1) if temperature == 0 else _pick(weights, generator)
    total = weights.sum(1)
    log_z = highest[:, 0] + total.log()
    entropy = log_z - torch.linalg.vecdot(weights, scaled) / total
    return token, scaled.gather(1, token[:, None])[:, 0] - log_z, log_z, entropy


def _pick(weights: Tensor, generator: torch.Generator) -> Tensor:
    """(R,) places drawn in proportion to (R, V) weights: a block by its sum, then a place in it.

    Two uniform numbers a row, each looked up in a cumulative sum; `torch.multinomial` draws V of them.
    """
    u = torch.rand(2, len(weights), 1, dtype=torch.float64, generator=generator, device=generator.device)
    u = u.to(weights.device)
    short = -weights.shape[1] % BLOCK
    blocks = (pad(weights, (0, short)) if short else weights).unflatten(1, (-1, BLOCK))
    sums = blocks.sum(2).double().cumsum(1)
    block = torch.searchsorted(sums, u[0] * sums[:, -1:], right=True)
    within = blocks.gather(1, block[..., None].expand(-1, 1, BLOCK))[:, 0].double().cumsum(1)
    return (block * BLOCK + torch.searchsorted(within, u[1] * within[:, -1:], right=True))[:, 0]


class _Notebook:
    """Where the tokens of the first prompts and of their responses stand in the notes of the forwards over them.

    row: (N, T) which row of its forward the t-th token of a response is; the last token of all is run over by none.
    """

    def __init__(self, model: nn.Module, attention: Tensor, per_prompt: int, longest: int, wanted: int) -> None:
        decoder = decoder_of(model)
        count = min(wanted, len(attention)) if piecewise(decoder) else 0
        self.notes = Notes(model, decoder) if count else None
        self.layers = wide_layers(decoder) if device_of(decoder).type == "cpu" else []
        self.attention, self.per_prompt = attention[:count], per_prompt
        self.ends = self.attention.sum(1).cumsum(0)  # of each prompt, in the first forward
        self.joined = Joined([], 0)
        self.row = torch.zeros(count * per_prompt, longest, dtype=torch.long)
        self.log_z, self.entropy = torch.zeros(2, count * per_prompt, longest)

    @contextmanager
    def prompts(self) -> Iterator[None]:
        """Note a forward over all prompts, and watch which layers can be joined."""
        calls: list[tuple[nn.Linear, int]] = []
        rows, product, notes = self.attention.flatten().nonzero()[:, 0], watched(calls), self.notes
        with notes.taking(rows, product) if notes else layers_by(self.layers, product):
            yield
        self.joined = Joined(calls, room())

    @contextmanager
    def responses(self, rows: Tensor, t: int) -> Iterator[None]:
        """Note a forward over the t-th token of some responses, which are in order."""
        known = self._known(rows)
        self.row[known, t] = torch.arange(len(known))
        few = len(rows) * (self.attention.shape[1] + t) <= FEW
        with threads_for(of_few_rows) if few else nullcontext(of_few_rows) as product:
            joined, notes = self.joined.by(product), self.notes
            with notes.taking(slice(len(known)), joined) if notes else layers_by(self.layers, joined):
                yield

    def drawn(self, rows: Tensor, t: int, log_z: Tensor, entropy: Tensor) -> None:
        """Note what the t-th token of some responses was drawn from."""
        known = self._known(rows)
        self.log_z[known, t], self.entropy[known, t] = log_z[: len(known)], entropy[: len(known)]

    def _known(self, rows: Tensor) -> Tensor:
        return rows[rows < len(self.row)] if self.notes else rows[:0]

    def noted(self, n: int, length: int) -> Noted | None:
        """The notes of the n-th response and of its prompt."""
        if self.notes is None or n >= len(self.row):
            return None
        prompt = int(self.attention[n // self.per_prompt].sum())
        end = int(self.ends[n // self.per_prompt])
        passed = torch.cat([torch.zeros(prompt, dtype=torch.long), torch.arange(1, length), torch.tensor([-1])])
        row = torch.cat([torch.arange(end - prompt, end), self.row[n, :length]])
        return Noted(self.notes, Places(passed, row), self.log_z[n, :length], self.entropy[n, :length])
