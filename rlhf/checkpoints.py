"""Checkpoints: everything that a run has learned after an iteration, in one folder that appears whole or not at all.

Only what changes is saved (adapters with LoRA), as tensors and plain data; they are read back without pickle's
code execution.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from labeling.records import UserError

FILE = "state.pt"


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state of an iteration and remove all but the newest `keep` checkpoints.

    The new one is durable before an old one goes. Raises UserError when it cannot be written.
    """
    target = folder / f"iteration-{iteration:05d}"
    work = folder / f".{target.name}"
    try:
        for stale in folder.glob(".iteration-*"):  # what a killed process left; the run's lock keeps living ones out
            shutil.rmtree(stale)
        work.mkdir(parents=True)
        with open(work / FILE, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot write the checkpoint {target}: {getattr(error, 'strerror', None) or error}; free some space and "
            "start again with --resume"
        ) from error
    finally:  # also when the user presses Ctrl-C
        shutil.rmtree(work, ignore_errors=True)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(folder / f"iteration-{old:05d}")
    return target


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest iteration and its state, or None. Raises UserError when it cannot be read."""
    iterations = _all(folder)
    if not iterations:
        return None
    path = folder / f"iteration-{iterations[-1]:05d}" / FILE
    try:
        return iterations[-1], torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"cannot read the checkpoint {path} ({type(error).__name__}): delete its folder and resume"
        ) from error


def refuse_if_started(folder: Path, name: str) -> None:
    """Raise UserError when the run has a checkpoint: going on must be asked for."""
    if _all(folder):
        raise UserError(f"the run {name!r} exists: go on with --resume, or start another with --set name=NAME")


def _all(folder: Path) -> list[int]:
    names = (re.fullmatch(r"iteration-(\d{5})", p.name) for p in folder.glob("iteration-*"))
    return sorted(int(match[1]) for match in names if match)


def trained_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a module that training changes: its learned parameters and its buffers that are saved."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: t.detach().cpu() for name, t in module.state_dict().items() if name not in frozen}


def restore(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put saved tensors back. Raises UserError when they belong to another shape of model."""
    try:
        problems = module.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:  # tensors of another size
        problems = [str(error).splitlines()[-1].strip()]
    if problems:
        raise UserError(f"the checkpoint does not fit the model ({problems[0]}): was the model changed since?")
