"""Which prompts are drawn, and which slates are made of their answers."""

from collections import Counter
from dataclasses import replace

import pytest
from loop_world import PROMPTS, tiny_config

from labeling.records import Candidate, Message, Prompt, UserError
from rlhf.answers import Answers
from rlhf.backbones import Backbone, load_backbone
from rlhf.loop_steps import (
    candidate_groups,
    check_prompts,
    distinct_n,
    draw_prompts,
    encode_prompt,
    make_slates,
)
from rlhf.sampling import Sampled

CONFIG = tiny_config("grpo", labels={"candidates": [2, 3]})


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("tiny")


def answers(*texts: tuple[str, ...]) -> Answers:
    """Responses to the first prompts."""
    prompts = PROMPTS[: len(texts)]
    rows = tuple(tuple(Candidate(t, "policy-3", t != "cut") for t in row) for row in texts)
    sampled = tuple(tuple(Sampled((1,), (0.0,), True) for _ in row) for row in texts)
    return Answers(prompts, tuple((7, n) for n in range(len(texts))), sampled, rows)


def test_each_prompt_comes_once_in_every_pass() -> None:
    drawn = [p for start in range(0, 96, 8) for p in draw_prompts(PROMPTS, start, 8, seed=3)]
    assert set(Counter(drawn).values()) == {2}  # 96 draws from 48 prompts
    assert drawn[:48] != drawn[48:]  # each pass in an order of its own
    assert drawn[:48] != list(PROMPTS)
    # A draw may cross from one pass into the next; a prompt that both bring comes once in it.
    assert draw_prompts(PROMPTS, 40, 16, seed=3) == list(dict.fromkeys(drawn[40:56]))
    assert draw_prompts(PROMPTS, 0, 8, seed=4) != drawn[:8]
    assert len(draw_prompts(PROMPTS[:5], 3, 20, seed=0)) == 5  # never a prompt twice in one batch


def test_slates_take_the_sizes_in_turn_and_know_where_they_come_from() -> None:
    made = make_slates(answers(("a", "b", "c"), ("d", "e", "f")), 4, CONFIG, 5, [], "")
    assert [(s.prompt, len(s.candidates)) for s in made[:2]] == [(PROMPTS[0], 2), (PROMPTS[1], 3)]
    assert {s.lineage.iteration for s in made} == {5}
    assert {s.lineage.run for s in made} == {"tiny"}
    assert made[0].lineage.selector == "random"
    assert made[0].lineage.propensity == pytest.approx(1 / 3)  # one of C(3, 2) pairs
    assert made[0].lineage.predicted == ()
    assert {c.policy for s in made for c in s.candidates} == {"policy-3"}


def test_responses_with_the_same_text_count_once_and_one_text_alone_makes_no_slate() -> None:
    made = make_slates(answers(("a", "a", "a"), ("b", "c", "b")), 2, CONFIG, 1, [], "")
    [slate] = made
    assert slate.prompt == PROMPTS[1]
    assert {c.text for c in slate.candidates} == {"b", "c"}


def test_the_prediction_stands_beside_the_candidate_that_it_is_about() -> None:
    scores = {"a": 0.1, "b": 0.7, "c": -0.4}
    for iteration in range(12):  # places are shuffled
        [slate, *_] = make_slates(answers(("a", "b", "c")), 1, CONFIG, iteration, [[0.1, 0.7, -0.4]], "tiny/fit-1")
        assert slate.lineage.predicted == tuple(scores[c.text] for c in slate.candidates)
        assert slate.lineage.reward_model == "tiny/fit-1"


def test_the_large_gap_is_asked_for_by_name() -> None:
    labels = replace(CONFIG.labels, selector="large_gap", random_share=0.0, candidates=(2,))
    config = replace(CONFIG, labels=labels)
    [slate] = make_slates(answers(("a", "b", "c")), 1, config, 1, [[0.1, 0.7, -0.4]], "m")
    assert {c.text for c in slate.candidates} == {"b", "c"}
    assert (slate.lineage.selector, slate.lineage.propensity) == ("large_gap", 1.0)


def test_the_reward_model_reads_the_text_that_annotators_see(tiny: Backbone) -> None:
    [group] = candidate_groups(tiny, answers(("ab", "cut")))
    plain = tiny.tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert group.prompt == (7, 0)
    assert group.candidates[0] == (*plain, 0)  # finished: with the end token
    assert group.candidates[1][-1] != 0  # cut off: without


def test_the_first_prompt_that_leaves_no_room_is_named(tiny: Backbone) -> None:
    fits = Prompt((Message("user", "x" * 480),))
    over = Prompt((Message("user", "Once upon a time " + "x" * 480),))
    used = len(encode_prompt(tiny, fits))
    check_prompts(tiny, [fits], 512 - used)  # to the last token
    with pytest.raises(UserError, match=rf"prompt {fits.id} .* has {used} tokens"):
        check_prompts(tiny, [fits], 513 - used)
    with pytest.raises(UserError, match=rf"prompt {over.id} \('Once upon a time x+'…\) .*shorten it"):
        check_prompts(tiny, [PROMPTS[0], over], 20)


def test_distinct_n() -> None:
    # Bigrams: (a b) (b a) (a b) and (a b): 2 different of 4.
    assert distinct_n(["a b a b", "a b"], 2) == 0.5
    assert distinct_n(["a", ""], 2) == 0.0
