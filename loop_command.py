"""The command `prefloop loop`: it gives the online loop its surroundings, and tells the store how the run goes.

Here, as in `app.py`, packages that do not know each other meet: the store, the judges and what learns.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from labeling.records import Annotator, Candidate, LabeledSlate, Prompt, Slate, UserError
from shipped import DATA, HERE, shipped

if TYPE_CHECKING:
    from judges.answer import Judge
    from labeling.store import Store
    from labeling.trust import Trust
    from rlhf.control.control_config import ControlConfig
    from rlhf.online_loop import GoldFn, Subject
    from rlhf.run_config import RunConfig

POLL_SECONDS = 1.0
# How long a thread stays awake for its next piece of work. As long as it likes (libgomp's default): beside the web app
# and a browser sampling takes several times as long. Not at all: alone, a step takes a seventh longer.
SPINS = "3000"


def loop(project: Path, run: str, overrides: Sequence[str], resume: bool) -> None:
    """Run the online loop of a run file, or of a shipped one by its name.

    overrides: "key=value" in place of what the file says. resume: go on from the last checkpoint. Raises UserError.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch loads
    os.environ.setdefault("TQDM_DISABLE", "1")  # one set of bars is enough: the run draws its own
    from labeling.store import RunEvent, Store
    from rlhf.checkpoints import refuse_if_started
    from rlhf.run_file import load_any_run
    from rlhf.run_log import provenance, run_folder
    from rlhf.terminal_view import TerminalView

    path = shipped("runs", run)
    config = load_any_run(path, tuple(overrides))
    store = Store(project, create=is_agent(config))  # a language model needs prompts, which make a project
    view = TerminalView(config.iterations)

    def emit(iteration: int, kind: str, data: Mapping[str, Any]) -> None:
        view.show(iteration, kind, data)
        store.add_event(RunEvent(config.name, iteration, kind, data))

    folder = project / "runs" / config.name
    with run_folder(folder, config):
        if not resume:
            refuse_if_started(folder, config.name)  # before the run is told anything, so its events stay as they are
        sources = [*(["human"] if config.labels.humans else []), *config.labels.judges]
        sources += ["oracle"] if config.labels.oracle else []
        told = {**_about(config), "seed": config.seed, "sources": sources}
        emit(0, "run", {**told, "iterations": config.iterations, "config": config.to_dict(), **provenance(HERE)})
        reason, message = "failed", "an internal error; the terminal says more"
        try:
            _run(config, path, store, emit, resume)
            reason, message = "finished", f"{config.iterations} iterations"
        except UserError as error:
            message = str(error)
            raise
        except KeyboardInterrupt:
            for again in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not break the clean-up
                signal.signal(again, signal.SIG_IGN)
            reason, message = "stopped", "go on with --resume"
            raise
        finally:
            view.close()
            store.add_event(RunEvent(config.name, 0, "end", {"reason": reason, "message": message}))
            if reason != "failed":
                print(f"{config.name}: {reason} ({message})")


def is_agent(config: RunConfig | ControlConfig) -> TypeGuard[ControlConfig]:
    """Whether a run file is an agent's."""
    return hasattr(config, "environment")


def _about(config: RunConfig | ControlConfig) -> dict[str, str]:
    """What a run's page says of it."""
    if not is_agent(config):
        return {"recipe": config.make_recipe().name, "model": config.model.name}  # type: ignore[union-attr]
    name = config.environment.id
    asked = {"question": config.question, "guide": config.guide}
    return {"recipe": config.agent.algorithm, "model": name, "environment": name, **asked}


def _run(
    config: RunConfig | ControlConfig,
    path: Path,
    store: Store,
    emit: Callable[[int, str, Mapping[str, Any]], None],
    resume: bool,
) -> None:
    """Hand the loop its surroundings: the store, the judges, people, the simulated annotator and the gold scores."""
    from judge_command import Asking, ask_people, open_judge, waiting_for
    from judges.batch import label_slates
    from rlhf.online_loop import Surroundings, run_loop

    def beside(name: str) -> str:
        return str(path.parent / name) if name.endswith((".toml", ".md", ".jsonl")) else name

    judges = [open_judge(beside(name), store) for name in config.labels.judges]
    what, make, gold = (
        _agent(config, store, judges) if is_agent(config) else _language_model(config, store, beside)  # type: ignore[arg-type]
    )
    judges = [judge.checked(store) for judge in judges]
    for judge in judges:
        for remark in judge.remarks:
            print(f"{judge.annotator.id}: {remark}")
        store.add_annotator(judge.annotator)

    asking = Asking(config.labels.audit, config.labels.route)
    trusted: dict[str, Trust] = {}
    rubrics = {judge.annotator.id: judge.rubric.name for judge in judges}

    def ask(iteration: int, slates: Sequence[Slate]) -> list[LabeledSlate]:
        store.add_slates(slates)
        for judge in judges:
            if stopped := label_slates(judge, slates, store, on_wait=waiting_for(judge)).stopped:
                print(f"{judge.annotator.id}: {stopped}; the run goes on without it")
            ask_people(judge.annotator.id, store, asking)
        if config.labels.oracle:
            _ask_oracle(config, store, slates, gold)
        _wait_for_people(config, store, slates, iteration)
        slates_so_far, trust = store.labeled_with_trust(config.name)
        trusted.update(trust)
        return slates_so_far

    noise = config.reward_model.label_noise if is_agent(config) else 0.0  # of whoever says none, as the fit takes it

    def trust(annotators: Collection[str]) -> list[dict[str, Any]]:
        counted = {name: asdict(trusted[name]) for name in sorted(annotators)}
        rubric = rubrics.get
        return [{**t, "flip_rate": t["flip_rate"] or noise, "rubric": rubric(n, "")} for n, t in counted.items()]

    def kind_of(annotator: str) -> str:
        return store.annotators()[annotator].kind

    def fitted(iteration: int, client_keys: Sequence[str]) -> None:
        store.add_fit(config.name, iteration, client_keys)

    around = Surroundings(ask, gold, emit, fitted, kind_of, trust)
    folder = store.project / "runs" / config.name
    with ExitStack() as stack:

        def subject() -> Subject:
            made = make()
            stack.callback(made.close)
            return made

        run_loop(config, what, subject, around, folder, resume)


def _language_model(
    config: RunConfig, store: Store, beside: Callable[[str], str]
) -> tuple[str, Callable[[], Subject], GoldFn]:
    """What learns, how to make it, and its gold scores: those of a rubric."""
    from judges.rubric import load_rubric, score
    from rlhf.language_subject import make_language_subject
    from rlhf.pretraining_texts import read_texts

    def by_rubric(name: str) -> GoldFn:
        rubric = load_rubric(beside(name), DATA / "rubrics")
        return lambda pairs: [score(rubric, prompt, candidate) for prompt, candidate in pairs]

    gold = by_rubric(config.evaluation.gold)
    rule = by_rubric(config.reward.rule) if config.reward.rule is not None else None
    wanted = config.make_recipe().pretraining is not None
    name = config.pretraining_texts
    texts = read_texts(shipped("texts", beside(name), ".jsonl")) if wanted else ()
    return config.model.name, lambda: make_language_subject(config, store.prompts(), gold, rule, texts), gold


def _agent(config: ControlConfig, store: Store, judges: Sequence[Judge]) -> tuple[str, Callable[[], Subject], GoldFn]:
    """What learns, how to make it, and its gold scores: the true returns of segments.

    Raises UserError before any work for a judge that cannot compare clips, and where nothing can be drawn for whoever
    is to look.
    """
    from rlhf.control.extra import explained

    with explained():
        from rlhf.control.control_config import spec
        from rlhf.control.control_subject import make_control_subject
        from rlhf.control.environments import check
        from rlhf.control.rendering import check_rendering

    for name, judge in zip(config.labels.judges, judges, strict=True):
        if judge.clips == "cannot":
            raise UserError(
                f"labels.judges names {name!r}, which counts words and cannot compare clips: name a judge of kind "
                '"endpoint" or "local", or leave it to people or [labels.oracle]'
            )
    check(spec(config.environment))
    if config.labels.humans or any(judge.clips == "sees" for judge in judges):
        check_rendering(spec(config.environment))

    def gold(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
        known = store.segments([candidate.clip for _, candidate in pairs])
        return [known[candidate.clip].gold for _, candidate in pairs]

    return config.environment.id, lambda: make_control_subject(config, store), gold


def _ask_oracle(config: RunConfig | ControlConfig, store: Store, slates: Sequence[Slate], gold: GoldFn) -> None:
    """Have the simulated annotator answer, from the gold score that nobody else is trained on."""
    from labeling.oracle import oracle_label

    oracle = config.labels.oracle
    assert oracle is not None
    annotator = Annotator(f"oracle:{config.name}", "oracle", flip_rate=oracle.flip_rate)
    store.add_annotator(annotator)
    for slate in slates:
        scores = [s or 0.0 for s in gold([(slate.prompt, c) for c in slate.candidates])]
        noise = (oracle.temperature, oracle.flip_rate, oracle.random_labels)
        store.add_labels([oracle_label(slate, scores, annotator, config.seed, *noise)])


def _wait_for_people(config: RunConfig | ControlConfig, store: Store, slates: Sequence[Slate], iteration: int) -> None:
    """Wait until people have answered as many of the slates as the run file asks for; by default none."""
    from rlhf.kept_memory import give_back
    from rlhf.nameless_file import drop_spare

    labels = config.labels
    first = labels.wait_for_humans if labels.first_wait_for_humans is None else labels.first_wait_for_humans
    wanted = min(first if iteration == 1 else labels.wait_for_humans, len(slates))
    ids = {slate.id for slate in slates}
    waits = False
    while wanted > sum(label.slate_id in ids for label in store.human_labels(config.name)):
        if not waits:
            give_back()  # people take their time
            drop_spare()
            waits = True
        time.sleep(POLL_SECONDS)
