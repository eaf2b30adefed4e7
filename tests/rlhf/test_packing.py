"""Packed slates give what plain sequences give, and cost each token once."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from labeling.records import UserError
from rlhf import packing
from rlhf.backbones import Backbone, decoder_of, load_backbone
from rlhf.logprobs import check_layout, token_logprobs
from rlhf.packing import Group, hidden_states, micro_batches, pack
from rlhf.reward_model import ScoreModel, make_reward_model, score_groups
from rlhf.shared_prefix import common_length, prefill

# Different lengths of prompts and candidates, one candidate of a single token, one group of one.
GROUPS = [
    Group(tuple(range(10, 21)), (tuple(range(30, 37)), (40,), tuple(range(50, 53)))),
    Group((7, 8), ((9, 9, 9, 12),)),
    Group((5, 6, 7, 8, 9), ((60, 61), (60, 61, 62, 63, 64))),
]
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    """The tiny model with a sharper head, so that a wrong mask or position shows in the log-probabilities."""
    backbone = load_backbone("tiny")
    with torch.no_grad():
        for p in backbone.model.parameters():
            p.mul_(3)
    return backbone


@pytest.fixture(scope="module")
def scorer(tiny: Backbone) -> ScoreModel:
    model = make_reward_model(tiny, "full", 4)
    torch.manual_seed(1)
    nn.init.normal_(model.head.weight, std=0.02)
    model.mean.fill_(0.25)
    model.std.fill_(2.0)
    return model


def sequences() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(g.prompt, c) for g in GROUPS for c in g.candidates]


@torch.no_grad()
def test_log_probabilities_and_entropies_equal_those_of_plain_sequences(tiny: Backbone) -> None:
    logp, entropy = token_logprobs(tiny.model, pack(GROUPS, tiny.pad_id), TEMPERATURE)
    assert logp.shape == (6, 7)
    for n, (prompt, candidate) in enumerate(sequences()):
        logits = tiny.model(input_ids=torch.tensor([[*prompt, *candidate]])).logits[0, len(prompt) - 1 : -1]
        plain = (logits / TEMPERATURE).log_softmax(-1)
        t = len(candidate)
        torch.testing.assert_close(logp[n, :t], plain[range(t), candidate], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(entropy[n, :t], -(plain.exp() * plain).sum(-1), atol=1e-5, rtol=1e-5)
        assert logp[n, t:].abs().sum() == entropy[n, t:].abs().sum() == 0


@torch.no_grad()
def test_scores_and_values_equal_those_of_plain_sequences(tiny: Backbone, scorer: ScoreModel) -> None:
    packed = pack(GROUPS, tiny.pad_id)
    raw, values = scorer.raw_scores(packed), scorer.values(packed)
    for n, (prompt, candidate) in enumerate(sequences()):
        states = scorer.decoder(input_ids=torch.tensor([[*prompt, *candidate]])).last_hidden_state[0]
        heads = (states @ scorer.head.weight[0]).float()
        t = len(candidate)
        assert raw[n].item() == pytest.approx(heads[-1].item(), abs=1e-5)  # at the last token
        expected = (heads[len(prompt) - 1 : -1] - 0.25) / 2.0  # at the state before each token
        torch.testing.assert_close(values[n, :t], expected, atol=1e-5, rtol=1e-5)
        assert values[n, t:].abs().sum() == 0


def test_scores_do_not_depend_on_the_token_budget_and_keep_their_order(tiny: Backbone, scorer: ScoreModel) -> None:
    whole, alone = (score_groups(scorer, GROUPS, tiny.pad_id, budget) for budget in (10_000, 1))
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)
    packed = (scorer.raw_scores(pack(GROUPS, tiny.pad_id)) - 0.25) / 2.0
    torch.testing.assert_close(whole, packed.detach(), atol=1e-5, rtol=1e-5)


def test_the_prompt_is_computed_once_per_slate_and_each_candidate_once(tiny: Backbone, scorer: ScoreModel) -> None:
    seen: list[int] = []
    for decoder in (decoder_of(tiny.model), scorer.decoder):
        hook = decoder.get_submodule("embed_tokens").register_forward_hook(lambda _, x, __: seen.append(x[0].numel()))
        packed = pack(GROUPS[:1], tiny.pad_id)
        token_logprobs(tiny.model, packed, 1.0) if decoder is not scorer.decoder else scorer.raw_scores(packed)
        hook.remove()
    # P + ΣT = 11 + 7 + 1 + 3, and not 3·11 + 11.
    assert seen == [22, 22]


def test_a_candidate_does_not_see_its_neighbours(tiny: Backbone) -> None:
    group = GROUPS[0]
    other = replace(group, candidates=((99,) * 7, *group.candidates[1:]))
    one, two = (token_logprobs(tiny.model, pack([g], tiny.pad_id), 1.0)[0] for g in (group, other))
    assert torch.equal(one[1:], two[1:])
    assert not torch.allclose(one[0], two[0])


def test_layout_of_a_packed_row() -> None:
    packed = pack([Group((5, 6), ((7, 8), (9,))), Group((4,), ((3, 2),))], pad_id=0)
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9], [4, 3, 2, 0, 0]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 0, 0]]  # each continues from the prompt's end
    assert packed.row.tolist() == [0, 0, 1]
    assert packed.tokens.tolist() == [[7, 8], [9, 0], [3, 2]]
    assert packed.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert packed.last.tolist() == [3, 4, 2]
    # The prompt's last state predicts the first token of every candidate.
    assert packed.before[packed.mask].tolist() == [1, 2, 1, 0, 1]
    sees = packed.visible[0, 0].int().tolist()
    assert sees == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


def states_and_gradients(backbone: Backbone) -> list[torch.Tensor]:
    decoder, packed = decoder_of(backbone.model), pack(GROUPS, backbone.pad_id)
    decoder.zero_grad()
    states = hidden_states(decoder, packed)[packed.row[:, None], packed.column][packed.mask]
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return [states, *(p.grad.clone() for p in decoder.parameters() if p.grad is not None)]


def test_attention_by_pieces_is_attention_under_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("tiny")
    backbone.model.set_attn_implementation("sdpa")
    calls: list[torch.Size] = []
    attention = packing.scaled_dot_product_attention
    monkeypatch.setattr(
        packing,
        "scaled_dot_product_attention",
        lambda q, k, *rest, **more: calls.append((q.shape[2], k.shape[2])) or attention(q, k, *rest, **more),
    )
    by_pieces = states_and_gradients(backbone)
    # Each prompt over itself, each candidate over its prompt and itself, and nothing else; in each of four layers.
    # (queries, keys)
    once = [(11, 11), (7, 18), (1, 12), (3, 14), (2, 2), (4, 6), (5, 5), (2, 7), (5, 10)]
    assert calls == once * 4
    assert backbone.model.config._attn_implementation == "sdpa"  # the library's own again
    backbone.model.set_attn_implementation("eager")
    masked = states_and_gradients(backbone)
    assert len(calls) == 36
    for mine, theirs in zip(by_pieces, masked, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


def test_fewer_heads_of_keys_than_of_queries() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model, packed = LlamaModel(config).eval(), pack(GROUPS, 0)
    states = hidden_states(model, packed)[packed.row, packed.last]
    for n, (prompt, candidate) in enumerate(sequences()):
        plain = model(input_ids=torch.tensor([[*prompt, *candidate]])).last_hidden_state[0, -1]
        torch.testing.assert_close(states[n], plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_go_on_from_a_prefix_as_if_it_stood_in_each(attention: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 100}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": attention}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()
    ids = (90, 91, 92, 93)
    prefix, packed = prefill(decoder_of(model), ids), pack(GROUPS, 0)
    for _ in range(2):  # the prefix is what it was, however often rows went on from it
        logp = token_logprobs(model, packed, 1.0, prefix=prefix)[0]
        for n, (prompt, candidate) in enumerate(sequences()):
            plain = model(input_ids=torch.tensor([[*ids, *prompt, *candidate]])).logits[0].log_softmax(-1)
            expected = [plain[t - len(candidate) - 1, token].item() for t, token in enumerate(candidate)]
            assert logp[n, : len(candidate)].tolist() == pytest.approx(expected, abs=1e-5)


def test_what_rows_begin_with_alike_leaves_each_a_token_of_its_own() -> None:
    assert common_length([(1, 2, 3, 4), (1, 2, 5)]) == 2
    assert common_length([(1, 2, 3, 4), (1, 2)]) == 1
    assert common_length([(1, 2), (3, 2)]) == 0
    assert common_length([(1, 2)]) == common_length([]) == 0


def test_padding_leaves_no_nan(tiny: Backbone) -> None:
    assert hidden_states(decoder_of(tiny.model), pack(GROUPS, tiny.pad_id)).isfinite().all()


def test_the_entropy_carries_no_gradient_and_the_log_probability_does(tiny: Backbone) -> None:
    logp, entropy = token_logprobs(tiny.model, pack(GROUPS, tiny.pad_id), 1.0)
    assert logp.requires_grad
    assert not entropy.requires_grad


@pytest.mark.parametrize("budget", [1, 12, 30, 10_000])
def test_micro_batches_keep_to_the_budget_and_cover_all_once(budget: int) -> None:
    groups = [Group((1,) * (1 + n % 5), ((2,) * (1 + n * 7 % 11), (3, 4))) for n in range(17)]
    batches = list(micro_batches(groups, budget))
    assert sorted(n for batch in batches for n in batch) == list(range(17))
    for batch in batches:
        padded = len(batch) * max(groups[n].tokens for n in batch)
        assert padded <= budget or len(batch) == 1
    longest = [max(groups[n].tokens for n in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    if budget == 10_000:
        assert len(batches) == 1


def test_a_model_that_cannot_be_packed_is_refused(tiny: Backbone) -> None:
    check_layout(tiny)

    class Capped(nn.Module):
        """Logits that are not the head of the decoder's states."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny.model

        def get_decoder(self) -> nn.Module:
            return self.inner.get_decoder()

        def get_output_embeddings(self) -> nn.Module:
            return self.inner.get_output_embeddings()

        def forward(self, input_ids: torch.Tensor) -> object:
            out = self.inner(input_ids=input_ids)
            out.logits = out.logits.tanh()
            return out

    with pytest.raises(UserError, match="'tiny' does not compute plain causal log-probabilities"):
        check_layout(replace(tiny, model=Capped()))  # type: ignore[arg-type]
