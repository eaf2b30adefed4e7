"""An agent's run as HTML text: what it is to learn, the newest clip of its policy, and those from before."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labeling.records import is_clip_id
from labeling.run_figures import plain
from labeling.run_panels import section, table
from labeling.run_view import Figures, RunView, number, series
from labeling.run_words import is_agent
from labeling.store import HumanLabel

MOST_SHOWN = 12


def goal(view: RunView, labels: Sequence[HumanLabel]) -> str:
    """What people and judges are asked, with how many labels were given and how far they can be predicted.

    labels: of people, who see theirs counted at once; those of others are told at the end of each iteration.
    """
    if not is_agent(view):
        return ""
    question, guide = (str(view.about.get(key) or "") for key in ("question", "guide"))
    told = f'<p class="asked">{escape(question)}</p>' if question.strip() else ""
    told += f'<p class="guide">{escape(guide)}</p>' if guide.strip() else ""
    told_last = [int(point.y) for point in series(view.iterations, "labels")[-1:]]
    given = max([sum(label.ours for label in labels), *told_last])
    accuracy = series(view.fits, "heldout_accuracy")
    pairs = number(view.fits[int(accuracy[-1].x)], "heldout_pairs") if accuracy else None
    so_many = "" if pairs is None else f" ({plain(int(pairs))} so far)"
    facts = (
        (plain(given), "labels given so far"),
        (f"{100 * accuracy[-1].y:.0f} %" if accuracy else "–", f"of held-out comparisons{so_many} predicted rightly"),
    )
    boxes = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in facts)
    return (
        f'<section class="card goal"><h3>What to look for</h3><div class="row"><div>{told}</div>'
        f'<div class="counts">{boxes}</div></div></section>'
    )


def clips(view: RunView) -> str:
    """The newest clip of the policy, playing, and a strip of up to 12 from the untrained policy to now, which wait."""
    if not is_agent(view):
        return ""
    shown = clips_by_iteration(view)
    if not shown:
        return section("The policy in action", '<p class="note">No clip yet.</p>')
    newest = max(shown)
    strip = "".join(
        _figure(i, shown[i], view.evaluations[i], 'preload="none" tabindex="0"') for i in evenly(sorted(shown))
    )
    large = _figure(newest, shown[newest], view.evaluations[newest], "autoplay controls")
    return section(
        "The policy in action",
        f'<div class="clips"><div class="newest">{large}</div><div class="strip">{strip}</div></div>',
    )


def clip_names(view: RunView) -> str:
    """The clips by name, for the report, which holds no videos."""
    rows = [
        [str(i), name, plain(number(view.evaluations[i], "length"))] for i, name in clips_by_iteration(view).items()
    ]
    note = "The project that this report is of can show them: the live page plays each under its name."
    return (
        section("Clips of the policy", table(["Iteration", "Clip", "Episode length, steps"], rows), note)
        if rows
        else ""
    )


def clips_by_iteration(view: RunView) -> dict[int, str]:
    """The clip of each evaluation that has one. What cannot name a clip is left out: it would become an address."""
    named = {i: str(view.evaluations[i].get("clip") or "") for i in sorted(view.evaluations)}
    return {i: name for i, name in named.items() if is_clip_id(name)}


def evenly(items: list[int], most: int = MOST_SHOWN) -> list[int]:
    """At most `most` of the items, evenly spaced, always with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def _figure(iteration: int, clip: str, evaluation: Figures, attributes: str) -> str:
    name = f"Iteration {iteration}" if iteration else "Untrained"
    gold = number(evaluation, "gold")
    worth = "" if gold is None else f"<small>true return {plain(gold)}</small>"
    return (
        f'<figure><video muted loop playsinline {attributes} src="/clips/{clip}.mp4" '
        f'aria-label="the policy, {name.lower()}"></video><figcaption>{name} {worth}</figcaption></figure>'
    )
