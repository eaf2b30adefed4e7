"""The samples that an update learns from: filtered, drawn again, beside greedy ones, or of another temperature."""

import math
from dataclasses import replace

import pytest
import torch
from answer_world import answers, ruled
from by_hand import close

from rlhf.answers import Answers
from rlhf.filters import best_weighted
from rlhf.policy_samples import Drawn, draw, gold_of_best, tempered_likelihood
from rlhf.recipes import GRPO, RECIPES, Recipe

DAPO = RECIPES["dapo"]


def never(*_: object) -> Answers:
    raise AssertionError("nothing more was to be sampled")


def drawn(recipe: Recipe, batches: list[Answers], greedy: Answers | None = None) -> Drawn:
    """Draw with the batches in their order; there must be as many as are asked for."""
    rest = iter(batches[1:])
    stream = torch.Generator().manual_seed(0)
    found = draw(recipe, ruled(), batches[0], lambda attempt: next(rest), lambda a: greedy or never(), stream)
    assert next(rest, None) is None
    return found


def scores(found: Drawn) -> list[list[float]]:
    return [[r.score for r in g.responses] for g in found.groups]


def test_without_a_filter_everything_comes_in_at_once() -> None:
    found = drawn(GRPO, [answers([["a", "bb"], ["c", "?"]])])
    assert scores(found) == [[1.0, 2.0], [1.0]]
    assert (found.missing, found.unused) == (1, 0)
    # 1, 2 and 1: variance ((⅓)²·2 + (⅔)²)/2 = ⅓. The second prompt has one score, so no contrast.
    assert found.figures == pytest.approx({"reward_mean": 4 / 3, "reward_std": 3**-0.5, "zero_std_groups": 0.5})
    assert found.first == [[1.0, 2.0], [1.0, None]]


def test_groups_without_contrast_are_replaced_by_other_prompts() -> None:
    batches = [
        answers([["a", "b"], ["c", "dd"], ["?", "?"]]),
        answers([["eee", "fff"], ["g", "h"], ["i", "j"]], first=3),
        answers([["k", "ll"], ["mmm", "n"], ["o", "pp"]], first=6),
    ]
    found = drawn(DAPO, batches)
    assert scores(found) == [[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]]
    assert [g.prompt for g in found.groups] == [(71,), (76,), (77,)]
    # Equal ones: 2 of the first batch and 6 of the second; and the 2 that one prompt too many had.
    assert (found.missing, found.unused) == (2, 2 + 6 + 2)
    # What the policy earns is what it said at first, not what was kept: 1, 1 and 1, 2. One of two had contrast.
    rewards = {"reward_mean": 1.25, "reward_std": 0.5, "zero_std_groups": 0.5}
    assert found.figures == pytest.approx(rewards | {"attempts": 3.0, "groups_short": 0.0})
    assert found.first == [[1.0, 1.0], [1.0, 2.0], [None, None]]


def test_the_attempts_are_bounded_and_the_rest_is_said() -> None:
    dull = [answers([["a", "b"]], first=n) for n in range(DAPO.attempts)]
    found = drawn(DAPO, dull)
    assert (found.groups, found.unused) == ([], 2 * DAPO.attempts)
    rewards = {"reward_mean": 1.0, "reward_std": 0.0, "zero_std_groups": 1.0}
    assert found.figures == rewards | {"attempts": 4.0, "groups_short": 1.0}


def test_without_any_reward_there_are_no_figures_of_rewards() -> None:
    found = drawn(GRPO, [answers([["?", "?"]])])
    assert (found.groups, found.missing, found.figures) == ([], 2, {})


def test_how_good_the_choice_of_the_reward_is() -> None:
    # Of the first prompt two are best (gold 1 and 0), of the second one whose gold nobody knows, of the third one of 1;
    # the fourth has no reward. (½ + 1)/2.
    rewards = [[1.0, 0.0, 1.0, None], [2.0, 1.0], [0.0, -1.0], [None, math.nan]]
    golds = [[1.0, 0.7, 0.0, 1.0], [None, 0.3], [1.0, 0.0], [0.2, 0.2]]
    assert gold_of_best(rewards, golds) == 0.75
    assert gold_of_best(rewards[3:], golds[3:]) is None
    assert gold_of_best([], []) is None


def test_the_filter_works_prompt_by_prompt() -> None:
    # Over the whole batch the best and the worst would both be of the second prompt.
    found = drawn(RECIPES["pf_ppo"], [answers([["aa", "bbb", "cccc"], ["d", "eeeee", "ff"]])])
    assert scores(found) == [[2.0, 4.0], [1.0, 5.0]]
    assert found.unused == 2


def test_who_is_drawn_again_enters_again() -> None:
    # Six draws with replacement for each prompt.
    recipe = replace(RECIPES["pf_ppo"], samples=best_weighted)
    found = drawn(recipe, [answers([["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]] * 2)])
    counts = [[r.count for r in g.responses] for g in found.groups]
    assert [sum(row) for row in counts] == [6, 6]
    assert found.unused == 12 - sum(map(len, counts)) > 0


def test_the_greedy_response_is_rewarded_as_the_others_are() -> None:
    given, greedy = answers([["a", "bb"], ["ccc", "d"]]), answers([["eeee"], ["?"]])
    found = drawn(RECIPES["remax"], [given], greedy)
    assert [(g.prompt, g.baseline) for g in found.groups] == [((70,), 4.0)]
    assert found.missing == 2


def test_the_greedy_response_is_rewarded_by_steps_where_steps_are() -> None:
    given, greedy = answers([["a", "bb"]]), answers([["a\nb\nc"]])
    recipe = replace(RECIPES["remax"], reward=RECIPES["grpo_process"].reward)
    steps_alone = replace(ruled(), whole=never)
    found = draw(recipe, steps_alone, given, never, lambda _: greedy, torch.Generator())
    assert found.groups[0].baseline == 3.0  # three steps of a letter each


# AEPO's term


def test_the_term_takes_what_is_better_and_weighs_it_among_all() -> None:
    # Tokens with their end: a 2, bbb 4 | cc 3, d 2, "?" is not scored | ee 3, ff 3 are equal. 17 tokens count.
    given = answers([["a", "bbb"], ["cc", "d", "?"], ["ee", "ff"]])
    recipe = RECIPES["aepo"]
    term = tempered_likelihood(recipe, ruled(), given, 9)
    assert term is not None
    assert [(g.prompt, g.candidates) for g in term.groups] == [
        ((70,), (given.sampled[0][1].ids,)),
        ((71,), (given.sampled[1][0].ids,)),
    ]
    close(term.weights[0], [[0.1 / 17] * 4])
    close(term.weights[1], [[0.1 / 17] * 3])
    assert (term.name, term.temperature) == ("tempered", None)


def test_without_a_better_one_there_is_no_term() -> None:
    for texts in ([["aa", "bb"], ["c"]], [["?"]]):
        assert tempered_likelihood(RECIPES["aepo"], ruled(), answers(texts), 9) is None
