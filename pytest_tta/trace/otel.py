"""Spans that code under test makes with OpenTelemetry, as a part of the trace.

While a harness listens, starting and ending a span is heard where it happens: in the
SDK, and in what the API does where nobody has set a provider. So a test needs neither a
provider nor an exporter, and the one that an app has set goes on as it was.

Import this where OpenTelemetry was imported already.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as api

from pytest_tta.trace.snapshot import detached, snapshot
from pytest_tta.trace.spans import BEGAN, ENDED, EVENT, RETURNED
from tta_primitives.door import Call, Observer
from tta_primitives.loops import running_loop
from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Mapping

    from pytest_tta.trace.recorder import TraceRecorder

__all__ = ["SpanIntake", "hearing_spans"]

# Spans of primitives are in the trace as what they are.
_OF_PRIMITIVES = "tta.path"
_SDK = "opentelemetry.sdk.trace"


class OpenTelemetrySpan(WorkflowPrimitive[Any, Any]):
    """Stands for a span where a trace has a primitive."""


class _SpanCall(Call):
    """A span where a trace has a call."""

    __slots__ = ()


class _Place:
    """Where the current task is: in this call, which an intake was told of.

    Attributes:
        span: OpenTelemetry's current span when the code of the call began.
        outer: Where the task was before.
    """

    __slots__ = ("call", "intake", "loop", "outer", "span")

    def __init__(
        self, intake: SpanIntake, call: Call, span: object, outer: _Place | None
    ) -> None:
        self.intake: SpanIntake = intake
        self.call: Call = call
        self.span: object = span
        self.outer: _Place | None = outer
        self.loop: AbstractEventLoop = running_loop()


class _Heard:
    """A span that has begun inside of a call and has not ended yet.

    Attributes:
        span: It is kept, so that no other one can be taken for it.
        call: What stands for it in the trace.
        place: Where it began.
        error: What was being handled there already.
    """

    __slots__ = ("call", "error", "place", "span")

    def __init__(self, span: object, call: _SpanCall, place: _Place) -> None:
        self.span: object = span
        self.call: _SpanCall = call
        self.place: _Place = place
        self.error: BaseException | None = sys.exception()


_here: ContextVar[_Place | None] = ContextVar("tta_span_place", default=None)
# By identity; and by their ids those that have any.
_open: dict[int, _Heard] = {}
_by_span_id: dict[int, _Heard] = {}


class SpanIntake(Observer):
    """Takes spans that code makes inside of primitives into a recorder's trace.

    Args:
        recorder: Its trace gets them; it is told of the same calls.
    """

    def __init__(self, recorder: TraceRecorder) -> None:
        self._recorder = recorder

    def started(self, call: Call, /) -> None:
        """Note that what the task does from now on it does in this call."""
        if call.parent is None:
            _hear_sdk()
        current = api.get_current_span()
        around = _span_around(current)
        if around is not None:
            self._recorder.put_below(call, around)
        if not call.is_stream:
            _here.set(_Place(self, call, current, _here.get()))

    def resumed(self, call: Call, /) -> None:
        """Note that the code of a stream runs."""
        _here.set(_Place(self, call, api.get_current_span(), _here.get()))

    def suspended(self, call: Call, /) -> None:
        """Note that it is the consumer's code that runs."""
        _leave(call)

    def finished(self, call: Call, /) -> None:
        """Note that the task is where it was before."""
        if not call.is_stream:
            _leave(call)

    def begin(
        self, place: _Place, span: api.Span, name: str, attributes: Mapping[str, Any]
    ) -> None:
        """Write down that a span began."""
        call = _SpanCall()
        call.parent = _span_around(api.get_current_span()) or place.call
        call.primitive = OpenTelemetrySpan()
        call.primitive._name = name
        call.label = _label(name)
        heard = _open[id(span)] = _Heard(span, call, place)
        where = span.get_span_context()
        if where.is_valid:
            _by_span_id[where.span_id] = heard
        given = snapshot(dict(attributes))
        self._note(BEGAN, call, place, _task_name(), given)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Hear nothing: events of primitives are the recorder's."""

    def add_event(
        self, heard: _Heard, name: str, attributes: Mapping[str, Any]
    ) -> None:
        """Write down what a span was told, but for errors, which its end tells."""
        if name != "exception":
            detail = {key: snapshot(value) for key, value in attributes.items()}
            self._note(EVENT, heard.call, heard.place, name, detail)

    def end(
        self, heard: _Heard, attributes: Mapping[str, Any], *, is_error: bool
    ) -> None:
        """Write down how a span ended."""
        output = snapshot(dict(attributes))
        error = sys.exception()
        if error is heard.error:
            error = None
        status = "failed"
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            status = "cancelled"
        elif not is_error:
            self._note(RETURNED, heard.call, heard.place, output)
            return
        kept = None if error is None else detached(error)
        self._note(ENDED, heard.call, heard.place, output, status, kept)

    def _note(self, what: str, call: Call, place: _Place, *rest: object) -> None:
        # A span may begin in a thread, where no loop is running.
        self._recorder.note((what, call, place.loop.time(), *rest))


def _leave(call: Call) -> None:
    place = _here.get()
    if place is not None and place.call is call:
        _here.set(place.outer)


def _span_around(current: object) -> Call | None:
    """Return the span that the current code is in, if it began in the current call."""
    heard = _open.get(id(current))
    if heard is None:
        # Where workflows are traced, a call's own span may be current already.
        above = getattr(current, "parent", None)
        heard = None if above is None else _by_span_id.get(above.span_id)
    if heard is None:
        return None
    place = _here.get()
    # A call that began directly in that span is the nearer one.
    is_inside = place is not None and place.span in (current, heard.span)
    return None if is_inside else heard.call


def _closed(span: api.Span) -> _Heard | None:
    """Return what is known of a span that ends, and forget it."""
    heard = _open.pop(id(span), None)
    if heard is not None:
        _by_span_id.pop(span.get_span_context().span_id, None)
    return heard


def _label(name: str) -> str:
    """Return a name as a path may have it: `GET /users` stays as it is."""
    labels = re.sub(r"[@#]", "-", name).split("/")
    return "/".join(filter(None, labels)) or "span"


def _task_name() -> str:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return ""
    return "" if task is None else task.get_name()


class _TestSpan(api.Span):
    """A span that is made where nobody has set a provider.

    It has the ids of the one that the API makes there: none, or the caller's.
    """

    def __init__(self, inner: api.Span, attributes: Mapping[str, Any]) -> None:
        self._inner = inner
        self._attributes = dict(attributes)
        self._is_error = False

    def get_span_context(self) -> api.SpanContext:
        """Return the ids that are passed on."""
        return self._inner.get_span_context()

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Keep attributes."""
        self._attributes.update(attributes)

    def set_attribute(self, key: str, value: Any) -> None:  # noqa: ANN401 - whatever is told
        """Keep an attribute."""
        self._attributes[key] = value

    def add_event(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,  # noqa: ARG002 - the virtual clock says when
    ) -> None:
        """Write an event down."""
        heard = _open.get(id(self))
        if heard is not None:
            heard.place.intake.add_event(heard, name, attributes or {})

    def update_name(self, name: str) -> None:
        """Do nothing: it is known by the name that it began with."""

    def is_recording(self) -> bool:
        """Tell whether it has not ended."""
        return id(self) in _open

    def set_status(
        self, status: api.Status | api.StatusCode, description: str | None = None
    ) -> None:
        """Keep whether it failed."""
        del description
        self._is_error = getattr(status, "status_code", status) is api.StatusCode.ERROR

    def record_exception(
        self,
        exception: BaseException,
        *args: Any,  # noqa: ANN401 - OpenTelemetry's
        **more: Any,  # noqa: ANN401 - as above
    ) -> None:
        """Do nothing: its end tells."""

    def end(self, end_time: int | None = None) -> None:
        """End it."""
        del end_time
        heard = _closed(self)
        if heard is not None:
            intake = heard.place.intake
            intake.end(heard, self._attributes, is_error=self._is_error)

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, Exception):
            self._is_error = True
        self.end()


def _to_hear(attributes: Mapping[str, Any] | None) -> _Place | None:
    """Return where a span that begins is to be written down, None if it is not."""
    place = _here.get()
    if place is None or (attributes and _OF_PRIMITIVES in attributes):
        return None
    return place


def _without_provider(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def start_span(
        self: api.NoOpTracer,
        name: str,
        context: Any = None,  # noqa: ANN401 - OpenTelemetry's
        kind: api.SpanKind = api.SpanKind.INTERNAL,
        attributes: Any = None,  # noqa: ANN401 - as above
        *args: Any,  # noqa: ANN401 - as above
        **more: Any,  # noqa: ANN401 - as above
    ) -> api.Span:
        made: api.Span = original(self, name, context, kind, attributes, *args, **more)
        place = _to_hear(attributes)
        if place is None:
            return made
        span = _TestSpan(made, attributes or {})
        place.intake.begin(place, span, name, attributes or {})
        return span

    return start_span


def _current_without_provider(original: Callable[..., Any]) -> Callable[..., Any]:
    # Earlier versions of the API make no span here at all.
    @contextmanager
    def start_as_current_span(
        self: api.NoOpTracer,
        name: str,
        *args: Any,  # noqa: ANN401 - OpenTelemetry's
        end_on_exit: bool = True,
        **more: Any,  # noqa: ANN401 - as above
    ) -> Iterator[api.Span]:
        span = self.start_span(name, *args, **more)
        how = {k: v for k, v in more.items() if k.endswith("exception")}
        with api.use_span(span, end_on_exit, **how):
            yield span

    @wraps(original)
    def choose(self: api.NoOpTracer, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as above
        chosen = original if _here.get() is None else start_as_current_span
        return chosen(self, *args, **more)

    return choose


def _of_sdk(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def start_span(
        self: Any,  # noqa: ANN401 - the SDK is perhaps not imported
        name: str,
        context: Any = None,  # noqa: ANN401 - OpenTelemetry's
        kind: api.SpanKind = api.SpanKind.INTERNAL,
        attributes: Any = None,  # noqa: ANN401 - as above
        *args: Any,  # noqa: ANN401 - as above
        **more: Any,  # noqa: ANN401 - as above
    ) -> api.Span:
        span: api.Span = original(self, name, context, kind, attributes, *args, **more)
        place = _to_hear(attributes)
        if place is not None and span.is_recording():
            place.intake.begin(place, span, name, attributes or {})
        return span

    return start_span


def _ended_by_sdk(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def end(self: Any, *args: Any, **more: Any) -> None:  # noqa: ANN401 - as above
        heard = _closed(self)
        if heard is not None:
            is_error = self.status.status_code is api.StatusCode.ERROR
            heard.place.intake.end(heard, self.attributes or {}, is_error=is_error)
        original(self, *args, **more)

    return end


def _event_of_sdk(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def add_event(
        self: Any,  # noqa: ANN401 - as above
        name: str,
        attributes: Any = None,  # noqa: ANN401 - as above
        *args: Any,  # noqa: ANN401 - as above
        **more: Any,  # noqa: ANN401 - as above
    ) -> None:
        heard = _open.get(id(self))
        if heard is not None:
            heard.place.intake.add_event(heard, name, attributes or {})
        original(self, name, attributes, *args, **more)

    return add_event


_replaced: list[tuple[type, str, Any]] = []
_harnesses = 0


def _replace(owner: type, name: str, make: Callable[..., Any]) -> None:
    original = vars(owner)[name]
    _replaced.append((owner, name, original))
    setattr(owner, name, make(original))


def _hear_sdk() -> None:
    """Hear the SDK, too, once it is imported, which may be in a test."""
    sdk = sys.modules.get(_SDK)
    if sdk is None or not _harnesses:
        return
    if any(owner is sdk.Tracer for owner, _, _ in _replaced):
        return
    _replace(sdk.Tracer, "start_span", _of_sdk)
    _replace(sdk.Span, "end", _ended_by_sdk)
    _replace(sdk.Span, "add_event", _event_of_sdk)


@contextmanager
def hearing_spans() -> Iterator[None]:
    """Hear of the spans that code makes inside of calls that an intake is told of."""
    global _harnesses  # noqa: PLW0603 - a harness may stand inside of another one
    _harnesses += 1
    if _harnesses == 1:
        _replace(api.NoOpTracer, "start_span", _without_provider)
        _replace(api.NoOpTracer, "start_as_current_span", _current_without_provider)
    _hear_sdk()
    try:
        yield
    finally:
        _harnesses -= 1
        if not _harnesses:
            while _replaced:
                owner, name, original = _replaced.pop()
                setattr(owner, name, original)
            _open.clear()
            _by_span_id.clear()
