"""What a retry leaves on the error that it raises at last: the history of attempts."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple, TypeAlias

__all__ = [
    "Attempt",
    "History",
    "attached",
    "attempts_of",
    "is_exhausted",
    "is_fresh",
]

_KEPT_FIRST = 10
_KEPT = 100
_LONGEST_REPR = 200
# Every exception has a __dict__, those with __slots__ and frozen ones as well. What
# stands in it lives exactly as long as the error and needs no weak reference.
_KEY = "_tta_attempts"
# Stands for the error that carries the history: the two would keep each other alive.
_ITSELF = Exception()

_Failure: TypeAlias = "tuple[int, Exception | None, float | None]"

# How many histories were attached so far in this process: a retry that remembers the
# count tells a fresh history from one of an earlier run on the same error object.
attached = [0]


class Attempt(NamedTuple):
    """One failed attempt of a retry.

    Attributes:
        number: Which attempt it was, counted from 1.
        error: What it raised; None if its result was refused.
        delay: Seconds waited after it; None if no attempt followed.
    """

    number: int
    error: Exception | None
    delay: float | None

    def __str__(self) -> str:
        what = "its result was refused" if self.error is None else _repr(self.error)
        then = "" if self.delay is None else f", then waited {self.delay:g} s"
        return f"{self.number}. {what}{then}"


class History:
    """The failed attempts of one execution of a retry: the first 10 and the last 90."""

    __slots__ = ("_failures", "_note", "_serial", "is_exhausted")

    def __init__(self) -> None:
        self._failures: list[_Failure] = []
        self._note = ""
        self._serial = 0
        self.is_exhausted = False

    def add(self, number: int, error: Exception | None, delay: float | None) -> None:
        """Keep a failed attempt.

        Args:
            number: Counted from 1.
            error: What it raised; None if its result was refused.
            delay: Seconds until the next; None if there is no next.
        """
        if len(self._failures) == _KEPT:
            del self._failures[_KEPT_FIRST]
        self._failures.append((number, error, delay))

    def clear(self) -> None:
        """Let go of all errors: their tracebacks lead to the frames that hold this."""
        self._failures.clear()

    def attach(self, error: Exception, *, title: str, is_exhausted: bool) -> None:
        """Move what was kept to the error that is raised at last.

        Args:
            error: On which `attempts_of` will find it.
            title: First line of the note on the error; no note if it is empty.
            is_exhausted: Whether another retry must not go on with it.
        """
        attached[0] += 1
        before = vars(error).get(_KEY)
        left = vars(error)[_KEY] = History()
        left._failures = [(n, _ITSELF if e is error else e, d) for n, e, d in self._failures]
        left._serial = attached[0]
        left.is_exhausted = is_exhausted
        self.clear()
        if isinstance(before, History):
            left._note = before._note
        left._write_note(error, title)

    def _write_note(self, error: Exception, title: str) -> None:
        """Put the note on the error, in the place of one from an earlier run."""
        # Not `add_note`, which a frozen dataclass refuses.
        notes = vars(error).setdefault("__notes__", [])
        with suppress(ValueError):
            notes.remove(self._note)
        self._note = title and "\n  ".join([title, *map(str, self.read(error))])
        if self._note:
            notes.append(self._note)

    def read(self, error: Exception) -> tuple[Attempt, ...]:
        """Return the attempts, given the error that carries this history."""
        return tuple(
            Attempt(number, error if raised is _ITSELF else raised, delay)
            for number, raised, delay in self._failures
        )

    def __reduce__(self) -> tuple[type[History], tuple[()]]:
        """Stay behind when the error is pickled: other errors may not be able to."""
        return History, ()


def attempts_of(error: BaseException) -> tuple[Attempt, ...]:
    """Return the attempts that a retry made before it raised this error.

    At most 100 are kept: the first 10 and the last 90. The number of the last one tells
    how many there were.

    Args:
        error: What came out of a retry.

    Returns:
        The attempts in order; empty if no retry has raised the error.
    """
    history = vars(error).get(_KEY)
    if not isinstance(history, History) or not isinstance(error, Exception):
        return ()
    return history.read(error)


def is_fresh(error: Exception, since: int) -> bool:
    """Tell whether a retry has attached a history to an error after `since`.

    Args:
        error: What was raised.
        since: What `attached[0]` was before.
    """
    history = vars(error).get(_KEY)
    return isinstance(history, History) and history._serial > since


def is_exhausted(error: Exception, since: int) -> bool:
    """Tell whether a retry further inside has exhausted an error, or part of a group."""
    if is_fresh(error, since) and vars(error)[_KEY].is_exhausted:
        return True
    leaves = error.exceptions if isinstance(error, ExceptionGroup) else ()
    return any(is_exhausted(leaf, since) for leaf in leaves)


def _repr(error: Exception) -> str:
    try:
        text = repr(error)
    except Exception as broken:  # noqa: BLE001 - a note must not hide the error
        text = f"<{type(error).__name__}, whose repr raised {type(broken).__name__}>"
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}..."
