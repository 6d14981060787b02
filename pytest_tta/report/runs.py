"""Everything that one execution of a test did, as plain data for files.

It is made for tests that failed, or if somebody asks for all. Whatever a test was given
is written as text: without secrets, clean, cut, and not too much of it altogether.
"""

from __future__ import annotations

import re
import sys
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from pytest_tta.report.messages import Conversations
from pytest_tta.report.texts import hiding, safe
from pytest_tta.trace.snapshot import RecordedError, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_tta.harness import Harness
    from pytest_tta.report.messages import Said
    from pytest_tta.report.record import (
        ErrorRecord,
        EventRecord,
        MessageRecord,
        RunRecord,
        SleepRecord,
        SpanRecord,
    )
    from pytest_tta.trace.spans import Event, Span
    from tta_primitives.door import Call

__all__ = ["run_record"]

MOST_SPANS: Final = 20_000
"""So many spans of a run are written, and as many waits."""

MOST_CHARACTERS: Final = 2_000
"""So long is the text of a value."""

_MOST_NAME = 300
_MOST_MESSAGES = 100
_MOST_PROBLEMS = 100
_MOST_EVENTS = 1_000
# Of all values together. Files are opened by browsers, and reports cross processes.
_MOST_WRITTEN = 8_000_000
_MOST_LOOKED_AT = 200_000_000
_NOT_SHOWN = "<not shown: there is too much in this run>"
# Thirty thousand years: asyncio.sleep(inf) is allowed, and JSON has no infinity.
_LONGEST = 1e12
_COUNTED = re.compile(r"Task-\d+")
_NOBODY: Mapping[Call, str] = {}


def run_record(
    harness: Harness,
    *,
    of: Literal["the test", "what exploring found"] = "the test",
    struck: Mapping[Call, str] = _NOBODY,
) -> RunRecord:
    """Return what the execution did that a harness has recorded last.

    Args:
        harness: What the test held.
        of: Which execution it was.
        struck: The faults that an exploration has let strike, by the calls they struck.
    """
    return _Writer(harness, struck).run(of)


class _Writer:
    """Writes one run."""

    def __init__(self, harness: Harness, struck: Mapping[Call, str]) -> None:
        self._harness = harness
        self._struck = struck
        self._conversations = Conversations(harness)
        self._hide = hiding()
        self._written = self._looked_at = self._counted = 0
        # One text may be the input of thousands of calls; all are alive meanwhile.
        self._known: dict[int, str] = {}
        self._known_names: dict[str, str] = {}
        self._places: dict[Span, int] = {}
        self._tasks: dict[str, str] = {}

    def run(self, of: Literal["the test", "what exploring found"]) -> RunRecord:
        harness = self._harness
        spans = harness.trace.spans
        problems = islice(harness.verify(), _MOST_PROBLEMS)
        return {
            "of": of,
            "spans": [self._span(span) for span in spans[:MOST_SPANS]],
            "sleeps": self._sleeps(),
            "problems": [safe(one, MOST_CHARACTERS) for one in problems],
            "left_out": max(len(spans) - MOST_SPANS, 0),
        }

    def _span(self, span: Span) -> SpanRecord:
        place = self._places[span] = len(self._places)
        events = span.events
        ended = span.ended_at
        return {
            "id": place,
            "parent": None if span.parent is None else self._places[span.parent],
            "path": self._name(span.path),
            "name": self._name(span.name),
            "label": self._name(span.label),
            "kind": self._name(span.kind),
            "task": self._task(span.task),
            "execution": span.execution,
            "status": span.status,
            "started_at": _finite(span.started_at),
            "ended_at": None if ended is None else _finite(ended),
            "input": self._value(span.input),
            "output": self._value(span.output),
            "error": self._error(span.error),
            "fault": self._fault(span, events),
            "events": [self._event(event) for event in events[:_MOST_EVENTS]],
            "messages": self._messages(self._conversations.of(span)),
        }

    def _fault(self, span: Span, events: list[Event]) -> str:
        by_plan = self._struck.get(span._call)
        if by_plan is not None:
            return self._text(by_plan)
        faults = [one.detail for one in events if one.name == "fault.injected"]
        # Events of this name may be of the user's own, with other details.
        told = [
            f"{one['fault']} at {one['scripted_at']}"
            for one in faults
            if one.keys() >= {"fault", "scripted_at"}
        ]
        return self._text("; ".join(told)) if told else ""

    def _error(self, error: BaseException | None) -> ErrorRecord | None:
        if error is None:
            return None
        kind = error.type if isinstance(error, RecordedError) else type(error)
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 - a broken __str__ must not break a report
            message = shorten(error.args)
        if isinstance(error, RecordedError):
            message = message.removeprefix(f"{kind.__name__}: ")
        return {"type": self._name(kind.__name__), "message": self._text(message)}

    def _event(self, event: Event) -> EventRecord:
        return {
            "at": _finite(event.at),
            "name": self._name(event.name),
            "detail": {
                self._name(key): self._detail(key, value)
                for key, value in event.detail.items()
            },
        }

    def _detail(self, key: str, value: object) -> str:
        if isinstance(value, str):
            # What it is called may tell that it is a secret.
            return self._text(f"{key}={value}").removeprefix(f"{key}=")
        return self._value(value)

    def _messages(self, said: list[Said]) -> list[MessageRecord]:
        half = _MOST_MESSAGES // 2
        left_out = len(said) - _MOST_MESSAGES
        if left_out > 0:
            gap = ("", f"... {left_out:,} messages left out ...")
            said = [*said[:half], gap, *said[-half:]]
        return [
            {"role": self._name(role), "text": self._text(text)} for role, text in said
        ]

    def _sleeps(self) -> list[SleepRecord]:
        return [
            {
                "at": _finite(sleep.at),
                "seconds": _finite(sleep.delay),
                "where": self._name(sleep.where),
                "task": self._task(sleep.task or ""),
            }
            for sleep in islice(self._harness.clock.sleeps, MOST_SPANS)
        ]

    def _value(self, value: object) -> str:
        """Return what a value looks like; nothing for None."""
        if value is None:
            return ""
        if isinstance(value, (str, bytes)):
            return self._once(value)
        return self._shown(value)

    def _once(self, value: str | bytes) -> str:
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = self._shown(value)
        return known

    def _shown(self, value: object) -> str:
        if self._looked_at > _MOST_LOOKED_AT:
            return _NOT_SHOWN
        shown = shorten(value, sys.maxsize)
        self._looked_at += len(shown)
        return self._text(shown)

    def _text(self, text: str) -> str:
        if self._written > _MOST_WRITTEN:
            return _NOT_SHOWN
        written = safe(text, MOST_CHARACTERS, hide=self._hide)
        self._written += len(written)
        return written

    def _task(self, name: str) -> str:
        """Return a task's name; asyncio's own count all tasks of a process."""
        known = self._tasks.get(name)
        if known is None:
            is_counted = _COUNTED.fullmatch(name) is not None
            known = f"Task-{self._counted + 1}" if is_counted else self._name(name)
            self._counted += is_counted
            self._tasks[name] = known
        return known

    def _name(self, text: str) -> str:
        # Paths and places come again and again.
        known = self._known_names.get(text)
        if known is None:
            known = self._known_names[text] = safe(text, _MOST_NAME, hide=self._hide)
        return known


def _finite(seconds: float) -> float:
    """Return a number that JSON can say."""
    if seconds != seconds:  # noqa: PLR0124 - this is how NaN is known
        return 0.0
    return max(min(float(seconds), _LONGEST), -_LONGEST)
