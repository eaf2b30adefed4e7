"""Fitting and measuring the reward model, on slates whose truth is known and on scores worked out by hand."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_world import PROMPTS, World, run_tiny, tiny_config
from torch import Tensor, nn

from labeling.records import Candidate, Label, LabeledSlate, Message, Preference, Prompt, Slate, pairs
from rlhf.backbones import Backbone, decode_response, encode_response, load_backbone
from rlhf.packing import Group, pack
from rlhf.reward_model import ScoreModel, make_critic, make_reward_model, normalise, score_groups
from rlhf.reward_training import Example, Fit, encode_slate, expected_calibration_error, fit, measure

WORDS = ("aaaaaa", "aaazzz", "zzzzzz")  # the more a, the better


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("tiny")


def slates(tiny: Backbone, count: int, best: int = 1, first: int = 0) -> list[Example]:
    """Rankings of the three words in varying places; best = −1 turns every preference round."""
    examples = []
    for n in range(first, first + count):
        texts = [WORDS[(n + place) % 3] for place in range(3)]
        ranks = tuple(1 + WORDS.index(t) if best == 1 else 3 - WORDS.index(t) for t in texts)
        prompt = Prompt((Message("user", f"say {n}"),))
        slate = Slate(prompt, tuple(map(Candidate, texts)))
        preferences = tuple(Preference(slate.id, i, j, (1 + np.sign(ranks[j] - ranks[i])) / 2) for i, j in pairs(3))
        examples.append(encode_slate(tiny, LabeledSlate(slate, (), preferences)))
    return examples


FIT = Fit(epochs=3, learning_rate=1e-3, head_learning_rate=1e-2)


def fitted(tiny: Backbone, examples: list[Example], settings: Fit = FIT) -> tuple[ScoreModel, list[float]]:
    model = make_reward_model(tiny, "full", 4)
    return model, fit(model, examples, settings, tiny.pad_id, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("best", "accuracy"), [(1, 1.0), (-1, 0.0)])
def test_it_learns_what_the_labels_say_and_the_opposite_from_flipped_ones(
    tiny: Backbone, best: int, accuracy: float
) -> None:
    model, losses = fitted(tiny, slates(tiny, 24, best))
    assert losses[0] == pytest.approx(np.log(2))  # the head starts at 0
    assert losses[-1] < 0.3
    found = measure(model, slates(tiny, 12, first=100), tiny.pad_id, 10_000)  # prompts that it never saw
    assert found.accuracy == pytest.approx(accuracy, abs=0.1)
    assert found.pairs == 36


def test_cutting_a_step_into_micro_batches_changes_nothing(tiny: Backbone) -> None:
    examples = slates(tiny, 8)
    examples[0] = replace(examples[0], preferences=examples[0].preferences[:1])  # slates weigh the same all the same
    settings = replace(FIT, epochs=1, learning_rate=1e-4, centring=0.1)
    (whole, losses), (cut, losses_cut) = (
        fitted(tiny, examples, replace(settings, token_budget=budget)) for budget in (10_000, 1)
    )
    assert losses_cut == pytest.approx(losses, rel=1e-3)
    groups = [e.group for e in examples]
    one, other = (score_groups(m, groups, tiny.pad_id, 10_000) for m in (whole, cut))
    assert one.std() > 0.01
    torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-2)


def test_the_rate_warms_up_and_goes_down_to_nearly_nothing(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []  # of the head and of what is below it, in turns
    plain = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *given: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return plain(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    fitted(tiny, slates(tiny, 20), Fit(epochs=4, learning_rate=1e-4, head_learning_rate=1e-3, slates_per_step=4))
    # 20 steps, 2 of warm-up: ½, 1, then (20 − s)/19 for s = 2, 3, …, 19.
    expected = [0.5, 1.0, *[(20 - s) / 19 for s in range(2, 20)]]
    assert rates[1::2] == pytest.approx([1e-4 * x for x in expected])
    assert rates[::2] == pytest.approx([1e-3 * x for x in expected])


def test_a_slate_without_preferences_is_no_step(tiny: Backbone) -> None:
    examples = slates(tiny, 4)
    _, losses = fitted(
        tiny, [*examples, *(replace(e, preferences=()) for e in slates(tiny, 9))], Fit(slates_per_step=1)
    )
    assert len(losses) == 4


# Measuring, on a model whose raw score is a tenth of the last token's id.


class LastToken(nn.Module):
    """A decoder whose state is the token's own id."""

    @dataclass
    class Out:
        last_hidden_state: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: Tensor, **_: object) -> Out:
        return self.Out(input_ids[..., None].float())


def counting_model() -> ScoreModel:
    model = ScoreModel(LastToken(), 1)
    nn.init.constant_(model.head.weight, 0.1)
    return model


def pair(first: int, second: int, p: float) -> Example:
    """Two candidates with raw scores first/10 and second/10."""
    return Example(Group((1, 2), ((5, first), (second,))), (Preference("s", 0, 1, p),))


HAND = [pair(20, 10, 1.0), pair(10, 30, 1.0), pair(20, 10, 0.5), pair(20, 20, 1.0)]


def test_measures_by_hand() -> None:
    # Leads 1 (right), −2 (wrong), 1 (but a tie), 0 (half a hit). Of the three decided pairs 1.5 are right.
    found = measure(counting_model(), HAND, 0, 1000)
    assert found.pairs == 3
    assert found.accuracy == pytest.approx(0.5)
    # log(1+e^−1) = 0.3132617, log(1+e^2) = 2.1269280, ½·(0.3132617 + 1.3132617) = 0.8132617, log 2 = 0.6931472.
    assert found.log_loss == pytest.approx((0.3132617 + 2.1269280 + 0.8132617 + 0.6931472) / 4, rel=1e-5)
    # Predicted 0.7311, 0.1192, 0.7311, 0.5; observed 1, 1, ½, 1; and the same from the other side. By tenths:
    # [.7,.8): |1.4621 − 1.5|, [.2,.3): |0.5379 − 0.5|, [.1,.2): |0.1192 − 1|, [.8,.9): |0.8808 − 0|, [.5,.6): |1 − 1|.
    assert found.ece == pytest.approx((0.0378828 * 2 + 0.8807971 * 2) / 8, rel=1e-4)
    assert found.low <= found.accuracy <= found.high
    assert (found.low, found.high) == (0.0, 1.0)  # three slates: 1, 0, ½


def test_the_side_on_which_a_pair_is_named_does_not_matter() -> None:
    turned = [pair(b.group.candidates[1][-1], b.group.candidates[0][-1], 1 - b.preferences[0].p) for b in HAND]
    one, other = (measure(counting_model(), examples, 0, 1000) for examples in (HAND, turned))
    assert (one.accuracy, one.ece) == pytest.approx((other.accuracy, other.ece))
    assert one.log_loss == pytest.approx(other.log_loss)


def test_probabilities_come_from_the_raw_scale() -> None:
    scaled = counting_model()
    scaled.mean.fill_(5.0)
    scaled.std.fill_(3.0)
    one, other = measure(counting_model(), HAND, 0, 1000), measure(scaled, HAND, 0, 1000)
    assert (one.log_loss, one.ece) == pytest.approx((other.log_loss, other.ece), rel=1e-5)


def test_correlation_with_length() -> None:
    # Scores 1, 2, 3 for lengths 1, 2, 3.
    longer_is_better = Example(Group((1,), ((10,), (5, 20), (5, 5, 30))), (Preference("s", 0, 1, 1.0),))
    assert measure(counting_model(), [longer_is_better], 0, 1000).length_correlation == pytest.approx(1)
    shorter = Example(Group((1,), ((30,), (5, 20), (5, 5, 10))), (Preference("s", 0, 1, 1.0),))
    assert measure(counting_model(), [shorter], 0, 1000).length_correlation == pytest.approx(-1)


def test_without_pairs_there_is_no_figure() -> None:
    found = measure(counting_model(), [replace(HAND[0], preferences=())], 0, 1000)
    assert found.pairs == 0
    assert np.isnan([found.accuracy, found.log_loss, found.ece]).all()
    assert np.isnan(measure(counting_model(), HAND[2:3], 0, 1000).accuracy)  # a tie alone decides nothing


@pytest.mark.parametrize(
    ("predicted", "observed", "error"),
    [
        ([0.8], [1.0], 0.2),  # both sides are off by 0.2
        ([0.75, 0.75, 0.75, 0.75], [1.0, 1.0, 1.0, 0.0], 0.0),
        ([0.75, 0.75], [1.0, 0.0], 0.25),
        ([1.0], [1.0], 0.0),  # 1.0 falls into the last bin
        ([0.95, 0.55], [0.0, 1.0], 0.7),  # (0.95 + 0.45)/2
    ],
)
def test_expected_calibration_error(predicted: list[float], observed: list[float], error: float) -> None:
    assert expected_calibration_error(np.array(predicted), np.array(observed)) == pytest.approx(error)


def test_references_end_at_mean_zero_and_std_one() -> None:
    model = counting_model()
    model.mean.fill_(9.0)
    references = [Group((1,), ((10,), (20,))), Group((2, 3), ((30,),))]
    normalise(model, references, 0, 1000)
    # Raw 1, 2, 3: mean 2, unbiased std 1.
    assert (model.mean.item(), model.std.item()) == pytest.approx((2.0, 1.0))
    assert score_groups(model, references, 0, 1).tolist() == pytest.approx([-1, 0, 1])
    # The value of a state is on the same scale: 0.1·id of the token before.
    values = model.values(pack([Group((40,), ((10, 20),))], 0))
    assert values.tolist() == [pytest.approx([(4 - 2) / 1, (1 - 2) / 1])]
    normalise(model, [Group((1,), ((10,), (10,)))], 0, 1000)  # equal references: no division by 0
    assert model.std.item() > 0


def test_the_critic_starts_as_the_reward_model_and_goes_its_own_way(tiny: Backbone) -> None:
    model, _ = fitted(tiny, slates(tiny, 4))
    normalise(model, [e.group for e in slates(tiny, 4)], tiny.pad_id, 1000)
    packed = pack([slates(tiny, 1)[0].group], tiny.pad_id)
    critic = make_critic(model)
    before = model.values(packed)
    assert torch.equal(critic.values(packed), before)
    assert critic.values(packed)[packed.mask].abs().min() > 0
    with torch.no_grad():
        for p in critic.parameters():
            p.zero_()
    assert torch.equal(model.values(packed), before)


def test_the_reward_model_is_its_own_copy_of_the_backbone(tiny: Backbone) -> None:
    before = [p.detach().clone() for p in tiny.model.parameters()]
    fitted(tiny, slates(tiny, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.model.parameters(), strict=True))


# Tokens


def test_a_finished_response_ends_with_the_end_token_and_a_cut_one_does_not(tiny: Backbone) -> None:
    assert encode_response(tiny, "ab", finished=True) == [*encode_response(tiny, "ab", finished=False), 0]
    assert encode_response(tiny, "", finished=False) == [0]  # a candidate is never empty
    assert decode_response(tiny, encode_response(tiny, "né\n😀", finished=True)) == "né\n😀"


def test_a_slate_too_long_for_the_context_keeps_the_prompts_end_and_the_responses_beginning(tiny: Backbone) -> None:
    slate = Slate(Prompt((Message("user", "x" * 700 + "END"),)), (Candidate("BEGIN" + "y" * 600), Candidate("z")))
    label = Label(slate.id, "a", "ranked", "k", (1, 2))
    group = encode_slate(tiny, LabeledSlate(slate, (label,), ())).group
    assert len(group.candidates[0]) == 256
    assert len(group.prompt) + 256 == 512
    assert decode_response(tiny, list(group.candidates[0])).startswith("BEGIN")
    assert "END" in decode_response(tiny, list(group.prompt))


# Train and held-out


def test_a_fit_never_sees_a_held_out_prompt(tmp_path: Path) -> None:
    config = tiny_config("grpo", iterations=1, sampling={"prompts": 8, "responses": 4}, labels={"heldout_share": 0.4})
    world = World(0)
    run_tiny(config, tmp_path, world)
    split = {s.labels[0].client_key: s.slate.prompt.split for s in world.labeled.values()}
    assert {"train", "heldout"} == set(split.values())
    assert {split[key] for key in world.fits[1]} == {"train"}
    assert len(world.fits[1]) == sum(s == "train" for s in split.values())
    [row] = world.of_kind("fit")
    assert row["heldout_pairs"] > 0
    ids = {p.id for p in PROMPTS if p.split == "heldout"}
    asked = {s.slate.prompt.id for s in world.labeled.values() if s.slate.prompt.split == "heldout"}
    assert asked <= ids
