"""Where rewards come from: the reward model, or a rule; each as a `Scorer` of whole responses and of their steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labeling.records import Candidate
from rlhf.answers import Answers
from rlhf.backbones import Backbone, decode_response, device_of
from rlhf.loop_steps import reward_scores
from rlhf.online_loop import GoldFn
from rlhf.packing import Group, hidden_states, micro_batches, pack
from rlhf.reward_model import ScoreModel
from rlhf.rewards import Scorer
from rlhf.step_splitting import Splitter, token_ends

Ends = Sequence[Sequence[Sequence[int]]]


def model_scorer(model: ScoreModel, backbone: Backbone, token_budget: int) -> Scorer:
    """Scores by the reward model; the reward of a step is the score of the response up to its end."""

    def steps(answers: Answers, ends: Ends) -> list[list[list[float | None]]]:
        groups = [
            Group(prompt, tuple(s.ids for s in row))
            for prompt, row in zip(answers.prompt_ids, answers.sampled, strict=True)
        ]
        return step_scores(model, groups, ends, backbone.pad_id, token_budget)

    return Scorer(
        lambda answers: reward_scores(model, backbone, answers, token_budget),
        lambda answers, split: step_ends(backbone, answers, split),
        steps,
    )


def rule_scorer(rule: GoldFn, backbone: Backbone) -> Scorer:
    """Scores by a rule; the reward of a step is the rule's score of the step alone."""

    def whole(answers: Answers) -> list[list[float | None]]:
        return [
            list(rule([(prompt, c) for c in row]))
            for prompt, row in zip(answers.prompts, answers.candidates, strict=True)
        ]

    def steps(answers: Answers, ends: Ends) -> list[list[list[float | None]]]:
        found: list[list[list[float | None]]] = []
        for prompt, row, row_ends in zip(answers.prompts, answers.sampled, ends, strict=True):
            found.append([])
            for sampled, marks in zip(row, row_ends, strict=True):
                begins = [0, *(end + 1 for end in marks[:-1])]
                texts = [
                    decode_response(backbone, list(sampled.ids[b : e + 1])) for b, e in zip(begins, marks, strict=True)
                ]
                # Only the last step can have been cut off.
                whole = [True] * (len(texts) - 1) + [sampled.finished]
                steps = [Candidate(t.strip(), "", end) for t, end in zip(texts, whole, strict=True)]
                found[-1].append(list(rule([(prompt, step) for step in steps])))
        return found

    return Scorer(whole, lambda answers, split: step_ends(backbone, answers, split), steps)


def step_ends(backbone: Backbone, answers: Answers, split: Splitter) -> list[list[list[int]]]:
    """The index of the last token of each step of each response."""
    return [
        [token_ends(s.ids, lambda ids: decode_response(backbone, ids), split) for s in row] for row in answers.sampled
    ]


@torch.no_grad()
def step_scores(
    model: ScoreModel, groups: Sequence[Group], ends: Ends, pad_id: int, token_budget: int
) -> list[list[list[float | None]]]:
    """Normalised score of each response up to each of its steps' ends: all from one packed forward."""
    found: list[list[list[float | None]]] = [[] for _ in groups]
    for batch in micro_batches(groups, token_budget):
        packed = pack([groups[i] for i in batch], pad_id, device_of(model))
        states = hidden_states(model.decoder, packed)[packed.row[:, None], packed.column]
        scores = (model.head(states)[..., 0].float() - model.mean) / model.std
        rows = iter(scores.cpu())
        for i in batch:
            found[i] = [next(rows)[list(marks)].tolist() for marks in ends[i]]
    return found
