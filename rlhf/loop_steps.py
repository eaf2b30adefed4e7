"""The steps of one iteration that are not training: who is sampled, what is asked, how it went on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from labeling.intervals import bootstrap
from labeling.records import Candidate, Lineage, Prompt, Slate, UserError
from labeling.selection import choose
from rlhf.answers import Answers
from rlhf.backbones import Backbone, decode_response, decoder_of, encode_messages, encode_response
from rlhf.divergences import k1
from rlhf.noted_forward import noted_bytes, room
from rlhf.online_loop import GoldFn
from rlhf.packing import Group
from rlhf.policy import Policy
from rlhf.random_streams import python_stream, torch_stream
from rlhf.reward_model import ScoreModel, score_groups
from rlhf.rollout import assemble, collect
from rlhf.run_config import RunConfig
from rlhf.sampling import Sampled, sample


def encode_prompt(backbone: Backbone, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of a prompt record."""
    return tuple(encode_messages(backbone, [{"role": m.role, "content": m.content} for m in prompt.messages]))


def check_prompts(backbone: Backbone, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    """Raise UserError for the first prompt that leaves no room for the response."""
    for prompt in prompts:
        length = len(encode_prompt(backbone, prompt))
        if length + max_new_tokens > backbone.context:
            begin = prompt.messages[-1].content[:40].replace("\n", " ")
            raise UserError(
                f"prompt {prompt.id} ({begin!r}…) has {length} tokens; with sampling.max_new_tokens = {max_new_tokens} "
                f"that is over the {backbone.context} of {backbone.name}: shorten it or choose another model"
            )


def draw_prompts(prompts: Sequence[Prompt], start: int, count: int, seed: int) -> list[Prompt]:
    """`count` prompts from place `start` of an endless sequence of shuffled passes: each comes equally often."""
    drawn: list[Prompt] = []
    for turn in range(start // len(prompts), -(-(start + count) // len(prompts))):
        chance = python_stream(seed, "prompts", prompts[0].split, turn)
        shuffled = chance.sample(range(len(prompts)), len(prompts))
        first = turn * len(prompts)
        drawn += [prompts[n] for n in shuffled[max(0, start - first) : start + count - first]]
    return list(dict.fromkeys(drawn))


def answer(
    policy: Policy,
    prompts: Sequence[Prompt],
    per_prompt: int,
    config: RunConfig,
    version: str,
    generator: torch.Generator,
    on_token: Callable[[int, int], None] = lambda done, total: None,
    temperature: float | None = None,
    note: int = 0,
) -> Answers:
    """Sample responses from the policy, in batches of at most `token_budget` tokens of cache.

    temperature: the run's own by default; 0 is greedy. note: of how many prompts, the first ones, forwards are kept,
    as far as there is room.
    """
    backbone = policy.backbone
    ids = [encode_prompt(backbone, p) for p in prompts]
    row = max(map(len, ids)) + config.sampling.max_new_tokens
    # A decoding step costs about the same for a few rows as for many, so batches are as wide as memory likes.
    width = max(1, 8 * config.token_budget // (row * per_prompt))
    tokens = max(map(len, ids)) + per_prompt * config.sampling.max_new_tokens
    note = min(note, room() // (tokens * max(1, noted_bytes(decoder_of(policy.model)))))
    sampled: list[list[Sampled]] = []
    batches = -(-len(ids) // width)
    for b in range(batches):
        sampled += sample(
            backbone,
            policy.model,
            ids[b * width : (b + 1) * width],
            per_prompt,
            config.sampling.max_new_tokens,
            config.sampling.temperature if temperature is None else temperature,
            generator,
            lambda done, total, b=b: on_token(b * total + done, batches * total),  # type: ignore[misc]
            note=max(0, note - b * width),
        )
    candidates = [
        tuple(Candidate(decode_response(backbone, list(s.ids)), version, s.finished) for s in row) for row in sampled
    ]
    return Answers(tuple(prompts), tuple(ids), tuple(map(tuple, sampled)), tuple(candidates))


def candidate_groups(backbone: Backbone, answers: Answers) -> list[Group]:
    """The answers as the reward model reads them: from their text, which is what annotators see."""
    groups = []
    for prompt, candidates in zip(answers.prompt_ids, answers.candidates, strict=True):
        encoded = [encode_response(backbone, c.text, c.finished) for c in candidates]
        groups.append(Group(prompt, tuple(tuple(e[: backbone.context - len(prompt)]) for e in encoded)))
    return groups


def reward_scores(
    model: ScoreModel, backbone: Backbone, answers: Answers, token_budget: int
) -> list[tuple[float, ...]]:
    """Normalised reward-model scores of all answers, by prompt."""
    scores = score_groups(model, candidate_groups(backbone, answers), backbone.pad_id, token_budget)
    return [tuple(part.tolist()) for part in scores.split([len(c) for c in answers.candidates])]


def make_slates(
    answers: Answers, count: int, config: RunConfig, iteration: int, predicted: Sequence[Sequence[float]], model: str
) -> list[Slate]:
    """Up to `count` slates from the answers, one per prompt and then a second round over the prompts.

    Responses with the same text count once; a prompt with fewer than two different ones gives no slate.
    predicted: scores of each prompt's answers, or empty before the first fit.
    """
    labels = config.labels
    slates: dict[str, Slate] = {}
    for n in range(count):
        b = n % len(answers.prompts)
        prompt, candidates = answers.prompts[b], answers.candidates[b]
        distinct = sorted({(c.text, c.finished): n for n, c in enumerate(candidates)}.values())
        if len(distinct) < 2:
            continue
        scores = predicted[b] if predicted else ()
        k = min(labels.candidates[n % len(labels.candidates)], len(distinct))
        chance = python_stream(config.seed, iteration, "select", prompt.id, n)
        choice = choose(distinct, scores, k, labels.selector, labels.random_share, chance)
        foreseen = tuple(scores[position] for position in choice.positions) if scores else ()
        lineage = Lineage(config.name, iteration, choice.selector, choice.propensity, model, foreseen)
        slate = Slate(prompt, tuple(candidates[position] for position in choice.positions), lineage)
        slates[slate.id] = slate
    return list(slates.values())


def evaluate(
    policy: Policy,
    model: ScoreModel | None,
    prompts: Sequence[Prompt],
    gold: GoldFn,
    config: RunConfig,
    version: str,
    on_token: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, object]:
    """One response to each held-out prompt, always from the same random stream: gold with its 95 % interval, proxy.

    kl_per_sequence is `mean Σ_t (logp_t − ref_logp_t)` of these responses, in nats. gold_by_prompt keeps
    the scores apart, so that two evaluations can be compared prompt by prompt.
    """
    answers = answer(policy, prompts, 1, config, version, torch_stream(config.seed, "evaluate"), on_token)
    texts = [c[0] for c in answers.candidates]
    scores = gold(list(zip(answers.prompts, texts, strict=True)))
    known = [s for s in scores if s is not None]
    interval = bootstrap(known)
    proxies = [s[0] for s in reward_scores(model, policy.backbone, answers, config.token_budget)] if model else []
    lengths = [len(row[0].ids) for row in answers.sampled]
    unrewarded = [[0.0] for _ in texts]
    groups, _ = collect(answers.prompt_ids, answers.sampled, unrewarded)
    longest, temperature = config.sampling.max_new_tokens, config.sampling.temperature
    rollout = assemble(policy, None, groups, longest, temperature, config.token_budget)
    kl = (k1(rollout.old_logp, rollout.ref_logp) * rollout.mask).sum(1).mean().item()
    return {
        "split": "heldout",
        "gold": interval.mean,
        "gold_low": interval.low,
        "gold_high": interval.high,
        "gold_by_prompt": list(scores),
        "gold_missing": len(scores) - len(known),
        "proxy": sum(proxies) / len(proxies) if proxies else None,
        "kl_per_sequence": kl,
        "length": sum(lengths) / len(lengths),
        "finished": sum(c.finished for c in texts) / len(texts),
        "distinct_2": distinct_n([c.text for c in texts], 2),
        "samples": [
            {
                "prompt": p.messages[-1].content,
                "response": c.text,
                "gold": scores[n],
                "proxy": proxies[n] if proxies else None,
            }
            for n, (p, c) in enumerate(zip(answers.prompts, texts, strict=True))
        ][:6],
    }


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of different n-grams of words among all (arXiv 1510.03055); 0 without any."""
    grams = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
