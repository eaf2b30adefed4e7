"""Sampling: the log-probabilities are the model's own, and no row changes another."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from labeling.records import UserError
from rlhf import sampling, shared_prompts
from rlhf.backbones import Backbone, decoder_of, load_backbone
from rlhf.linear_layers import plain, threads_for
from rlhf.logprobs import token_logprobs
from rlhf.packing import Group, pack
from rlhf.sampling import Sampled, _pick, sample

PROMPTS = [tuple(range(60, 72)), (80, 81, 82), (90, 91, 92, 93, 94)]
LONGEST = 12


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    """A sharpened tiny model that ends a response at any of 40 tokens, so lengths vary and rows leave the batch."""
    backbone = load_backbone("tiny")
    with torch.no_grad():
        for p in backbone.model.parameters():
            p.mul_(2)
    return replace(backbone, eos_ids=tuple(range(40)))


def draw(tiny: Backbone, temperature: float, seed: int = 0, prompts: list = PROMPTS, each: int = 8) -> list:
    generator = torch.Generator().manual_seed(seed)
    return sample(tiny, tiny.model, prompts, each, LONGEST, temperature, generator)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_the_trainers(tiny: Backbone, temperature: float) -> None:
    rows = draw(tiny, temperature)
    lengths = {len(s.ids) for row in rows for s in row}
    assert len(lengths) > 4  # rows did leave early, so the cache was cut while others went on
    for prompt, row in zip(PROMPTS, rows, strict=True):
        packed = pack([Group(prompt, tuple(s.ids for s in row))], tiny.pad_id)
        logp, _ = token_logprobs(tiny.model, packed, temperature)
        for n, s in enumerate(row):
            torch.testing.assert_close(torch.tensor(s.logp), logp[n, : len(s.ids)].detach(), atol=1e-4, rtol=0)


def test_a_model_without_probabilities_is_told_of() -> None:
    broken = load_backbone("tiny")
    with torch.no_grad():
        next(broken.model.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match=r"NaN or infinity: .* learning_rate in \[recipe\] must be lower"):
        draw(broken, 1.0)


def test_a_response_ends_with_the_first_end_token_or_at_the_limit(tiny: Backbone) -> None:
    found = [s for row in draw(tiny, 1.0) for s in row]
    assert {s.finished for s in found} == {True, False}
    for s in found:
        ends = [t in tiny.eos_ids for t in s.ids]
        assert not any(ends[:-1])
        assert s.finished == ends[-1]
        assert s.finished or len(s.ids) == LONGEST
        assert len(s.ids) == len(s.logp)


def test_greedy_equals_the_librarys(tiny: Backbone) -> None:
    rows = draw(tiny, 0, each=1)
    for prompt, [mine] in zip(PROMPTS, rows, strict=True):
        ids = torch.tensor([prompt])
        theirs = tiny.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=LONGEST,
            eos_token_id=list(tiny.eos_ids),
            pad_token_id=tiny.pad_id,
        )
        assert mine.ids == tuple(theirs[0, len(prompt) :].tolist())


def test_a_batch_gives_each_row_what_it_would_get_alone(tiny: Backbone) -> None:
    together = draw(tiny, 0, each=1)
    alone = [draw(tiny, 0, prompts=[p], each=1)[0] for p in PROMPTS]
    assert [[s.ids for s in row] for row in together] == [[s.ids for s in row] for row in alone]


def test_the_same_seed_gives_the_same_responses_and_another_seed_others(tiny: Backbone) -> None:
    assert draw(tiny, 1.0, seed=3) == draw(tiny, 1.0, seed=3)
    assert draw(tiny, 1.0, seed=3) != draw(tiny, 1.0, seed=4)


def test_the_global_generator_is_neither_read_nor_moved(tiny: Backbone) -> None:
    torch.manual_seed(1)
    first, state = draw(tiny, 1.0), torch.get_rng_state()
    torch.manual_seed(2)
    assert draw(tiny, 1.0) == first
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_first_tokens_follow_the_models_distribution(tiny: Backbone) -> None:
    with torch.no_grad():
        logits = tiny.model(input_ids=torch.tensor([PROMPTS[1]])).logits[0, -1]
    p = (logits / 0.5).softmax(-1)
    [row] = sample(tiny, tiny.model, [PROMPTS[1]], 4000, 1, 0.5, torch.Generator().manual_seed(0))
    counts = torch.bincount(torch.tensor([s.ids[0] for s in row]), minlength=len(p))
    top = p.argsort(descending=True)[:5]
    # Standard error sqrt(p/4000) <= 0.008 for p <= 0.25.
    assert p[top[0]] > 0.02
    torch.testing.assert_close(counts[top] / 4000, p[top], atol=0.02, rtol=0)


def test_progress_counts_up_to_the_whole(tiny: Backbone) -> None:
    calls: list[tuple[int, int]] = []
    generator = torch.Generator().manual_seed(0)
    sample(tiny, tiny.model, PROMPTS[:1], 1, 5, 1.0, generator, lambda done, total: calls.append((done, total)))
    assert calls[0] == (1, 5)
    assert calls[-1] == (5, 5)


def test_sampled_values_are_plain(tiny: Backbone) -> None:
    [[s]] = draw(tiny, 1.0, prompts=PROMPTS[:1], each=1)
    assert isinstance(s, Sampled)
    assert all(type(i) is int for i in s.ids)
    assert all(type(x) is float for x in s.logp)


def test_a_model_whose_attention_is_its_own_samples_the_same(tiny: Backbone) -> None:
    shared = draw(tiny, 1.0)
    tiny.model.config._attn_implementation = "eager"  # the library's cache, with a copy of the prompt for each row
    try:
        repeated = draw(tiny, 1.0)
    finally:
        tiny.model.config._attn_implementation = "sdpa"
    assert [[s.ids for s in row] for row in shared] == [[s.ids for s in row] for row in repeated]


def test_prompts_are_kept_once_and_room_is_made_at_the_start(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    places: set[int] = set()
    attend = shared_prompts._Shared.attend

    def watched(shared: shared_prompts._Shared, layer: int, *states: torch.Tensor) -> torch.Tensor:
        places.update(x.data_ptr() for x in (*shared.prompts[layer], *shared.own[layer]))
        assert len(shared.prompts[layer][0]) == 2
        return attend(shared, layer, *states)

    monkeypatch.setattr(shared_prompts._Shared, "attend", watched)
    draw(replace(tiny, eos_ids=(300,)), 1.0, prompts=PROMPTS[:1] * 2)  # nothing ends, so no row leaves
    assert len(places) == 4 * 4  # keys and values of prompts and rows in each of 4 layers, over all 11 steps


@pytest.mark.parametrize("size", [700, 512, 5])  # with and without a last block that is not full, and less than one
def test_tokens_are_picked_in_proportion_to_their_weights(size: int) -> None:
    weights = torch.zeros(size)
    weights[[0, 2, size - 1]] = torch.tensor([1.0, 2.0, 5.0])
    found = _pick(weights.expand(20_000, size), torch.Generator().manual_seed(0))
    counts = torch.bincount(found, minlength=size)
    assert counts.sum() == counts[[0, 2, size - 1]].sum()  # never one of weight 0
    # Standard error at most sqrt(1/4/20000) = 0.0035.
    torch.testing.assert_close(counts[[0, 2, size - 1]] / 20_000, torch.tensor([1, 2, 5]) / 8, atol=0.012, rtol=0)


def test_rows_are_picked_apart() -> None:
    weights = torch.eye(3).repeat_interleave(2, 0) + 0.0
    assert _pick(weights, torch.Generator().manual_seed(0)).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("few", "small"), [(sampling.FEW, 1), (0, 2)])
def test_of_few_rows_what_is_small_is_left_to_one_thread(
    tiny: Backbone, few: int, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, set[int]] = {"products": set(), "norms": set()}

    def product(layer: nn.Linear, x: Tensor) -> Tensor:
        found["products"].add(torch.get_num_threads())
        return plain(layer, x)

    monkeypatch.setattr(sampling, "of_few_rows", product)
    monkeypatch.setattr(sampling, "FEW", few)
    hook = decoder_of(tiny.model).norm.register_forward_hook(lambda *_: found["norms"].add(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        draw(tiny, 1.0)
        assert found == {"products": {2}, "norms": {2, small}}  # 2 over the prompts
        assert torch.get_num_threads() == 2
    finally:
        hook.remove()
        torch.set_num_threads(before)


def test_all_threads_are_there_again_after_what_fails() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def failing(layer: nn.Linear, x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt), threads_for(failing) as product:
            product(nn.Linear(1, 1), torch.ones(1, 1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
