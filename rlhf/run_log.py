"""What a run leaves behind beside its checkpoints: what it was told, by which code, and a lock while it runs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from labeling.records import UserError
from rlhf.control.control_config import ControlConfig
from rlhf.run_config import RunConfig

LIBRARIES = (
    *("torch", "transformers", "peft", "gradio", "openai", "sqlite-utils", "numpy"),
    *("gymnasium", "stable-baselines3", "mujoco"),
)
MAY_CHANGE = {"iterations", "keep_checkpoints", "token_budget"}  # on resume; anything else would be another run


def provenance(code: Path) -> dict[str, Any]:
    """The git revision of the code (None outside a checkout) and the versions of the libraries."""
    command = ["git", "-C", str(code), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        revision = found.stdout.strip() if found.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        revision = None
    versions = {}
    for library in ("prefloop", *LIBRARIES):
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {"git": revision, "versions": versions}


@contextmanager
def run_folder(folder: Path, config: RunConfig | ControlConfig) -> Iterator[None]:
    """Hold a run's folder for one process, and its configuration in `config.json`.

    Raises UserError when another process holds it, when the run has a checkpoint of another configuration, and when
    the folder cannot be written.
    """
    told = json.loads(json.dumps(config.to_dict()))
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open(folder / "lock", "a", encoding="utf-8"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"the run {config.name!r} is running already: stop it, or use --set name=NAME"
                ) from error
            known = folder / "config.json"
            # Before its first checkpoint a run has learned nothing, and what stopped it may have been a setting.
            if known.exists() and any(folder.glob("iteration-*")):
                try:
                    old = json.loads(known.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise UserError(f"{known} is damaged ({error}): delete it to go on with the run file") from error
                _require_same(old, told, config.name)
            draft = folder / f".config.{os.getpid()}"
            draft.write_text(json.dumps(told, indent=2), encoding="utf-8")
            draft.replace(known)
        except OSError as error:
            raise UserError(
                f"cannot write in {folder}: {error.strerror or error}; free some space or change its owner"
            ) from error
        yield


def _require_same(old: dict[str, Any], new: dict[str, Any], name: str, prefix: str = "") -> None:
    for key in sorted(old.keys() | new.keys()):
        place = f"{prefix}{key}"
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            _require_same(old[key], new[key], name, f"{place}.")
        elif old.get(key) != new.get(key) and place not in MAY_CHANGE:
            raise UserError(
                f"the run {name!r} was started with {place} = {old.get(key)!r}, not {new.get(key)!r}: put it back, or "
                "start another run with --set name=NAME"
            )
