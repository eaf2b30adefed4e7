"""What a policy is rewarded for, and what becomes of a reward that is missing."""

import math

import pytest
from answer_world import RULED, answers, ruled

from labeling.records import UserError
from rlhf.backbones import load_backbone
from rlhf.packing import Group
from rlhf.recipe_options import make_recipe
from rlhf.reward_model import make_reward_model, score_groups
from rlhf.rewards import majority_vote, outcome, step_rewards, total
from rlhf.rollout import collect
from rlhf.scoring import model_scorer, rule_scorer

NAN, INFINITE = float("nan"), float("inf")


def test_the_outcome_is_the_score_of_the_whole() -> None:
    found = outcome(answers([["aa", "b"], ["ccc"]]), ruled())
    assert [list(row) for row in found.scores] == [[2.0, 1.0], [3.0]]  # the rule counts letters
    assert found.steps is None


def test_a_rule_scores_each_step_alone_and_the_outcome_is_their_sum() -> None:
    found = step_rewards(answers([["aa\nb\n", "ccc"], ["é\nee"]]), ruled())
    assert found.steps is not None
    # Tokens are bytes: "aa\n" is 0 to 2, "b\n" ends with the end-of-sequence token 5; "é" has two bytes.
    assert [[list(r) for r in row] for row in found.steps] == [
        [[(2, 2.0), (5, 1.0)], [(3, 3.0)]],
        [[(2, 1.0), (5, 2.0)]],
    ]
    assert found.scores == [[3.0, 3.0], [3.0]]
    assert found.figures == {"steps_per_response": pytest.approx(5 / 3)}


def test_steps_are_split_as_told() -> None:
    found = step_rewards(answers([["aa. bb\ncc. d"]]), ruled(), split="sentences")
    assert found.steps is not None
    assert [value for _, value in found.steps[0][0]] == [2.0, 4.0, 1.0]  # "aa. ", "bb\ncc. ", "d"


def test_only_the_last_step_of_a_response_can_have_been_cut_off() -> None:
    seen = []

    def rule(pairs: list) -> list:
        seen.extend((c.text, c.finished) for _, c in pairs)
        return [0.0] * len(pairs)

    step_rewards(answers([["one\ntwo"]], finished=False), rule_scorer(rule, RULED))
    assert seen == [("one", True), ("two", False)]


def test_the_reward_model_scores_a_step_by_what_was_said_so_far() -> None:
    model = make_reward_model(load_backbone("tiny"), "head", 4)
    model.head.weight.data.normal_()
    model.mean.fill_(0.3)
    model.std.fill_(2.0)
    given = answers([["aa\nbb", "c"], ["dd\nee\nf"]])
    scorer = model_scorer(model, RULED, 64)
    found = step_rewards(given, scorer)
    assert found.steps is not None
    for prompt, sampled, row in zip(given.prompt_ids, given.sampled, found.steps, strict=True):
        for s, steps in zip(sampled, row, strict=True):
            so_far = Group(prompt, tuple(s.ids[: end + 1] for end, _ in steps))
            expected = score_groups(model, [so_far], RULED.pad_id, 10_000).tolist()
            assert [value for _, value in steps] == pytest.approx(expected, abs=1e-5)


def test_a_response_with_a_step_without_a_reward_has_none() -> None:
    assert total([1.0, 2.5]) == 3.5
    assert total([]) == 0
    for missing in (None, NAN, INFINITE):
        assert total([1.0, missing]) is None
    found = step_rewards(answers([["a\nb", "?\nc"]]), ruled())  # the rule has no score for "?"
    assert found.scores == [[2.0, None]]


def test_majority() -> None:
    found = majority_vote(answers([["it is 4", "4.0", "5", "who knows"], ["?", "!"]]), ruled())
    assert found.scores == [[1.0, 1.0, 0.0, 0.0], [None, None]]  # no answer at all: no vote, and no reward
    assert found.figures == {"majority_share": pytest.approx((0.5 + 0.0) / 2)}
    lines = majority_vote(answers([["a\nYes", "no", "yes "]]), ruled(), extract="last_line")
    assert lines.scores == [[1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "options", "culprit"),
    [
        ("remax", {"reward": "majority_vote"}, "reward = 'majority_vote'"),
        ("grpo_process", {"running_scores": True}, "running_scores = true"),
        ("grpo", {"surrogate": ["clipped"]}, "there is no surrogate ['clipped']"),
    ],
)
def test_rewards_that_do_not_go_with_the_rest(name: str, options: dict, culprit: str) -> None:
    with pytest.raises(UserError) as caught:
        make_recipe(name, options)
    assert culprit in str(caught.value)


# Missing rewards


def test_a_missing_reward_is_counted_and_never_a_number() -> None:
    given = answers([["a", "b", "c", "d"], ["e"]])
    found, missing = collect(given.prompt_ids, given.sampled, [[1.0, None, NAN, INFINITE], [-math.inf]])
    assert missing == 4
    assert [[r.score for r in g.responses] for g in found] == [[1.0]]
    assert found[0].responses[0].sampled == given.sampled[0][0]


def test_without_the_greedy_response_nobody_is_compared() -> None:
    given = answers([["a", "b"], ["c"]])
    found, missing = collect(given.prompt_ids, given.sampled, [[1.0, 2.0], [3.0]], None, [NAN, 0.0])
    assert missing == 2
    assert [(g.prompt, g.baseline) for g in found] == [(given.prompt_ids[1], 0.0)]


def test_steps_stay_with_their_response() -> None:
    given = answers([["a", "b"]])
    steps = [[((0, 1.0),), ((0, 5.0), (1, 2.0))]]
    found, _ = collect(given.prompt_ids, given.sampled, [[None, 7.0]], steps)
    assert found[0].responses[0].steps == steps[0][1]
    assert found[0].responses[0].score == 7
