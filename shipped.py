"""The files that Prefloop brings along: prompts, rubrics, judges and runs, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from labeling.records import UserError

HERE = Path(__file__).resolve().parent
# In a checkout the data lies beside this file; in an installed wheel under a name that cannot clash.
DATA = HERE / "data" if (HERE / "data" / "prompts.jsonl").exists() else HERE / "prefloop_data"


def shipped(kind: str, name: str, suffix: str = ".toml") -> Path:
    """The file that `name` means: a path if it looks like one, else a shipped file of that kind.

    Raises UserError when nothing of that name is shipped.
    """
    if name.endswith(suffix) or "/" in name:
        return Path(name)
    path = DATA / kind / f"{name}{suffix}"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (DATA / kind).glob(f"*{suffix}")))
        raise UserError(
            f"there is no shipped file {name!r} in {kind}: give a path ending in {suffix}, or one of {known}"
        )
    return path
