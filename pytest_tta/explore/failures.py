"""The failures that were found, one file each, to be tried first the next time.

What is kept is the line of the plan and what broke: no input, no text of an assertion,
and nothing of the machine. Each file is written whole or not at all, and belongs to one
test, so that workers and machines may write into one folder at the same time.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pytest_tta.writing import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_tta.explore.outcome import Verdict

__all__ = ["FailureStore", "State", "Stored"]

State: TypeAlias = Literal["still failing", "fixed", "stale", "unreadable"]

_FORMAT = 1
_GREEN_RUNS = 2


class Stored(NamedTuple):
    """One failure on disk.

    Attributes:
        path: Its file.
        line: The plan; empty if the file cannot be read.
        kind: What sort of thing broke.
        error: The name of the exception's type; empty if there was none.
        where: The user's line at which it broke.
        green: How many runs in a row it has not happened in.
    """

    path: Path
    line: str
    kind: str = ""
    error: str = ""
    where: str = ""
    green: int = 0


class FailureStore:
    """The failures of one test.

    Args:
        folder: Where the failures of all tests are.
        node_id: The test. Its parameters do not get into the files.
    """

    def __init__(self, folder: Path, node_id: str) -> None:
        self._folder = folder / _digest(node_id)
        self._test = node_id.partition("[")[0]

    def load(self) -> list[Stored]:
        """Return what is kept, in the order of the names."""
        if not self._folder.is_dir():
            return []
        return [_load(path) for path in sorted(self._folder.glob("*.json"))]

    def keep(self, line: str, verdict: Verdict) -> Path:
        """Keep a failure, in the place of an earlier one with the same plan.

        Args:
            line: The plan.
            verdict: What broke.

        Returns:
            Its file.

        Raises:
            OSError: It cannot be written.
        """
        path = self._folder / f"{_digest(line)}.json"
        error = "" if verdict.error is None else type(verdict.error).__name__
        self._write(Stored(path, line, verdict.kind, error, verdict.where))
        return path

    def note(self, stored: Stored, state: State) -> bool:
        """Keep what came of a failure in this run.

        Args:
            stored: The failure.
            state: What came of it.

        Returns:
            Whether it is forgotten now: it has not happened in two runs.

        Raises:
            OSError: It cannot be written or removed.
        """
        if state == "fixed":
            if stored.green + 1 >= _GREEN_RUNS:
                stored.path.unlink(missing_ok=True)
                return True
            self._write(stored._replace(green=stored.green + 1))
        elif state == "still failing" and stored.green:
            self._write(stored._replace(green=0))
        return False

    def _write(self, stored: Stored) -> None:
        kept = {"tta_failure": _FORMAT, "test": self._test, **stored._asdict()}
        del kept["path"]
        text = json.dumps(kept, indent=2) + "\n"
        write_whole(stored.path, text)


def _load(path: Path) -> Stored:
    """Read one failure; a file that cannot be read has no line."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["tta_failure"] != _FORMAT:
            return Stored(path, "")
        texts = {name: str(kept[name]) for name in ("line", "kind", "error", "where")}
        return Stored(path, green=int(kept["green"]), **texts)
    except (OSError, LookupError, TypeError, ValueError):
        return Stored(path, "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
