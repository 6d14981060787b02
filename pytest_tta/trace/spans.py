"""What a run was: a tree of spans, one for each execution of a primitive."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from pytest_tta.paths import check_place, hint, matches
from pytest_tta.trace.alignment import Comparison, Row
from pytest_tta.trace.pattern import S
from pytest_tta.trace.snapshot import RecordedError
from tta_primitives.primitive import ParallelPrimitive, Wrapper, labels, positions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tta_primitives.door import Call

__all__ = [
    "BEGAN",
    "ENDED",
    "EVENT",
    "RETURNED",
    "WIDTHS",
    "Event",
    "Recording",
    "Span",
    "SpanNotFoundError",
    "Trace",
    "compared",
    "comparison_of",
    "outline_line",
    "seconds",
]

Status: TypeAlias = Literal["ok", "failed", "timed_out", "cancelled", "unfinished"]


class SpanNotFoundError(LookupError):
    """No span, or more than one, stands where a test looked for one."""


class Event(NamedTuple):
    """Something that happened inside a call.

    Attributes:
        at: When, in seconds since the recording began.
        name: For instance `retry.scheduled`.
        detail: What belongs to it.
    """

    at: float
    name: str
    detail: dict[str, Any]


class Span:
    """One execution of a primitive.

    Attributes:
        input: A copy of what was given, taken when the call began.
        task: The name of the task that it began in.
        parent: The execution that it was a part of, None at the root of a run.
    """

    __slots__ = (
        "_began",
        "_call",
        "_children",
        "_ended",
        "_error",
        "_events",
        "_execution",
        "_output",
        "_recording",
        "_status",
        "input",
        "parent",
        "path",
        "task",
    )

    path: str
    """The path of its position, `answer/retry/llm`."""

    def __init__(
        self,
        recording: Recording,
        parent: Span | None,
        call: Call,
        began: float,
        about: list[Any],
    ) -> None:
        self._recording = recording
        self.parent: Span | None = parent
        self._call = call
        self._began = began
        task, given = about
        self.task: Any = task
        self.input: Any = given
        self.path = call.path
        self._execution = 0
        self._status: Status = "unfinished"
        self._ended: float | None = None
        self._output: Any = None
        self._error: BaseException | None = None
        self._children: list[Span] = []
        self._events: list[Event] = []

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return self._call.primitive.name

    @property
    def label(self) -> str:
        """Its name among its siblings, `llm#2` for the second primitive of a name."""
        return self._call.label

    @property
    def execution(self) -> int:
        """Which execution at this path it was, from 1: the k of `path@k`."""
        return self._execution

    @property
    def status(self) -> Status:
        """How it ended, `unfinished` if it did not."""
        return self._now()._status

    @property
    def output(self) -> Any:  # noqa: ANN401 - any primitive's output
        """A copy of what it returned; the list of chunks of a stream."""
        return self._now()._output

    @property
    def error(self) -> BaseException | None:
        """A copy of what it raised, without its traceback; None if it did not."""
        return self._now()._error

    @property
    def kind(self) -> str:
        """The class of the primitive, for instance `RetryPrimitive`."""
        kinds = (cls.__name__ for cls in type(self._call.primitive).__mro__)
        return next(name for name in kinds if not name.startswith("_"))

    @property
    def is_stream(self) -> bool:
        """Whether it was streamed, rather than executed."""
        return self._call.is_stream

    @property
    def started_at(self) -> float:
        """When it began, in seconds since the recording began."""
        return self._recording.since(self._began)

    @property
    def ended_at(self) -> float | None:
        """When it ended, None if it did not."""
        ended = self._now()._ended
        return None if ended is None else self._recording.since(ended)

    @property
    def duration(self) -> float | None:
        """How long it took, in seconds of the loop's clock; None if unfinished."""
        ended = self._now()._ended
        return None if ended is None else _exact(ended - self._began)

    @property
    def events(self) -> list[Event]:
        """What happened inside this call, not in the calls below it."""
        return list(self._now()._events)

    @property
    def event_names(self) -> list[str]:
        """The names of the events, in order."""
        return [event.name for event in self.events]

    @property
    def children(self) -> list[Span]:
        """The executions directly below, in the order in which they began."""
        return list(self._now()._children)

    @property
    def attempts(self) -> int:
        """How often the wrapped primitive was executed.

        Raises:
            SpanNotFoundError: The primitive wraps nothing.
        """
        primitive = self._call.primitive
        if not isinstance(primitive, Wrapper):
            msg = (
                f"{self.path}: attempts cannot be counted, a {self.kind} wraps "
                "nothing; ask the retry around it, or for execution="
            )
            raise SpanNotFoundError(msg)
        wrapped = labels(primitive.children())[0]
        return sum(child.label == wrapped for child in self.children)

    def descendants(self) -> Iterator[Span]:
        """Yield all executions below, each before what is below it."""
        for child in self.children:
            yield child
            yield from child.descendants()

    def in_order(self) -> list[Span]:
        """Return the children in an order that does not depend on scheduling."""
        primitive = self._call.primitive
        if not isinstance(primitive, ParallelPrimitive):
            return self.children
        places = {label: i for i, label in enumerate(labels(primitive.children()))}
        return sorted(self.children, key=lambda child: places.get(child.label, 0))

    def _go_on(self, what: str, moment: float, rest: list[Any]) -> None:
        """Take one more entry of the log."""
        if what == EVENT:
            name, detail = rest
            self._events.append(Event(self._recording.since(moment), name, detail))
            return
        self._ended = moment
        self._output, *how = rest
        self._status, self._error = how or ("ok", None)

    def _now(self) -> Span:
        """Return the span after it was told what was logged in the meantime."""
        self._recording.catch_up()
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, S):
            row = compared([self], [other], self._recording)
            return not sum(one.total for one in row)
        return self is other

    if TYPE_CHECKING:

        def __hash__(self) -> int: ...

    else:
        __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Span {outline_line(self, is_full=True)}>"


def _exact(duration: float) -> float:
    """Round to nanoseconds, which is what the virtual clock counts in."""
    return round(duration, 9)


# What an entry of the log tells, and how many items it has; the first three are this,
# the call and the loop time.
BEGAN: Final = "began"  # The task's name and the input.
EVENT: Final = "event"  # Its name and its detail.
RETURNED: Final = "returned"  # The output.
ENDED: Final = "ended"  # The output, the status and the error, if it did not return.
WIDTHS: Final = {BEGAN: 5, EVENT: 5, RETURNED: 4, ENDED: 6}


class Recording:
    """What a recorder wrote down, and the spans that it amounts to.

    Writing happens while workflows run and must cost next to nothing, so it only adds
    to a log; spans are made of the log when somebody looks at them.

    Attributes:
        log: The items of one entry after another. A tuple for each entry would be one
            more object for the collector.
        began: The loop time that counts as zero; that of the first call unless set.
        above: Below what the spans of calls stand that are not below their caller's.
    """

    __slots__ = ("_by_call", "_counts", "_read", "_roots", "above", "began", "log")

    def __init__(self, began: float | None = None) -> None:
        self.log: list[Any] = []
        self.began = began
        self.above: dict[Call, Call] = {}
        self._read = 0
        self._by_call: dict[Call, Span] = {}
        self._roots: list[Span] = []
        self._counts: Counter[str] = Counter()

    @property
    def roots(self) -> list[Span]:
        """The spans that no other span is above, in the order in which they began."""
        self.catch_up()
        return list(self._roots)

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order in which they began."""
        self.catch_up()
        return list(self._by_call.values())

    def since(self, moment: float) -> float:
        """Return the seconds from the beginning of the recording to a loop time."""
        return _exact(moment - (self.began or 0.0))

    def catch_up(self) -> None:
        """Make spans of what was logged since this was done last."""
        while self._read < len(self.log):
            what = self.log[self._read]
            end = self._read + WIDTHS[what]
            call, moment, *rest = self.log[self._read + 1 : end]
            self._read = end
            if what == BEGAN:
                self._begin(call, moment, rest)
            elif call in self._by_call:
                self._by_call[call]._go_on(what, moment, rest)

    def unfinished(self) -> list[Span]:
        """Return the spans that have not ended; no span is made if there are none."""
        log, at = self.log, 0
        at_work: set[Call] = set()
        while at < len(log):
            what, call = log[at], log[at + 1]
            at += WIDTHS[what]
            if what == BEGAN:
                at_work.add(call)
            elif what != EVENT:
                at_work.discard(call)
        return [span for span in self.spans if span._call in at_work] if at_work else []

    def _begin(self, call: Call, moment: float, about: list[Any]) -> None:
        if self.began is None:
            self.began = moment
        above = self.above.get(call) or call.parent_call
        parent = None if above is None else self._by_call.get(above)
        span = self._by_call[call] = Span(self, parent, call, moment, about)
        self._counts[span.path] += 1
        span._execution = self._counts[span.path]
        siblings = self._roots if parent is None else parent._children
        siblings.append(span)

    def known_paths(self) -> list[str]:
        """Return the paths of all positions in the workflows that ran, and of calls."""
        known: dict[str, None] = {}
        seen: set[tuple[int, str]] = set()
        for root in self.roots:
            primitive = root._call.primitive
            if (id(primitive), root.path) not in seen:
                seen.add((id(primitive), root.path))
                known.update(
                    (path, None) for path, _ in positions(primitive, root.path)
                )
        known.update((span.path, None) for span in self.spans)
        return list(known)


class Trace:
    """What the workflows of a test have done: `assert trace == S("answer", ...)`.

    A trace of one run equals the pattern of its root; a trace of several runs equals a
    list of patterns. It goes on growing while workflows run.
    """

    __slots__ = ("_recording",)

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def roots(self) -> list[Span]:
        """The runs: executions that were called from outside."""
        return self._recording.roots

    @property
    def spans(self) -> list[Span]:
        """All executions, in the order in which they began."""
        return self._recording.spans

    def find(self, path: str) -> Span:
        """Return the only execution at a place.

        Args:
            path: A path, the end of one, or a pattern (`*` for a label, `**` for any
                number); `@2` at its end picks the second of several executions.

        Raises:
            SpanNotFoundError: There is none, or there are several.
        """
        __tracebackhide__ = True
        place, number = _parsed(path)
        found = self.spans_at(place)
        if number is not None:
            found = [span for span in found if span.execution == number]
        if len(found) == 1:
            return found[0]
        there = [f"{one.path}@{one.execution}" for one in found or self.spans_at(place)]
        many = "several executions are" if found else "no such execution is"
        msg = f"{many} at {path!r}; pick one of {', '.join(map(repr, there))}"
        raise SpanNotFoundError(msg)

    def spans_at(self, path: str) -> list[Span]:
        """Return all executions at a place, in the order in which they began.

        Args:
            path: A path, the end of one, or a pattern.

        Raises:
            SpanNotFoundError: There is none; that something did not run is asserted
                with `no(...)` in a pattern.
        """
        __tracebackhide__ = True
        place = check_place("path", path)
        found = [span for span in self.spans if matches(place, span.path)]
        if not found:
            msg = f"nothing ran at {path!r}; {hint(path, {s.path for s in self.spans})}"
            raise SpanNotFoundError(msg)
        return found

    def known_paths(self) -> list[str]:
        """Return the paths of all positions in the workflows that ran."""
        return self._recording.known_paths()

    def outline(self, *, durations: bool = True, events: bool = False) -> str:
        """Return the trace as text, one line for each span, the same in every run.

        Args:
            durations: Show how long each span took, in seconds.
            events: Show events below the span in which they happened.
        """
        lines: list[str] = []
        for root in self._recording.roots:
            lines += _outlined(root, 0, durations=durations, events=events)
        return "\n".join(lines)

    def __eq__(self, other: object) -> bool:
        patterns = [other] if isinstance(other, S) else other
        if not isinstance(patterns, (list, tuple)):
            return NotImplemented
        if not all(isinstance(one, S) for one in patterns):
            return NotImplemented
        rows = compared(self._recording.roots, patterns, self._recording)
        return not sum(row.total for row in rows)

    if TYPE_CHECKING:

        def __hash__(self) -> int: ...

    else:
        __hash__ = object.__hash__

    def __repr__(self) -> str:
        roots = ", ".join(outline_line(root) for root in self._recording.roots)
        count = len(self._recording.spans)
        return f"<Trace of {count} {'span' if count == 1 else 'spans'}: {roots}>"


def compared(
    roots: Sequence[Span], patterns: Sequence[S], recording: Recording
) -> list[Row]:
    """Return spans beside patterns, one line each."""
    return comparison_of(recording).align(roots, patterns, "")


def comparison_of(recording: Recording) -> Comparison:
    """Return what lays the spans of a recording beside patterns."""
    known: list[str] = []

    def known_paths() -> list[str]:
        if not known:
            known.extend(recording.known_paths())
        return known

    return Comparison(known_paths)


def _parsed(path: str) -> tuple[str, int | None]:
    place, at, number = path.rpartition("@")
    if not at:
        return path, None
    if not number.isdecimal() or int(number) < 1:
        msg = f"path={path!r} must end in a number from 1 after '@'"
        raise ValueError(msg)
    return place, int(number)


def _outlined(
    span: Span, depth: int, *, durations: bool, events: bool
) -> Iterator[str]:
    yield "  " * depth + outline_line(span, durations=durations)
    if events:
        for event in span.events:
            yield "  " * (depth + 1) + _event_line(event)
    for child in span.in_order():
        yield from _outlined(child, depth + 1, durations=durations, events=events)


def outline_line(span: Span, *, durations: bool = True, is_full: bool = False) -> str:
    """Return one span as text: name, execution, duration, and what was not usual."""
    name = span.path if is_full else span.label
    number = span.execution
    shown = [name if number == 1 else f"{name}@{number}"]
    if span.is_stream:
        shown.append("stream")
    if durations and span.duration is not None:
        shown.append(f"{seconds(span.duration)}s")
    if span.status != "ok":
        shown.append(span.status.replace("_", " ") + _error_name(span))
    shown += ["injected"] * ("fault.injected" in span.event_names)
    return " ".join(shown)


def seconds(value: float) -> str:
    """Write seconds without digits that say nothing."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _error_name(span: Span) -> str:
    error = span.error
    if error is None or span.status == "cancelled":
        return ""
    kind = error.type if isinstance(error, RecordedError) else type(error)
    return f": {kind.__name__}"


def _event_line(event: Event) -> str:
    detail = "".join(f" {key}={value!r}" for key, value in event.detail.items())
    return f"! {event.name}{detail}"
