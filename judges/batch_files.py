"""Submissions as files in a folder, for a runner that knows no address: vLLM's `run-batch`, on whatever machine.

Nothing is billed, and the endpoint is never asked anything. The file of questions is on disk under a hidden name before
its calls are in the ledger, and gets its own name after: a process that dies in between leaves what the next one needs.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from judges.submissions import Ended, RepliesAwaited
from labeling.raw_files import read_lines, written_whole
from labeling.records import UserError

LONGEST_LINE = 64 * 2**20  # bytes of a reply: many samples, with log-probabilities


@dataclass(frozen=True)
class BatchFiles:
    """Submissions in a folder, for a runner of this model. Raises UserError when the folder is not there."""

    folder: Path
    model: str
    sent_as: ClassVar[str] = "files:"
    share_of_price: ClassVar[float] = 0.0
    asks_endpoint: ClassVar[bool] = False
    takes: ClassVar[str] = "as long as the runner takes"
    collect: ClassVar[str] = "in a file of questions: collect its replies with --batch-files and the file's folder"

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: there is no such folder: make it, or give --batch-files another")

    def prepare(self, name: str, lines: Sequence[bytes]) -> None:
        """Write the file of questions under a hidden name."""
        with written_whole(self._hidden(name)) as file:
            file.writelines(lines)

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Give the file its name."""
        self._hidden(name).replace(self._questions(name))
        return name

    async def submitted(self, names: Collection[str]) -> Mapping[str, str]:
        """All of them: what is prepared and in the ledger is submitted. Raises UserError for files that are gone."""
        for name in names:
            with suppress(FileNotFoundError):
                await self.submit(name, ())
            questions, replies = self._questions(name), self._replies(name)
            if not (questions.exists() or replies.exists()):
                raise UserError(
                    f"{questions}: this file of questions is not here, but its replies are awaited: give --batch-files "
                    f"the folder where it is now, or, if it is lost, make an empty {replies} to have them asked again"
                )
        return {name: name for name in names}

    async def ended(self, id: str) -> Ended:
        """The file of replies. Raises RepliesAwaited with the command that makes it."""
        replies = self._replies(id)
        if not replies.is_file():
            raise RepliesAwaited(f"{replies} is awaited, which `{self._command(id)}` makes")
        return Ended((str(replies),), f"{replies} holds no reply to it")

    async def lines(self, file: str) -> AsyncIterator[bytes]:
        """The lines of a file of replies. Raises UserError for one without end."""
        for _, line in read_lines(Path(file), LONGEST_LINE):
            yield line

    def _command(self, name: str) -> str:
        """The runner writes while it runs, so the replies get the awaited name only once it is done."""
        questions, replies = shlex.quote(str(self._questions(name))), shlex.quote(str(self._replies(name)))
        part = shlex.quote(f"{self._replies(name)}.part")
        return f"vllm run-batch -i {questions} -o {part} --model {shlex.quote(self.model)} && mv {part} {replies}"

    def _hidden(self, name: str) -> Path:
        return self.folder / f".{name}.jsonl"

    def _questions(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _replies(self, name: str) -> Path:
        return self.folder / f"{name}.replies.jsonl"
