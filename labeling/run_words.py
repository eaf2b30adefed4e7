"""What the page calls things: a language model answers prompts, an agent acts in episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labeling.run_view import RunView


@dataclass(frozen=True)
class Words:
    """The words of one kind of run.

    phases: what each phase does, in their order. loading: what is done before the first. start: the policy before any
    update. measured: where it is evaluated. checking: where labels lie that only measure. invite: said while nobody has
    labelled. names: figures that are not called after their key.
    """

    phases: Mapping[str, str]
    loading: str
    start: str
    measured: str
    checking: str
    invite: str
    names: Mapping[str, str] = field(default_factory=dict)


_NAMES = {
    "gold": "Gold (95 % CI)",
    "proxy": "Proxy reward",
    "kl_per_sequence": "KL per response, nats",
    "kl_per_token": "KL per token, nats",
    "moved_kl": "KL moved by the update per token, nats",
    "loss_kl": "KL in the loss, nats",
    "entropy": "Entropy per token, nats",
    "sampling_entropy": "Entropy of the samples per token, nats",
    "distinct_2": "Distinct 2-grams",
    "length": "Length, tokens",
    "heldout_accuracy": "Held-out accuracy",
    "heldout_log_loss": "Held-out log-loss",
    "heldout_ece": "Held-out ECE",
    "heldout_pairs": "Held-out pairs",
    "proxy_heldout": "Held-out proxy",
    "gold_heldout": "Held-out gold",
    "reward_model_accuracy": "Reward-model accuracy",
}
LANGUAGE = Words(
    phases={
        "sample": "Sampling responses",
        "label": "Collecting labels",
        "fit": "Fitting the reward model",
        "update": "Improving the policy",
        "evaluate": "Evaluating on held-out prompts",
        "checkpoint": "Saving a checkpoint",
    },
    loading="Starting: loading the model",
    start="untouched model",
    measured="held-out prompts",
    checking="on held-out prompts, which check the reward model",
    invite="Compare two answers on the labeling page: your label shows up here at once.",
    names=_NAMES,
)
AGENT = Words(
    phases={
        "sample": "Running the agent",
        "label": "Collecting labels",
        "fit": "Fitting the reward model",
        "update": "Training the agent",
        "evaluate": "Evaluating the agent",
        "checkpoint": "Saving a checkpoint",
    },
    loading="Starting: making the environment",
    start="untrained policy",
    measured="evaluation episodes",
    checking="on held-out episodes, which check the reward model",
    invite="Compare two clips on the labeling page: your label shows up here at once.",
    names=_NAMES
    | {
        "gold": "True return (95 % CI)",
        "proxy": "Predicted return",
        "length": "Episode length, steps",
        "proxy_heldout": "Predicted return",
        "gold_heldout": "True return",
        "proxy_train": "Predicted, in training",
        "gold_train": "True return, in training",
        "labels": "Labels so far",
    },
)


def is_agent(view: RunView) -> bool:
    """Whether the run trains an agent that acts in an environment."""
    return bool(view.about.get("environment"))


def words(view: RunView) -> Words:
    """The words for this run."""
    return AGENT if is_agent(view) else LANGUAGE
