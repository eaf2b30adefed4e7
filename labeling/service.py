"""The web service: people lease, answer, change and undo comparisons through plain FastAPI routes.

Gradio's events drop rapid clicks, so what must not be lost does not go through them. A label is acknowledged
after its commit, and its client_key makes a retry harmless. Replies are blind: candidates in the order in which
they are shown, and nothing about where they come from. A reply names two slates: the one to answer now, and the one
after it, so that the browser can fetch its clips meanwhile; both are leased to this person. What is refused is said in
one line (see `labeling.error_replies`).
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, wraps
from random import SystemRandom
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware

from labeling import account_routes, clip_routes, error_replies, quality_routes, run_routes, unknown_routes
from labeling.assignment import (
    LEASE_SECONDS,
    SIZES,
    Queue,
    display_order,
    human_id,
    ranks_of_candidates,
)
from labeling.blind_view import blind, in_places, sides
from labeling.clip_routes import Clips
from labeling.error_replies import SomebodyElse
from labeling.group_commit import GroupCommit
from labeling.guard import Guard, is_loopback
from labeling.label_requests import LeaseRequest, Name, ReviseRequest, SubmitRequest, UndoRequest
from labeling.pages import static
from labeling.qualifying import Qualifying
from labeling.records import Annotator, Label, Slate, UserError
from labeling.rich_text import plain, rich
from labeling.sign_in import SignIn
from labeling.store import Conflict, Lease, Store
from labeling.webhooks import Sender

MOST_CHARACTERS = 300_000  # of one reply, beyond its first slate: what is left out comes with a later one
# Longer than this, slates are made ready for the screen in threads of their own, so that other answers need not wait.
SHORT = 5_000  # characters
THREADS = 2
CLIPS_AHEAD = 4  # slates whose clips are made before they are shown; the page loads as many
HANG_UP_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 120  # whoever reads two long answers finds the connection open when they click
RANDOM = SystemRandom()


@dataclass(frozen=True)
class Reply:
    """What a route tells after its write. shown: what this person is to label, now and after that.

    Of a slate that the page has there is the id alone.
    """

    said: dict[str, Any]
    shown: Sequence[tuple[str, Slate | None, Sequence[int]]] | None = None

    @property
    def length(self) -> int:
        """How many characters are to be made ready for the screen."""
        return sum(_size(slate) for _, slate, _ in self.shown or () if slate)

    def told(self) -> dict[str, Any]:
        """All of it, as it is sent."""
        if self.shown is None:
            return self.said
        views = [blind(slate, order) if slate else {"slate": slate_id} for slate_id, slate, order in self.shown]
        return {**self.said, "lease": views[0] if views else None, "after": views[1:]}


Handler = TypeVar("Handler", bound=Callable[..., Reply])


def create_app(store: Store, clips: Clips | None = None) -> FastAPI:
    """The whole web application of a project: the routes under /api, and Gradio's pages around them."""
    from labeling.pages import site

    app = api(store, clips)
    site.mount(app, store)
    return app


def api(store: Store, clips: Clips | None = None) -> FastAPI:
    """The labeling routes alone; without `clips`, a project whose candidates are clips cannot show them."""
    app = FastAPI(title="Prefloop", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.add_middleware(CORSMiddleware)  # allows nobody; without one, Gradio lets every page on localhost read its own
    app.add_middleware(SignIn, store=store)
    app.add_middleware(Guard, open_to_others=store.has_accounts)
    error_replies.add_to(app)

    group, threads = GroupCommit(store), ThreadPoolExecutor(THREADS, "long replies")

    def writing(path: str) -> Callable[[Handler], Handler]:
        """Make a handler the route of POST /api/path; it runs in one transaction with whatever comes meanwhile."""

        def add(handler: Handler) -> Handler:
            @wraps(handler)
            async def route(*given: Any, **named: Any) -> dict[str, Any]:
                reply = await group.run(partial(handler, *given, **named))
                if reply.length <= SHORT:
                    return reply.told()
                return await asyncio.get_running_loop().run_in_executor(threads, reply.told)

            app.post(f"/api/{path}", response_model=dict[str, Any])(route)
            return handler

        return add

    def with_next(person: str, asked: LeaseRequest, said: dict[str, Any]) -> Reply:
        """The reply of a writing route: what it says of its write, and what this person is to label from now on."""
        leases = _leases(store, person, asked)
        qualifying = store.qualifying(person)
        said |= {"qualifying": qualifying and _round(qualifying), **_standing(store, person, asked.queue)}
        return Reply(said, _shown(store, clips, leases, asked.have))

    @writing("lease")
    def lease(asked: LeaseRequest, request: Request) -> Reply:
        """What to label now and after that."""
        person = _person(store, request, asked)
        store.introduce(Annotator(person, "judge" if person.startswith("script:") else "human"))
        return with_next(person, asked, {})

    @writing("submit")
    def submit(answer: SubmitRequest, request: Request) -> Reply:
        """Answer a slate that was leased. The same client_key again is the same answer."""
        person = _person(store, request, answer)
        label_in = partial(_label, answer, person, store.settings().criteria)
        added = store.answer_lease(answer.client_key, answer.slate, person, label_in)
        return with_next(person, answer, {"added": added})

    @writing("revise")
    def revise(answer: ReviseRequest, request: Request) -> Reply:
        """Change one of the last answers. The same client_key again is the same change."""
        person = _qualified(store, _person(store, request, answer))

        def label_in(old: Label) -> Label:
            if old.slate_id != answer.slate:
                raise Conflict("the answer to be changed is about another comparison")
            return _label(answer, person, store.settings().criteria, old.order)

        added = store.revise(answer.client_key, answer.replaces, person, label_in)
        return with_next(person, answer, {"added": added})

    @writing("undo")
    def undo(asked: UndoRequest, request: Request) -> Reply:
        """Take back the last answer, and have its slate again."""
        person = _qualified(store, _person(store, request, asked))
        taken_back = store.take_back(asked.client_key, person, SIZES[asked.mode], LEASE_SECONDS)
        return with_next(person, asked, {"taken_back": taken_back})

    @writing("heartbeat")
    def heartbeat(asked: LeaseRequest, request: Request) -> Reply:
        """Keep what this person holds: their page is open before them."""
        person = _person(store, request, asked)
        return Reply({"held": store.extend_leases(person, LEASE_SECONDS)})

    @app.get("/api/recent")
    def recent(request: Request, annotator: Name = "local") -> dict[str, Any]:
        """This person's last answers, newest first, each with what they were shown: they can be changed."""
        labels = store.recent(_annotator(request, annotator))
        shown = [(label, store.slate(label.slate_id)) for label in labels]
        answers = [
            {"client_key": label.client_key, **blind(slate, label.order), "answer": in_places(label)}
            for label, slate in shown
            if slate is not None
        ]
        return {"answers": answers}

    @app.get("/api/task")
    def task() -> dict[str, Any]:
        """What the project asks of its people: the kinds of comparison, and the guidelines as harmless HTML."""
        settings = store.settings()
        text = settings.guidelines
        guidelines = {"text": plain(text), "html": rich(text)} if text.strip() else None
        return {"strength": settings.strength, "criteria": settings.criteria, "guidelines": guidelines}

    @app.get("/api/progress")
    def progress(request: Request, annotator: Name = "local") -> dict[str, Any]:
        """How many labels there are; what each annotator gave is for owners and reviewers."""
        counts, account = store.counts(), account_routes.account_of(request)
        person = _annotator(request, annotator)
        everybody = counts if account is None or account.role != "labeler" else {person: counts.get(person, 0)}
        return {"labels": sum(counts.values()), "annotators": everybody, **_standing(store, person)}

    account_routes.add_to(app, store)
    quality_routes.add_to(app, store)
    run_routes.add_to(app, store)
    static.add_to(app, store)
    clip_routes.add_to(app, clips)
    unknown_routes.add_to(app)
    return app


def _person(store: Store, request: Request, asked: LeaseRequest) -> str:
    """The annotator that a request labels as. Raises 403 for one who is revoked, or may not decide disputes."""
    person, account = _annotator(request, asked.annotator), account_routes.account_of(request)
    if person in store.revoked():
        raise HTTPException(403, "your labels are set aside for now: ask whoever runs this project")
    if asked.queue == "disputed" and account is not None and account.role == "labeler":
        raise HTTPException(403, "deciding between people is for owners and reviewers")
    return person


def _annotator(request: Request, named: str) -> str:
    """The annotator that a request labels as: who signed in, or who the page says in a project without accounts."""
    account = account_routes.account_of(request)
    if account is None:
        return human_id(named)
    if named not in ("local", account.name):
        raise SomebodyElse(account.name, named)
    return account.annotator


def _qualified(store: Store, person: str) -> str:
    """The person, unless they failed the qualifying round: who was told so changes no answer of it any more."""
    qualifying = store.qualifying(person)
    if qualifying and qualifying.failed:
        raise HTTPException(403, "the qualifying round is over: its answers stand")
    return person


def _label(answer: SubmitRequest, person: str, asked: Sequence[str], order: Sequence[int]) -> Label:
    """What the answer says about the candidates, given the recorded order in which they were shown.

    asked: the single criteria that people are asked about. Raises HTTPException (422) for what does not fit the slate.
    """
    if answer.ranks is not None and len(answer.ranks) != len(order):
        raise HTTPException(422, f"ranks has {len(answer.ranks)} entries for {len(order)} candidates")
    if any(place >= len(order) for place in answer.unranked):
        raise HTTPException(422, f"unranked names a place that a slate of {len(order)} candidates does not have")
    if answer.criteria and len(order) != 2:
        raise HTTPException(422, "criteria are for pairs")
    if unknown := [name for name in answer.criteria if name not in asked]:
        known = f"choose among {', '.join(asked)}" if asked else "this project asks about none (see GET /api/task)"
        raise HTTPException(422, f"criteria: there is no {unknown[0]!r}: {known}")
    side = sides(order)  # a choice is of a place; in a label it is of a candidate
    return Label(
        slate_id=answer.slate,
        annotator=person,
        outcome=answer.outcome,
        client_key=answer.client_key,
        ranks=None if answer.ranks is None else ranks_of_candidates(answer.ranks, order),
        strength=answer.strength,
        order=tuple(order),
        seconds=answer.seconds,
        reason=answer.reason,
        unranked=tuple(sorted(order[place] for place in answer.unranked)),
        flags=tuple(dict.fromkeys(answer.flags)),
        criteria=tuple((name, side.get(choice, "tie")) for name, choice in answer.criteria.items()),
    )


def _leases(store: Store, person: str, asked: LeaseRequest) -> list[Lease]:
    """What this person is to label now and after that. What is to be decided changes, so only one of it comes ahead."""
    ahead = asked.ahead if asked.queue == "new" else min(asked.ahead, 1)
    return store.leases(person, _shuffled, SIZES[asked.mode], LEASE_SECONDS, ahead, asked.queue)


def _shown(
    store: Store, clips: Clips | None, leases: Sequence[Lease], have: Sequence[str]
) -> list[tuple[str, Slate | None, Sequence[int]]]:
    """The slates of a reply, each in its order; None in place of one that the page has.

    Long texts are not all sent at once: what this leaves out is in a later reply.
    """
    soon = leases[: 1 + CLIPS_AHEAD] if clips else []
    wanted = {lease.slate_id for lease in leases} - {*have}
    slates = {slate.id: slate for slate in store.slates(ids=[*wanted, *(lease.slate_id for lease in soon)])}
    clip_routes.prepare(clips, [(slates[lease.slate_id], lease.order) for lease in soon])
    shown: list[tuple[str, Slate | None, Sequence[int]]] = []
    room = MOST_CHARACTERS
    for lease in leases:
        slate = slates[lease.slate_id] if lease.slate_id in wanted else None
        room -= _size(slate) if slate and shown else 0
        if room < 0:
            break
        shown.append((lease.slate_id, slate, lease.order))
    return shown


def _size(slate: Slate) -> int:
    """How many characters a person may read of it."""
    return sum(len(m.content) for m in slate.prompt.messages) + sum(len(c.text) for c in slate.candidates)


def _round(qualifying: Qualifying) -> dict[str, Any]:
    """What a person is told of the qualifying round: how well they did only once they cannot try each item out."""
    told = {"done": qualifying.done, "of": qualifying.of, "over": qualifying.over, "failed": qualifying.failed}
    return {**told, "agreed": qualifying.agreed, "least": qualifying.least} if qualifying.failed else told


def _shuffled(k: int) -> tuple[int, ...]:
    return display_order(k, RANDOM)


def _standing(store: Store, person: str, queue: Queue = "new") -> dict[str, Any]:
    """How many labels this person has given, and how many slates of each mode they could still answer."""
    waiting = {mode: store.waiting(person, k, queue) for mode, k in SIZES.items()}
    return {"yours": store.given(person), "waiting": waiting}


# Serving


class _Server(uvicorn.Server):
    """uvicorn that says where it is once it really answers, and hangs up on open pages when it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            print(f"Prefloop is at http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C stops it)", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Each open page holds a stream that never ends; what is still open after this time is one of them.
        asyncio.get_running_loop().call_later(HANG_UP_SECONDS, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.close()


def serve(store: Store, host: str, port: int, clips: Clips | None = None) -> None:
    """Serve the project and its clips until SIGINT or SIGTERM, then return. Call it from the main thread.

    Raises UserError when the port is taken or may not be used, or the host is not this computer.
    """
    listener = _listen(host, port, store.has_accounts())
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    webhooks = Sender(store)
    try:
        app = create_app(store, clips)
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=10, timeout_keep_alive=KEEP_ALIVE_SECONDS
        )
        _Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
        webhooks.close()
        signal.signal(signal.SIGTERM, previous)


def _listen(host: str, port: int, accounts: bool) -> socket.socket:
    """Take the port first: Gradio needs seconds to load, and they would be lost if the port is taken."""
    if not accounts and not is_loopback(host):
        raise UserError(
            f"--host {host}: without accounts, Prefloop serves this computer only: use 127.0.0.1, or make an account "
            "with `prefloop accounts --invite owner`"
        )
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port lies between 0 and 65535")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except PermissionError as error:
        raise UserError(f"port {port} needs administrator rights: choose one above 1023 with --port") from error
    except OSError as error:
        raise UserError(
            f"port {port} on {host} is taken: stop the other program or choose another with --port"
        ) from error
    # asyncio sets this only on sockets that it made itself; without it every reply waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
