"""The built wheel works outside the repository: its data travels with it, and nothing of the checkout is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, cwd=folder)
    wheel = next(folder.glob("prefloop-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def prefloop(site: Path, folder: Path, *arguments: str) -> str:
    """Run the wheel's command as its entry point does, from a folder that is not the repository."""
    code = "import sys, app; assert 'site' in app.__file__; sys.exit(app.main())"
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_the_product_is_in_it(unpacked: Path) -> None:
    names = {p.name for p in unpacked.iterdir() if not p.name.endswith(".dist-info")}
    modules = {"app.py", "judge_command.py", "loop_command.py", "shipped.py"}
    assert names == modules | {"labeling", "judges", "rlhf", "prefloop_data"}
    assert (unpacked / "labeling" / "pages" / "label.js").exists()
    assert next(unpacked.glob("*.dist-info/licenses/LICENSE"))


def test_import_loop_and_judge_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    shipped = str(unpacked / "prefloop_data" / "prompts.jsonl")
    assert "275 prompts" in prefloop(unpacked, tmp_path, "import", shipped, "--project", "p")
    small = [
        "iterations=1",
        "model.name=tiny",
        "sampling.prompts=4",
        "sampling.max_new_tokens=6",
        "evaluation.prompts=4",
    ]
    settings = [part for s in [*small, "sampling.responses=4"] for part in ("--set", s)]
    assert "finished" in prefloop(unpacked, tmp_path, "loop", "grpo", "--project", "p", *settings)
    assert "judge:criteria" in prefloop(unpacked, tmp_path, "judge", "--judge", "criteria", "--project", "p")
    prefloop(unpacked, tmp_path, "export", "pairs.jsonl", "--what", "pairs", "--project", "p")
    assert (tmp_path / "pairs.jsonl").stat().st_size > 0
