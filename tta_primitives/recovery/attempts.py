"""What a retry leaves on the error that it raises at last: the history of attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Attempt",
    "Failure",
    "attach",
    "attached",
    "attempts_of",
    "is_exhausted",
    "is_fresh",
    "keep",
]

_KEPT_FIRST = 10
_KEPT = 100
_LONGEST_REPR = 200
# Every exception has a __dict__, those with __slots__ and frozen ones as well. What
# stands in it lives exactly as long as the error and needs no weak reference.
_KEY = "_tta_attempts"
# Stands for the error that carries the history: the two would keep each other alive.
_ITSELF = Exception()

# Number, error and delay, as in `Attempt`.
Failure: TypeAlias = "tuple[int, Exception | None, float | None]"

# How many histories were attached so far in this process: a retry that remembers the
# count tells a fresh history from one of an earlier run on the same error object.
attached: list[int] = [0]


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


class History:
    """The attempts of one execution of a retry, as they stand on the last error."""

    __slots__ = ("_failures", "exhausted_by", "note", "serial")

    def __init__(self, failures: Sequence[Failure] = ()) -> None:
        self._failures = failures
        self.note: str | None = None
        # The id of the retry that must not be followed by another's attempts.
        self.exhausted_by: int | None = None
        self.serial: int = 0

    def read(self, error: Exception) -> tuple[Attempt, ...]:
        """Return the attempts, given the error on which this stands."""
        return tuple(
            Attempt(number, error if raised is _ITSELF else raised, delay)
            for number, raised, delay in self._failures
        )

    def __reduce__(self) -> tuple[type[History], tuple[()]]:
        """Stay behind when the error is pickled: other errors may not be able to."""
        return History, ()


def keep(failures: list[Failure], failure: Failure) -> None:
    """Add a failure to those of a run; the first 10 and the last 90 are kept."""
    if len(failures) == _KEPT:
        del failures[_KEPT_FIRST]
    failures.append(failure)


def attach(
    error: Exception,
    failures: list[Failure],
    *,
    title: str | None,
    exhausted_by: int | None,
) -> None:
    """Leave the history of a run on the error that is raised at last.

    Args:
        error: On which `attempts_of` will find it.
        failures: All that were kept, the last one included.
        title: First line of a note on the error; None for no note.
        exhausted_by: The id of the retry, if others must not go on with the error.
    """
    attached[0] += 1
    fields = vars(error)
    before = fields.get(_KEY)
    history = fields[_KEY] = History(
        [(n, _ITSELF if raised is error else raised, d) for n, raised, d in failures]
    )
    history.serial = attached[0]
    history.exhausted_by = exhausted_by
    if title is not None:
        history.note = "\n  ".join([title, *map(_line, failures)])
    _replace_note(fields, getattr(before, "note", None), history.note)


def _replace_note(fields: dict[str, Any], old: str | None, new: str | None) -> None:
    """Put the note on an error, in the place of the one from an earlier run."""
    # Not by `add_note`, which a frozen dataclass refuses.
    notes = fields.get("__notes__", [])
    if old in notes:
        notes.remove(old)
    if new is not None:
        notes.append(new)
        fields["__notes__"] = notes


def _line(failure: Failure) -> str:
    number, error, delay = failure
    what = "its result was refused" if error is None else _repr(error)
    return (
        f"{number}. {what}" if delay is None else f"{number}. {what}, then {delay:g} s"
    )


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
    return isinstance(history, History) and history.serial > since


def is_exhausted(error: Exception, since: int, retry: int) -> bool:
    """Tell whether a retry further inside has exhausted an error, or a leaf of a group.

    Args:
        error: What was raised.
        since: What `attached[0]` was when the attempt began.
        retry: The id of the retry that asks. Its own mark comes from a concurrent
            execution, which may raise the very same object.
    """
    if is_fresh(error, since) and vars(error)[_KEY].exhausted_by not in {None, retry}:
        return True
    leaves = error.exceptions if isinstance(error, ExceptionGroup) else ()
    return any(is_exhausted(leaf, since, retry) for leaf in leaves)


def _repr(error: Exception) -> str:
    try:
        text = repr(error)
    except Exception as broken:  # noqa: BLE001 - a note must not hide the error
        text = f"<{type(error).__name__}, whose repr raised {type(broken).__name__}>"
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}..."
