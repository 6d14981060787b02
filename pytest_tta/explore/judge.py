"""What the end of a test's body means, after a fault as without one."""

from __future__ import annotations

import ast
import asyncio
import linecache
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.clock.errors import ClockDeadlock, ClockError, ClockRunaway, ClockSpin
from pytest_tta.clock.places import is_library, place
from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.explore.injected import is_injected
from pytest_tta.explore.outcome import Verdict
from pytest_tta.explore.sites import RetryStorm
from pytest_tta.trace.spans import SpanNotFoundError

if TYPE_CHECKING:
    from types import TracebackType

    from pytest_tta.explore.outcome import VerdictKind

__all__ = ["PROGRAMMING_ERRORS", "Ending", "Situation", "judge", "where_of"]

PROGRAMMING_ERRORS = (
    AssertionError,
    TypeError,
    AttributeError,
    NameError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    asyncio.InvalidStateError,
)
"""Mistakes of the code: they tell no caller that a fault has come."""

# What tells how a run went, which a fault changes; and the same where it is equalled.
_HOW = frozenset({"sleeps", "spans", "trace"})
_WHEN = frozenset({"elapsed"})
_MOST_SHOWN = 400


class Situation(NamedTuple):
    """What an execution was like when its body ended.

    Attributes:
        deviates: Whether a fault has struck, or a limit ran out because the outside
            was slow.
        cancelled: The task that was cancelled, "main" for what the test runs; empty if
            none was.
        is_degraded: Whether a fallback or a stale entry has answered.
        hanging: The calls that never answer, and that somebody still waits for.
        is_strict: Whether the test's assertions hold whatever goes wrong.
    """

    deviates: bool = False
    cancelled: str = ""
    is_degraded: bool = False
    hanging: tuple[str, ...] = ()
    is_strict: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing went wrong but perhaps the order."""
        return not (self.deviates or self.cancelled)


class Ending(NamedTuple):
    """What the end of a body means.

    Attributes:
        ended: As in `Outcome`.
        verdict: What it has broken, None if nothing.
        is_judged: Whether the body's assertions had a say.
    """

    ended: str
    verdict: Verdict | None = None
    is_judged: bool = True


_TOLD = Ending("told")
_UNJUDGED = Ending("told", is_judged=False)


def judge(error: BaseException, situation: Situation) -> Ending:
    """Judge the error that a test's body ended with.

    With a fault, an error that reaches the caller is a fair end: the caller knows. That
    is not so of failed assertions, of programming errors that nobody injected, and of
    what the loop has to say.

    Args:
        error: What it raised.
        situation: What had happened until then.
    """
    stuck = _stuck_in(error)
    if stuck is not None:
        return _stuck(stuck, situation)
    if _is_skip(error):
        return _TOLD
    if not situation.is_plain:
        if isinstance(error, asyncio.CancelledError):
            return Ending("cancelled")
        if _is_excused(error, situation):
            return _UNJUDGED
        if not _is_wrong(error):
            return _TOLD
    return _broken("assertion" if _is_assertion(error) else "error", error)


def _stuck_in(error: BaseException) -> BaseException | None:
    """Return what the loop or a site has to say, also if a group has wrapped it."""
    if isinstance(error, BaseExceptionGroup):
        found = map(_stuck_in, error.exceptions)
        return next((one for one in found if one is not None), None)
    return error if isinstance(error, (ClockError, RetryStorm)) else None


def _stuck(error: BaseException, situation: Situation) -> Ending:
    if isinstance(error, RetryStorm):
        return _broken("retry storm", error)
    if isinstance(error, (ClockSpin, ClockRunaway)):
        return _broken("livelock", error)
    if not isinstance(error, ClockDeadlock):
        return _broken("error", error)
    if not situation.hanging:
        return _broken("deadlock", error)
    calls = " and ".join(situation.hanging)
    # That every task waits is said with it; who waits where is in the lines below.
    _, _, waiting = str(error).partition("\n")
    text = (
        f"{calls} never answers, and nothing bounds the wait; give it a time limit, "
        f"such as a TimeoutPrimitive\n{waiting}"
    )
    return Ending("broken", Verdict("unbounded wait", text, where_of(error), error))


def _is_assertion(error: BaseException) -> bool:
    outcomes = sys.modules.get("_pytest.outcomes")
    failed = () if outcomes is None else (outcomes.Failed,)
    return isinstance(error, (AssertionError, *failed))


def _is_skip(error: BaseException) -> bool:
    outcomes = sys.modules.get("_pytest.outcomes")
    return outcomes is not None and isinstance(error, outcomes.Skipped)


def _is_excused(error: BaseException, situation: Situation) -> bool:
    """Tell whether a deviation explains that a body's own expectation has failed."""
    if isinstance(error, (UnexpectedCall, SpanNotFoundError)):
        # A script foresees the calls of an ordinary run: one more is no mistake.
        return not situation.is_strict
    if not _is_assertion(error) or situation.is_strict:
        return False
    is_apart = situation.cancelled not in {"", "main"}
    return situation.is_degraded or is_apart or _is_about_how(error)


def _is_wrong(error: BaseException) -> bool:
    """Tell whether an error, or one in a group, is a mistake of the code."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_wrong, error.exceptions))
    if is_injected(error) or isinstance(error, asyncio.CancelledError):
        return False
    if _is_assertion(error) or isinstance(error, PROGRAMMING_ERRORS):
        return True
    return not isinstance(error, Exception)


def _broken(kind: VerdictKind, error: BaseException) -> Ending:
    text = str(error).strip() or type(error).__name__
    if kind == "error" and not isinstance(error, ClockError):
        text = f"{type(error).__name__}: {text}"
    if kind in {"assertion", "error"} and len(text) > _MOST_SHOWN:
        text = text[: _MOST_SHOWN - 4] + " ..."
    return Ending("broken", Verdict(kind, text, where_of(error), error))


def where_of(error: BaseException) -> str:
    """Return the user's line that an error came from, as `file.py:12`."""
    found = _user_frame(error.__traceback__)
    if found is None:
        return ""
    return place((found.tb_frame.f_code, found.tb_lasti)).partition(" in ")[0]


def _user_frame(trace: TracebackType | None) -> TracebackType | None:
    """Return the innermost frame of the user's own code."""
    found = None
    while trace is not None:
        if not is_library(trace.tb_frame.f_code.co_filename):
            found = trace
        trace = trace.tb_next
    return found


# --- what an assertion is about ------------------------------------------------


def _is_about_how(error: BaseException) -> bool:
    """Tell whether a failed assertion is about how a run goes, not what comes of it.

    A trace, and a duration to the second, are those of a run without faults. An upper
    limit on the duration is a promise, whatever goes wrong.
    """
    found = _user_frame(error.__traceback__)
    if found is None:
        return False
    return _line_is_about_how(found.tb_frame.f_code.co_filename, found.tb_lineno)


@lru_cache(maxsize=4096)
def _line_is_about_how(filename: str, line: int) -> bool:
    statement = _statement_at(filename, line)
    if statement is None:
        return False
    names = _names(statement)
    if names & _HOW:
        return True
    return any(
        isinstance(node, ast.Compare)
        and bool(_names(node) & _WHEN)
        and any(isinstance(one, (ast.Eq, ast.NotEq)) for one in node.ops)
        for node in ast.walk(statement)
    )


def _names(node: ast.AST) -> set[str]:
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute):
            found.add(one.attr)
        elif isinstance(one, ast.Name):
            found.add(one.id)
    return found


def _statement_at(filename: str, line: int) -> ast.stmt | None:
    """Return the innermost statement at a line."""
    found: ast.stmt | None = None
    for node in _statements(filename):
        end = node.end_lineno or node.lineno
        if node.lineno <= line <= end and (
            found is None or node.lineno >= found.lineno
        ):
            found = node
    # A block is no statement that fails by itself.
    return None if found is None or hasattr(found, "body") else found


@lru_cache(maxsize=64)
def _statements(filename: str) -> tuple[ast.stmt, ...]:
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.stmt))
