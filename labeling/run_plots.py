"""The figures of a run per iteration, as plots with the newest value in large."""

from __future__ import annotations

from html import escape

from labeling.run_figures import Chart, line_chart, plain
from labeling.run_panels import count
from labeling.run_view import Change, RunView, change, number, planned_iterations, series
from labeling.run_words import is_agent, words


def plots(view: RunView) -> str:
    """The figures of a run per iteration, each with its newest value in large."""
    drawn = _of_an_agent(view) if is_agent(view) else _of_a_language_model(view)
    return f'<div class="plots">{"".join(drawn)}</div>'


def _of_a_language_model(view: RunView) -> list[str]:
    gold = series(view.evaluations, "gold", "gold_low", "gold_high")
    proxy = series(view.evaluations, "proxy")
    divergence = series(view.evaluations, "kl_per_sequence")
    untouched, last_x = number(view.evaluations.get(0), "gold"), _last_x(view)
    return [
        _plot("Held-out gold", Chart(gold, last_x, "gold", untouched, "untouched model"), gold_verdict(view)),
        _plot("Proxy reward, held-out", Chart(proxy, last_x, "proxy"), "what each iteration's reward model says"),
        _plot("KL per sequence", Chart(divergence, last_x, "kl"), "nats from the untouched model"),
        _accuracy(view),
    ]


def _of_an_agent(view: RunView) -> list[str]:
    """The true return is drawn where there is one: many a behaviour has no reward function at all."""
    gold = series(view.evaluations, "gold", "gold_low", "gold_high")
    proxy = series(view.evaluations, "proxy")
    labels = series(view.iterations, "labels")
    untrained, last_x = number(view.evaluations.get(0), "gold"), _last_x(view)
    true = Chart(gold, last_x, "gold", untrained, "untrained policy")
    return [
        *([_plot("True return (never seen by the agent)", true, gold_verdict(view))] if gold else []),
        _plot("Predicted return", Chart(proxy, last_x, "proxy"), "what each iteration's reward model says"),
        _plot("Labels given", Chart(labels, last_x, "labels"), "by people, judges and simulated annotators together"),
        _accuracy(view),
    ]


def _accuracy(view: RunView) -> str:
    accuracy = series(view.fits, "heldout_accuracy", "heldout_accuracy_low", "heldout_accuracy_high")
    pairs = number(view.fits.get(max(view.fits, default=0)), "heldout_pairs")
    return _plot(
        "Reward-model accuracy",
        Chart(accuracy, _last_x(view), "accuracy", 0.5, "a coin"),
        f"on {count(int(pairs), 'held-out pair')}" if pairs else "on held-out pairs",
        share=True,
    )


def _last_x(view: RunView) -> int:
    return max(view.iteration, min(planned_iterations(view), 10))


def gold_verdict(view: RunView) -> str:
    """Whether held-out quality moved, in words that claim no more than the intervals show."""
    found = change(series(view.evaluations, "gold", "gold_low", "gold_high"))
    if found is None or found.first.x == found.last.x:
        return "independent quality; the trainer never sees it"
    return {
        "above": f"clearly above the {words(view).start} (95 % CIs apart)",
        "below": f"clearly below the {words(view).start} (95 % CIs apart)",
        "unclear": "not yet distinguishable from the start (95 % CIs touch)",
    }[found.verdict]


def _plot(title: str, chart: Chart, note: str, share: bool = False) -> str:
    found: Change | None = change(chart.points)
    value = "–" if found is None else f"{100 * found.last.y:.0f} %" if share else plain(found.last.y)
    moved = ""
    if found is not None and found.first.x != found.last.x:
        step = found.last.y - found.first.y
        by = f"{100 * step:+.0f} points".replace("-", "−") if share else plain(step, signed=True)
        moved = f"<small>{by} since iteration {found.first.x}</small>"
    return (
        f'<section class="card plot"><h3>{escape(title)}</h3><p class="value">{value} {moved}</p>'
        f'{line_chart(chart, f"{title} per iteration")}<p class="note">{escape(note)}</p></section>'
    )
