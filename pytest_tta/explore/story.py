"""What happened in an execution, from top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.explore.words import MOST_LINES, STRUCK, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.explore.witness import Happened, Witness

__all__ = ["story"]

_WIDEST_CALL = 60
_DOES = {"call": "begins", "answer": "answers", "cancellation": ""}
# What the answer of a call is that a fault has struck.
_THEN = {"lost-ack": "has its effect, and fails", "late": "has its effect"}


def story(witness: Witness) -> list[str]:
    """Return what happened, a line for each thing, with the user's line.

    A call that was answered before anything else happened has one line, any other has
    two: which answer overtook which can be read from top to bottom.

    Args:
        witness: What was seen.
    """
    rows = _kept_rows(list(_rows(witness)))
    if not rows:
        return ["no call that a fault could strike"]
    shown = [row for row in rows if row is not None]
    clock = max(len(row.clock) for row in shown)
    what = min(_WIDEST_CALL, max(len(row.what) for row in shown))
    tasks = {row.task for row in shown if row.task}
    task = max(map(len, tasks)) if len(tasks) > 1 else 0
    return ["..." if row is None else row.line(clock, what, task) for row in rows]


class _Row(NamedTuple):
    """One line of a story."""

    clock: str
    what: str
    task: str
    where: str
    is_struck: bool

    def line(self, clock: int, what: int, task: int) -> str:
        """Return it in columns of these widths; one of 0 is left out."""
        parts = [self.clock.rjust(clock), self.what.ljust(what)]
        if task:
            parts.append(self.task.ljust(task))
        return "  ".join([*parts, self.where]).rstrip()


def _rows(witness: Witness) -> Iterator[_Row]:
    log = witness.log
    answered = {one.name for one in log if one.what == "answer"}
    out: set[str] = set()
    skipped = False
    for index, one in enumerate(log):
        if skipped:
            skipped = False
            continue
        after = log[index + 1] if index + 1 < len(log) else None
        skipped = one.what == "call" and _is_answer_of(after, one)
        has_two_rows = not skipped and (not one.kind or one.name in answered)
        does = _DOES[one.what] if has_two_rows else ""
        yield _row(one, does, is_out=one.site in out)
        if one.kind == "outage":
            out.add(one.site)


def _is_answer_of(after: Happened | None, one: Happened) -> bool:
    return after is not None and (after.what, after.name) == ("answer", one.name)


def _row(one: Happened, does: str, *, is_out: bool) -> _Row:
    """Return the line of something that happened.

    Args:
        one: What happened.
        does: What is said of a call; empty if its one line is all there is.
        is_out: Whether an outage has struck its site before.
    """
    is_struck = one.what == "cancellation"
    what = f"{one.name} {does}".rstrip()
    if is_struck:
        what = f"cancelled from outside {STRUCK}"
    elif one.kind and one.what == "answer":
        what = f"{one.name} {_THEN.get(one.kind, 'fails')} (struck above)"
    elif one.kind == "outage" and is_out:
        what += " in the outage" if does else " fails in the outage"
    elif one.kind:
        what += f" {STRUCK}: {one.kind}"
        is_struck = True
    return _Row(f"{one.at:g} s", what, one.task, _where(one), is_struck)


def _where(one: Happened) -> str:
    """Return the user's line, and the functions that led to it."""
    if not one.lines:
        return ""
    first, *others = one.lines
    functions = [_function(line.place) for line in others]
    return " < ".join([short(first.place), *functions])


def _function(place: str) -> str:
    return place.partition(" in ")[2].rpartition("<locals>.")[2]


def _kept_rows(rows: list[_Row]) -> list[_Row | None]:
    """Leave out the middle of a long story, but not what was struck first."""
    if len(rows) <= MOST_LINES + 1:
        return [*rows]
    half = MOST_LINES // 2
    struck = next((n for n, row in enumerate(rows) if row.is_struck), 0)
    kept = {*range(half), *range(len(rows) - half, len(rows))}
    kept |= {*range(struck - 1, struck + 2)} & {*range(len(rows))}
    found: list[_Row | None] = []
    for number, row in enumerate(rows):
        if number in kept:
            found.append(row)
        elif found[-1] is not None:
            found.append(None)
    return found
