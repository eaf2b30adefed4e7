"""Any run file: with a section [environment] it is an agent's, else a language model's."""

from __future__ import annotations

from pathlib import Path

from rlhf.control.control_config import ControlConfig, parse_control
from rlhf.run_config import RunConfig, parse_run, read_run_file


def load_any_run(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig | ControlConfig:
    """Read and check a run file. Raises UserError that names the file, the key, the value and what is allowed."""
    data = read_run_file(path, overrides)
    return parse_control(data, str(path)) if "environment" in data else parse_run(data, str(path))
