"""A span of OpenTelemetry for each execution of a primitive.

The span of a primitive is current while the primitive runs, so that spans which its
code makes, or an instrumented HTTP client or database driver, become its children. In a
stream it is current only while the stream's own code runs, never in its consumer.

| attribute | of which spans | what it says |
| --- | --- | --- |
| `tta.path` | all | the labels from the root of the run, `answer/retry/llm` |
| `tta.primitive` | all | the class of the primitive |
| `tta.stream` | streams | true |
| `tta.attempt` | what a retry executes | which attempt it was, from 1 |
| `tta.status` | what was not ok | `failed`, `timed_out` or `cancelled` |
| `error.type` | what failed or timed out | the class of the error |
| `tta.correlation_id` | roots | the context's |
| `tta.run_id` | roots | the context's |
| `tta.workflow_id`, `tta.session_id` | roots | the context's, if it has one |
| `tta.tag.*` | roots | the context's tags |
| `tta.input`, `tta.output` | all | only where content is wanted |

Spans of language models have those of `tta_primitives.observability.genai` as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tta_primitives.door import Call, Observer
from tta_primitives.extras import needs
from tta_primitives.loops import now
from tta_primitives.observability import genai
from tta_primitives.observability.exceptions import (
    Told,
    description,
    exception_attributes,
    type_name,
)
from tta_primitives.observability.propagation import joined

if TYPE_CHECKING:
    from tta_primitives.context import Position, WorkflowContext
    from tta_primitives.observability.redaction import Redactor

__all__ = ["Spans"]

_PLAIN = frozenset({bool, int, float})


class _Open:
    """What is kept of a call while its span is open.

    Attributes:
        span: The span, which may be one that records nothing.
        path: The path of the call.
        is_recording: Whether it records; asked once.
        token: What takes the span back; None while it is not current.
        attempt: Which attempt of a retry is executed below it, 0 for none.
        told: The errors that spans below have told.
        is_llm: Whether it is the span of a language model.
        began: The loop's time when it began, for language models that stream.
        first: The seconds until the first chunk.
    """

    __slots__ = (
        "attempt",
        "began",
        "first",
        "is_llm",
        "is_recording",
        "path",
        "span",
        "token",
        "told",
    )

    def __init__(self, span: Any, path: str, *, is_recording: bool) -> None:  # noqa: ANN401 - any span
        self.span = span
        self.path = path
        self.is_recording = is_recording
        self.token: Any = None
        self.attempt = 0
        self.told: Told | None = None
        self.is_llm = False
        self.began = 0.0
        self.first: float | None = None


class Spans(Observer):
    """The observer that opens and closes spans.

    Where the root of a run is not sampled, nothing below it makes a span.

    Args:
        tracer: Makes the spans.
        redact: Takes secrets out of all that comes from outside.
        content_length: How many characters are told of an input, an output or the
            messages of a model; 0 for none at all.
    """

    def __init__(self, tracer: Any, redact: Redactor, *, content_length: int) -> None:  # noqa: ANN401 - any tracer
        with needs("otel", "tracing", "opentelemetry"):
            from opentelemetry import context, trace
        self._tracer = tracer
        self._redact = redact
        self._content_length = content_length
        self._surroundings = context.get_current
        self._attach, self._detach = context.attach, context.detach
        self._current, self._within = trace.get_current_span, trace.set_span_in_context
        self._client = trace.SpanKind.CLIENT
        self._internal = trace.SpanKind.INTERNAL
        self._status, self._error = trace.Status, trace.StatusCode.ERROR
        self._kinds: dict[type, str] = {}

    def started(self, call: Call, /) -> None:
        """Open a span, and make it current unless the call is a stream."""
        above = call.parent
        outer = None if above is None else self._above(above)
        if outer is not None and not outer.is_recording:
            return
        surroundings = self._surroundings()
        here = self._current(surroundings)
        if outer is not None:
            if here is not outer.span and _is_elsewhere(here, outer.span):
                surroundings = self._within(outer.span, surroundings)
        elif above is None:
            place = here.get_span_context()
            if not place.is_valid:
                surroundings = joined(call.context, surroundings)
            elif not (place.is_remote or here.is_recording()):
                return
        elif not here.is_recording():
            return
        self._open(call, outer, surroundings)

    def _above(self, position: Position | None) -> _Open | None:
        """Return what is kept of the nearest call above."""
        while position is not None:
            if isinstance(position, Call):
                store = getattr(position, "_store", None)
                return None if store is None else store.get(self)
            position = position.parent
        return None

    def _open(self, call: Call, outer: _Open | None, surroundings: Any) -> None:  # noqa: ANN401 - OpenTelemetry's context
        primitive = call.primitive
        if outer is not None and isinstance(call.parent, Call):
            path = f"{outer.path}/{call.label}"
        else:
            path = call.path
        kind = type(primitive)
        shown = self._kinds.get(kind)
        if shown is None:
            shown = self._kinds[kind] = _shown(kind)
        attributes: dict[str, Any] = {"tta.path": path, "tta.primitive": shown}
        if outer is not None and outer.attempt:
            attributes["tta.attempt"] = outer.attempt
        name, is_llm = primitive.name, genai.is_llm(primitive)
        if is_llm or call.is_stream or self._content_length:
            name = self._also(call, attributes, is_llm=is_llm)
        span_kind = self._client if is_llm else self._internal
        span = self._tracer.start_span(name, surroundings, span_kind, attributes)
        is_recording = span.is_recording()
        if not (is_recording or span.get_span_context().is_valid):
            return
        opened = _Open(span, path, is_recording=is_recording)
        call.store[self] = opened
        if is_recording and call.parent is None:
            # Not before: what is not sampled need not be made.
            span.set_attributes(self._of_run(call.context))
        if not call.is_stream:
            opened.token = self._attach(self._within(span, surroundings))
        if is_llm:
            opened.is_llm, opened.began = True, now()

    def _of_run(self, context: WorkflowContext) -> dict[str, Any]:
        """Return what the root of a run tells of it: texts that callers have chosen."""
        clean = self._redact.text
        told = {
            "tta.correlation_id": clean(str(context.correlation_id)),
            "tta.run_id": clean(str(context.run_id)),
        }
        for name in ("workflow_id", "session_id"):
            value = getattr(context, name)
            if value is not None:
                told[f"tta.{name}"] = clean(str(value))
        if context.tags:
            for name, value in self._redact(context.tags).items():
                told[f"tta.tag.{name}"] = str(value)
        return told

    def _also(self, call: Call, attributes: dict[str, Any], *, is_llm: bool) -> str:
        """Add what few spans have; return the span's name."""
        if call.is_stream:
            attributes["tta.stream"] = True
        if is_llm:
            request = genai.asked(call, self._content if self._content_length else None)
            if request is not None:
                # A model may be named by whoever sends the request.
                attributes |= self._clean(request.attributes)
                return self._redact.text(request.name)
        elif self._content_length:
            attributes["tta.input"] = self._content(call.input_data)
        return call.primitive.name

    def _clean(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Return attributes without secrets in their texts."""
        clean = self._redact.text
        return {
            name: clean(value) if isinstance(value, str) else value
            for name, value in attributes.items()
        }

    def _content(self, value: object) -> str:
        """Return a bounded text of anything, without secrets."""
        clean = self._redact(value)
        text = clean if isinstance(clean, str) else genai.as_json(clean)
        if len(text) > self._content_length:
            return text[: self._content_length] + "..."
        return text

    def resumed(self, call: Call, /) -> None:
        """Make the span of a stream current while its own code runs."""
        opened = self._opened(call)
        if opened is not None:
            opened.token = self._attach(self._within(opened.span))

    def suspended(self, call: Call, /) -> None:
        """Take the span of a stream back before its consumer's code runs."""
        opened = self._opened(call)
        if opened is not None and opened.token is not None:
            token, opened.token = opened.token, None
            self._detach(token)
            if opened.is_llm and opened.first is None:
                opened.first = now() - opened.began

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Add an event to the span of the call that tells it."""
        opened = self._opened(call)
        if opened is None or not opened.is_recording:
            return
        if name == genai.USAGE:
            opened.span.set_attributes(self._clean(genai.answered(detail)))
            return
        if name == "retry.attempt":
            # Whoever emits it in a primitive of their own may have no number.
            opened.attempt = detail.get("attempt", opened.attempt)
        opened.span.add_event(name, self._detail(detail))

    def _detail(self, detail: dict[str, Any]) -> dict[str, Any]:
        if all(type(value) in _PLAIN for value in detail.values()):
            return detail
        named = {
            ("error.type" if key == "error" else key): (
                type_name(value) if isinstance(value, BaseException) else value
            )
            for key, value in detail.items()
            if value is not None
        }
        clean = self._redact(named)
        return {
            key: genai.as_json(value) if isinstance(value, (dict, list)) else value
            for key, value in clean.items()
        }

    def _opened(self, call: Call) -> _Open | None:
        store = getattr(call, "_store", None)
        return None if store is None else store.get(self)

    def finished(self, call: Call, /) -> None:
        """Close the span, and make the one around it current again."""
        store = getattr(call, "_store", None)
        opened: _Open | None = None if store is None else store.pop(self, None)
        if opened is None:
            return
        span, token = opened.span, opened.token
        error = call.error
        # A coroutine that nobody awaits any more is closed wherever that is noticed.
        is_here = not isinstance(error, GeneratorExit) or self._current() is span
        if token is not None and is_here:
            self._detach(token)
        if not opened.is_recording:
            return
        if call.status != "ok":
            self._tell_failure(call, opened, error)
        elif opened.is_llm or self._content_length:
            self._tell_output(call, opened)
        span.end()

    def _tell_failure(
        self, call: Call, opened: _Open, error: BaseException | None
    ) -> None:
        span = opened.span
        span.set_attribute("tta.status", call.status)
        if error is None or call.status == "cancelled":
            return
        name = type_name(error)
        span.set_attribute("error.type", name)
        if opened.told is None or error not in opened.told:
            span.add_event("exception", exception_attributes(error, self._redact))
            name = description(error, self._redact)
        span.set_status(self._status(self._error, name))
        outer = self._above(call.parent)
        if outer is not None:
            if outer.told is None:
                outer.told = Told()
            outer.told.add(error)

    def _tell_output(self, call: Call, opened: _Open) -> None:
        span, output = opened.span, call.output
        if opened.is_llm:
            if call.is_stream and output and opened.first is not None:
                span.set_attribute("gen_ai.response.time_to_first_chunk", opened.first)
            if call.is_stream:
                output = call.context.outcomes.get(opened.path)
            if self._content_length and output is not None:
                said = genai.output_messages(output, self._content)
                span.set_attribute("gen_ai.output.messages", said)
        else:
            span.set_attribute("tta.output", self._content(output))


def _is_elsewhere(here: Any, outer: Any) -> bool:  # noqa: ANN401 - spans
    """Tell whether the current span is of another run: a task that outlives its own."""
    mine: int = outer.get_span_context().trace_id
    return bool(here.get_span_context().trace_id != mine)


def _shown(kind: type) -> str:
    names = (cls.__name__ for cls in kind.__mro__)
    return next(name for name in names if not name.startswith("_"))
