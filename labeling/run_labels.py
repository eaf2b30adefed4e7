"""People's labels as HTML text: how many were given, and which fit of the reward model each of them entered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from labeling.run_view import LabelState, RunView, Tally, state_of, tally
from labeling.run_words import words
from labeling.store import HumanLabel

SHORT_PROMPT = 90


def people(view: RunView, labels: Sequence[HumanLabel], prompts: Mapping[str, str], title: str = "Your labels") -> str:
    """How many labels people gave and what became of them; `prompts` holds the text of the recent ones by slate."""
    counts = tally(labels)
    boxes = "".join(
        f'<div class="{kind}"><b data-count="{kind}">{n}</b><span>{escape(text)}</span></div>'
        for kind, n, text in (
            ("given", counts.given, "given by people"),
            ("learned", counts.by_state.get("learned", 0), _entered(counts)),
            (
                "waiting",
                counts.by_state.get("waiting", 0),
                "wait for the next fit" + (" of a resumed run" if view.end else ""),
            ),
        )
    )
    besides = _ASIDE | {"checking": words(view).checking}
    aside = [f"{n} {besides[state]}" for state, n in counts.by_state.items() if state in besides]
    note = f'<p class="note">Besides: {escape(", ".join(aside))}.</p>' if aside else ""
    if not labels:
        note = f'<p class="note">{escape(words(view).invite)}</p>'
    recent = [label for label in reversed(labels) if label.slate_id in prompts]
    rows = "".join(_recent(label, prompts[label.slate_id]) for label in recent)
    listed = f'<ul class="recent">{rows}</ul>' if rows else ""
    return (
        f'<section class="card people"><h3>{escape(title)}</h3><div class="counts">{boxes}</div>'
        f"{_fit_chips(counts)}{listed}{note}</section>"
    )


_ASIDE: dict[LabelState, str] = {
    "empty": "without a preference (skip, both bad)",
    "elsewhere": "on slates that are not of this run",
}


def _entered(counts: Tally) -> str:
    return f"entered the reward model by fit #{max(counts.by_fit)}" if counts.by_fit else "entered the reward model"


def _fit_chips(counts: Tally) -> str:
    newest = sorted(counts.by_fit)[-6:]
    chips = "".join(f"<li>fit #{i} <b>+{counts.by_fit[i]}</b></li>" for i in newest)
    return f'<ul class="chips">{chips}</ul>' if chips else ""


def _recent(label: HumanLabel, prompt: str) -> str:
    state = state_of(label)
    words = {
        "learned": f"entered fit #{label.first_fit}",
        "waiting": "waits for the next fit",
        "checking": "checks the reward model",
        "empty": label.outcome.replace("_", " "),
        "elsewhere": "not of this run",
    }[state]
    return (
        f'<li class="{state}"><span class="who">{escape(label.annotator.removeprefix("human:"))}</span>'
        f'<span class="prompt">{escape(shorten(prompt))}</span><span class="state">{escape(words)}</span></li>'
    )


def shorten(text: str, limit: int = SHORT_PROMPT) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
