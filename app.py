"""The composition root and the `prefloop` command: every way into the product, one function each.

Each command wires packages together and holds no logic of its own. Heavy libraries load only in the command
that uses them, so that `prefloop --help` is instant.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labeling.records import UserError
from shipped import DATA, shipped

LOOPBACK, PORT = "127.0.0.1", 7860


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 2 for a mistake of the user's (one line on stderr), 130 when stopped."""
    options = _parser().parse_args(arguments)
    # A polite kill is a Ctrl-C, and a Ctrl-C counts also where a script's background job inherited it as ignored.
    # Python's own handler is the one that asyncio replaces to drain its tasks.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        options.command(options)
    except UserError as error:
        print(f"prefloop: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prefloop", description="Compare, learn, improve: one live loop.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what)
        sub.set_defaults(command=command)
        default = None if name == "demo" else Path(".")
        shown = "prefloop-RUN" if name == "demo" else "."
        sub.add_argument("--project", type=Path, default=default, help=f"the project's folder (default {shown})")
        return sub

    def add_address(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--host", default=LOOPBACK, help=f"address to listen on (default {LOOPBACK})")
        sub.add_argument("--port", type=_port, default=PORT, help=f"port to listen on (default {PORT})")

    def add_run(sub: argparse.ArgumentParser, name: str, **more: Any) -> None:
        sub.add_argument(name, help="a run file, or the name of a shipped one", **more)
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the run file"
        )

    sub = add("demo", demo, "the whole loop on shipped prompts: web app, judge and training")
    add_address(sub)
    add_run(sub, "--run", default="demo")
    add_address(add("serve", serve, "the web app: compare in a browser, watch runs live"))
    sub = add("judge", judge, "let AI judges label the slates of a project, and measure them")
    sub.add_argument(
        "--judge", required=True, action="append", help="a judge file, or the name of a shipped one; again for a panel"
    )
    sub.add_argument("--limit", type=_count, help="label at most so many slates")
    sub.add_argument(
        "--audit",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="people are to answer this share of what it ranked, at random",
    )
    sub.add_argument(
        "--route",
        type=_count,
        default=0,
        metavar="N",
        help="people are to answer its N most doubtful slates, over all runs",
    )
    sub.add_argument(
        "--dry-run", action="store_true", help="ask nothing; say what it would take: calls, tokens, cost, time"
    )
    way = sub.add_mutually_exclusive_group()
    way.add_argument(
        "--batch-api", action="store_true", help="ask by the OpenAI Batch API: within a day, at half the price"
    )
    way.add_argument(
        "--batch-files",
        type=Path,
        metavar="FOLDER",
        help="write the questions into this folder for vLLM's `run-batch`, and read its replies from there",
    )
    sub.add_argument("--money", type=_dollars, help="stop before all judges of the project have cost more dollars")
    sub.add_argument("--tokens", type=_count, help="the same for tokens")
    sub.add_argument("--calls", type=_count, help="the same for calls")
    sub = add("loop", loop, "run the online loop: sample, ask, refit, improve")
    add_run(sub, "run")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub = add("accounts", accounts, "list who may sign in, invite somebody, close an account")
    sub.add_argument("--invite", metavar="ROLE", help="print a link that makes one account: owner, reviewer or labeler")
    sub.add_argument("--name", default="", help="the link is for this name alone, and for the labels under it")
    sub.add_argument("--url", default=f"http://{LOOPBACK}:{PORT}", help="where the project is served (for the link)")
    sub.add_argument("--close", metavar="NAME", help="end the account's sessions and let it sign in no more")
    sub.add_argument("--password", metavar="NAME", help="read a new password for the account from the terminal")
    sub = add(
        "import",
        import_,
        "import prompts, pairs or labels: JSONL, CSV, Parquet, Argilla, Label Studio (creates the project)",
    )
    sub.add_argument("file", type=Path)
    sub.add_argument(
        "--split",
        choices=("train", "heldout"),
        help="the split of prompts whose line names none (default: drawn, a fifth held out)",
    )
    sub.add_argument(
        "--gold", action="store_true", help="its labels are known answers: items that people are checked by"
    )
    sub = add("export", export, "export prompts, labels or pairs; the name ends in .jsonl, .jsonl.gz, .csv or .parquet")
    sub.add_argument("file", type=Path)
    sub.add_argument("--what", choices=("prompts", "labels", "pairs", "unpaired"), default="pairs")
    sub.add_argument("--split", choices=("train", "heldout"), help="only this split")
    sub = add("recipes", recipes, "list the recipes: ways to update the policy, with stages, papers and defaults")
    sub.add_argument("name", nargs="?", help="print this one whole")
    sub = add("settings", settings, "show the project's settings, or change some: what is asked, overlap, checks")
    sub.add_argument("set", nargs="*", metavar="KEY=VALUE", help="change this setting")
    sub = add(
        "quality", quality, "how well annotators do and agree; revoke one, so that their labels count for nothing"
    )
    sub.add_argument(
        "--figure",
        choices=("annotators", "agreement", "judges", "reliability", "requests", "winrates", "leaderboard", "progress"),
        default="annotators",
        help="which table (default annotators)",
    )
    sub.add_argument("--csv", action="store_true", help="print the figure as CSV")
    sub.add_argument("--reason", default="", help="why; needed with --revoke")
    way = sub.add_mutually_exclusive_group()
    way.add_argument("--revoke", metavar="ANNOTATOR", help="let this annotator's labels count for nothing")
    way.add_argument("--restore", metavar="ANNOTATOR", help="let a revoked annotator's labels count again")
    sub = add("report", report, "write a run as one self-contained HTML file")
    sub.add_argument("file", type=Path)
    sub.add_argument("--run", help="the run's name (default: the newest)")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count: give a whole number from 1")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give a number above 0 and up to 1, like 0.1")
    return share


def _dollars(text: str) -> float:
    try:
        dollars = float(text)
    except ValueError:
        dollars = -1.0
    if not 0 <= dollars < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount: give dollars, like 2.50")
    return dollars


def serve(options: argparse.Namespace) -> None:
    """Serve the web app until it is stopped."""
    from labeling.clips import ClipShelf
    from labeling.service import serve as serve_app
    from labeling.store import Store
    from rlhf.control.extra import write_clip

    store = Store(options.project)
    clips = ClipShelf(store.segments, options.project / "clips", write_clip)
    try:
        serve_app(store, options.host, options.port, clips)
    finally:
        clips.close()


def import_(options: argparse.Namespace) -> None:
    """Import a file into the project."""
    from labeling.exchange import add_gold, add_reading
    from labeling.exchange_reading import read_file
    from labeling.store import Store

    reading = read_file(options.file)  # a file that cannot be read leaves no empty project behind
    add = add_gold if options.gold else add_reading
    print(add(Store(options.project, create=True), reading, options.split))


def export(options: argparse.Namespace) -> None:
    """Export the project's records to a file."""
    from labeling.exchange import export_file
    from labeling.store import Store

    print(export_file(Store(options.project), options.file, options.what, options.split))


def settings(options: argparse.Namespace) -> None:
    """Change the settings that are given, and print all."""
    from labeling.settings import in_lines, parse_assignments, read_guidelines
    from labeling.store import Store

    changes = parse_assignments(options.set)
    if changes.get("guidelines"):
        changes["guidelines"] = read_guidelines(Path(changes["guidelines"]))
    print("\n".join(in_lines(Store(options.project).set_settings(changes))))


def report(options: argparse.Namespace) -> None:
    """Write the report of a run."""
    from labeling.report import write_report
    from labeling.store import Store

    print(f"wrote {write_report(Store(options.project), options.run, options.file)}")


def accounts(options: argparse.Namespace) -> None:
    """List who may sign in, invite somebody, close an account or set a password."""
    from getpass import getpass

    from labeling.store import Store

    if options.name and not options.invite:
        raise UserError("--name says whom an invitation is for: give --invite too")
    store = Store(options.project)
    if options.invite:
        secret = store.invite(options.invite, "the command line", name=options.name)
        print(f"{options.url.rstrip('/')}/join#{secret}")
        print("The link is good for one account and for seven days.", file=sys.stderr)
    if options.close:
        store.change_account(options.close, closed=True)
        tokens, hooks = sum(session.kind == "token" for session in store.sessions()), len(store.webhooks())
        if tokens or hooks:
            print(f"these go on, until /people ends them: tokens ({tokens}), webhooks ({hooks})", file=sys.stderr)
    if options.password:
        try:
            password = getpass(f"new password for {options.password}: ")
        except EOFError as error:
            raise UserError(
                "--password: no password came: type it, or send it as a line to the standard input"
            ) from error
        store.change_password(options.password, password)
    if not (options.invite or options.close or options.password):
        for account in store.accounts():
            remarks = [word for word, true in (("program", account.script), ("closed", account.closed)) if true]
            print("\t".join([account.name, account.role, *remarks]))


def quality(options: argparse.Namespace) -> None:
    """Revoke or restore an annotator, or print a figure of the Quality page."""
    from labeling.quality_tables import as_csv, as_text
    from labeling.store import Store

    if options.reason and not options.revoke:
        raise UserError("--reason says why somebody is revoked: give --revoke too")
    store = Store(options.project)
    if options.revoke:
        stood = store.revoke(options.revoke, options.reason, "the command line")
        print(f"{options.revoke}: {stood} labels count for nothing; the next fit begins afresh without them")
    elif options.restore:
        print(f"{options.restore}: {store.restore(options.restore)} labels count again")
    else:
        table = store.figure(options.figure)
        print((as_csv if options.csv else as_text)(table), end="")


def recipes(options: argparse.Namespace) -> None:
    """List the recipes, or print one with every constant."""
    from rlhf.recipe_table import print_recipe, print_recipes

    print_recipe(options.name) if options.name else print_recipes()


def judge(options: argparse.Namespace) -> None:
    """Let a judge label the slates that wait for it."""
    from judge_command import Asking, EndpointOptions
    from judge_command import judge as run

    asked = EndpointOptions(options.batch_api, options.batch_files, options.money, options.tokens, options.calls)
    asking = Asking(options.audit, options.route)
    run(options.project, options.judge, options.limit, options.dry_run, asked, asking)


def loop(options: argparse.Namespace) -> None:
    """Run the online loop of a run file."""
    from loop_command import loop as run

    run(options.project, options.run, options.set, options.resume)


def demo(options: argparse.Namespace) -> None:
    """Make or reuse a project of shipped prompts, serve it, and run or resume the loop beside it."""
    from labeling.exchange import import_file
    from labeling.store import Store
    from loop_command import is_agent
    from rlhf.run_file import load_any_run

    run_file = shipped("runs", options.run)
    config = load_any_run(run_file, tuple(options.set))  # says what is wrong with it before anything starts
    options.project = options.project or Path(f"prefloop-{run_file.stem}")
    store = Store(options.project, create=True)
    if not is_agent(config) and not store.prompts():
        print(import_file(store, DATA / "prompts.jsonl"))
    me = [sys.executable, str(Path(__file__).resolve())]
    project = ["--project", str(options.project)]
    address = ["--host", options.host, "--port", str(options.port)]
    settings = [part for override in options.set for part in ("--set", override)]
    # Each in a session of its own: Ctrl-C reaches this process alone, which then stops them in order, once.
    web = subprocess.Popen([*me, "serve", *project, *address], start_new_session=True)
    training = None
    try:
        _wait_until_served(web, options.host, options.port)
        loop_command = [*me, "loop", str(run_file), "--resume", *project, *settings]
        training = subprocess.Popen(loop_command, start_new_session=True)
        while training.poll() is None and web.poll() is None:
            time.sleep(0.2)
        if training.returncode == 0:
            print("The run is finished; the pages stay up. Ctrl-C stops them.", flush=True)
            web.wait()
    finally:
        for process in (training, web):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
    if training is not None and training.returncode:
        sys.exit(training.returncode)


def _wait_until_served(web: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Return once the web app answers; leave with its exit status if it ends instead (it has said why)."""
    while web.poll() is None:
        try:
            urllib.request.urlopen(f"http://{host}:{port}/api/progress", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(web.returncode)


if __name__ == "__main__":
    sys.exit(main())
