"""A run in the terminal: a bar for the phase that runs, a line for each that ended, a summary per iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

SAYS = {
    "load": "load the model",
    "sample": "sample responses",
    "label": "label slates",
    "fit": "fit the reward model",
    "update": "update the policy",
    "evaluate": "evaluate",
    "checkpoint": "write the checkpoint",
}
AGENT_SAYS = SAYS | {"load": "make the agent", "sample": "run the agent", "update": "train the agent"}


class TerminalView:
    """Draws a run's events as they come; without a terminal it writes plain lines."""

    def __init__(self, iterations: int, console: Console | None = None) -> None:
        self.console = console or Console()
        self.iterations = iterations
        self.gold_before: float | None = None
        self.agent = False
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def show(self, iteration: int, kind: str, data: Mapping[str, Any]) -> None:
        """Take in one event."""
        if kind == "run":
            self.agent = bool(data.get("environment"))
        elif kind == "phase":
            self._phase(iteration, data)
        elif kind == "evaluation" and self.agent:
            self._line(f"  {'' if iteration else 'before training: '}{_return_line(data)}")
        elif kind == "evaluation" and iteration == 0:
            self.gold_before = data["gold"]
            self._line(f"  before training: held-out gold {_interval(data)}")
        elif kind == "fit" and data["slates"]:
            self._line(f"  reward model {data['reward_model']}: {self._fit_line(data)}")
            if data.get("withdrawn_labels"):
                self._line(f"  {_withdrawn_line(data)}")
        elif kind == "update" and (lack := _lack(data)):
            self._line(f"  {_plain(lack)}")
        elif kind == "evaluation":
            self._line(f"  held-out gold {_interval(data)}, before training {_number(self.gold_before)}")
        elif kind == "iteration":
            told = _agent_row(data) if self.agent else _language_row(data)
            head = f"[bold]iteration {iteration}/{self.iterations}[/bold] in {data['seconds']:.0f} s"
            self._line(f"{head}: {told}; {data['verdict']}")

    def close(self) -> None:
        """Take the bar away, whatever state it is in."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _phase(self, iteration: int, data: Mapping[str, Any]) -> None:
        says = AGENT_SAYS if self.agent else SAYS
        what = says.get(data["phase"], data["phase"]) + (f" ({data['note']})" if data["note"] else "")
        where = f"[{iteration}/{self.iterations}]" if iteration else "[start]"
        if data["state"] == "start" and self.console.is_terminal:
            self.close()
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(f"{_plain(where)} {_plain(what)}", total=None)
        elif data["state"] == "progress" and self._bar is not None:
            self._bar.update(self._task, completed=data["done"], total=data["total"])
        elif data["state"] == "end":
            self.close()
            self.console.print(f"  {_plain(where)} {_plain(what)}: {data['seconds']:.1f} s", highlight=False)

    def _fit_line(self, data: Mapping[str, Any]) -> str:
        labels = ", ".join(f"{n} by {kind}s" for kind, n in data["labels_by_kind"].items() if n)
        low, high = data["heldout_accuracy_low"], data["heldout_accuracy_high"]
        right = f"right on {_number(data['heldout_accuracy'])} ({_number(low)} to {_number(high)}) of held-out pairs"
        return (
            f"{data['slates']} slates, labels: {labels}; {right if data['heldout_pairs'] else 'no held-out pairs yet'}"
        )

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False)


def _withdrawn_line(data: Mapping[str, Any]) -> str:
    before, now = _number(data["heldout_accuracy_before"]), _number(data["heldout_accuracy"])
    return (
        f"fitted afresh without {data['withdrawn_labels']} labels that no longer stand: "
        f"{_number(data['changed_pairs'])} of pairs are ordered otherwise, held-out accuracy {before} → {now}"
    )


def _lack(data: Mapping[str, Any]) -> str:
    """What a policy update had too little of; empty for one that had its samples, and for an agent's."""
    if data.get("steps") == 0:
        missing, unused = data["missing_rewards"], data["unused_samples"]
        return f"nothing to learn from: {missing:.0f} answers have no reward, the filter left {unused:.0f} out"
    if data.get("groups_short"):
        short, draws = data["groups_short"], data["attempts"]
        return f"{short:.0f} prompts short: after {draws:.0f} draws the filter has left no more (attempts in [recipe])"
    return ""


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3f}"


def _interval(data: Mapping[str, Any]) -> str:
    return f"{_number(data['gold'])} (95 % CI {_number(data['gold_low'])} to {_number(data['gold_high'])})"


def _language_row(data: Mapping[str, Any]) -> str:
    return (
        f"proxy {_number(data['proxy_heldout'])}, gold {_number(data['gold_heldout'])}, "
        f"KL {_number(data['kl_per_sequence'])} nats per response"
    )


def _agent_row(data: Mapping[str, Any]) -> str:
    """A behaviour without a reward function has no true return to tell."""
    gold = data["gold_heldout"]
    true = "" if gold is None else f"true return {gold:.1f}, "
    return f"{true}{data['labels']} labels and {data['environment_steps']:.0f} environment steps so far"


def _return_line(data: Mapping[str, Any]) -> str:
    """The evaluation of an agent: true return with its interval where there is one, predicted return and length."""
    known = data["gold"] is not None
    true = (
        f"true return {data['gold']:.1f} (95 % CI {data['gold_low']:.1f} to {data['gold_high']:.1f}), " if known else ""
    )
    predicted = "" if data["proxy"] is None else f"predicted return {data['proxy']:.1f}, "
    return f"evaluation episodes: {true}{predicted}{data['length']:.0f} steps long"
