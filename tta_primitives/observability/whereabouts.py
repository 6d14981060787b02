"""Where in which run a line of code is: what log lines say beside their message."""

from __future__ import annotations

import logging
import sys
from asyncio import current_task
from contextvars import ContextVar
from threading import RLock
from typing import TYPE_CHECKING, Any, Final
from weakref import finalize

from tta_primitives.door import (
    Observer,
    add_observer,
    current_context,
    remove_observer,
)

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from tta_primitives.context import Position
    from tta_primitives.door import Call

__all__ = [
    "ContextFilter",
    "ContextProcessor",
    "Place",
    "Places",
    "current_place",
    "span_fields",
    "whereabouts",
]

FIELDS: Final = ("correlation_id", "workflow_id", "path", "trace_id", "span_id")


class Place:
    """Where the current task is, told by an observer that follows it.

    Attributes:
        call: The call whose code runs; None once that is over, so that a task which
            lives on does not keep its input.
        outer: Where the task was before.
        root: The place of the run's root.
    """

    __slots__ = ("call", "outer", "root")

    def __init__(self, call: Call, outer: Place | None, root: Root | None) -> None:
        self.call: Call | None = call
        self.outer: Place | None = outer
        self.root: Root | None = root


class Root:
    """What is kept of a run while it lasts.

    Attributes:
        task: The task that it began in.
        span: OpenTelemetry's span that was current when it began, if any was.
        failure: The error that was told last, by identity; the path at which it arose;
            and the position that is told of it next if it goes on.
    """

    __slots__ = ("failure", "span", "task")

    def __init__(self) -> None:
        self.task: object = _task()
        self.span: Any = current_span()
        self.failure: tuple[int, str, Position | None] | None = None


_place: ContextVar[Place | None] = ContextVar("tta_place", default=None)


def _task() -> object:
    try:
        return current_task()
    except RuntimeError:
        return None


class Places(Observer):
    """Follows tasks through workflows, so that log lines can say where they are."""

    keeps_context = True

    def started(self, call: Call, /) -> None:
        """Note that the task is in this call now; a stream's code comes later."""
        if not call.is_stream:
            self._enter(call)

    def _enter(self, call: Call) -> None:
        outer = _place.get()
        root = None
        if outer is not None and outer.call is not None:
            root = outer.root
            # A run in a task of its own is one of its own, whoever started it.
            if call.parent is None and root is not None and root.task is not _task():
                root = None
        _place.set(Place(call, outer, root or Root()))

    def finished(self, call: Call, /) -> None:
        """Note that the task is back where it was."""
        if not call.is_stream:
            self._leave(call)

    def resumed(self, call: Call, /) -> None:
        """Note that the code of a stream runs."""
        self._enter(call)

    def suspended(self, call: Call, /) -> None:
        """Note that it runs no more."""
        self._leave(call)

    def _leave(self, call: Call) -> None:
        place = _place.get()
        if place is not None and place.call is call:
            place.call = None
            _place.set(place.outer)


def current_place() -> Place | None:
    """Return where the current task is, None outside of any call."""
    place = _place.get()
    return None if place is None or place.call is None else place


def whereabouts() -> dict[str, str]:
    """Return what is known of where the current code runs; nothing outside of a run.

    Keys are `correlation_id`, `workflow_id`, `path`, `trace_id` and `span_id`. The span
    is OpenTelemetry's current one, or else the one that the run's caller named.
    """
    found: dict[str, str] = {}
    context = current_context()
    place = current_place()
    call = None if place is None else place.call
    if context is None and call is not None:
        context = call.context
    if context is not None:
        found["correlation_id"] = context.correlation_id
        if context.workflow_id is not None:
            found["workflow_id"] = context.workflow_id
    if call is not None:
        found["path"] = call.path
    found.update(span_fields(current_span()))
    if "trace_id" not in found and context is not None and context.traceparent:
        parts = context.traceparent.split("-")
        if len(parts) >= 4:  # noqa: PLR2004 - version, trace, span, flags
            found["trace_id"], found["span_id"] = parts[1], parts[2]
    return found


def current_span() -> Any:  # noqa: ANN401 - of a library that may not be there
    """Return the context of OpenTelemetry's current span, None if there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return span if span.is_valid else None


def span_fields(span: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    """Return the ids of a span as log lines tell them."""
    if span is None:
        return {}
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


class ContextFilter(logging.Filter):
    """Gives log records the ids of the run, for those who format lines themselves.

    Records get `correlation_id`, `workflow_id`, `path`, `trace_id` and `span_id`; what
    is not known is `-`. Put it on a handler, where it sees records of all loggers:

        handler.addFilter(ContextFilter())
        handler.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))

    While there is one, runs keep their context, which costs each step a little.
    """

    def __init__(self) -> None:
        super().__init__()
        _follow(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        try:
            known = whereabouts()
        except Exception:  # noqa: BLE001 - a log line must not break a request
            known = {}
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, known.get(name, "-"))
        return True


class ContextProcessor:
    """Gives events of structlog the ids of the run, in a configuration of one's own.

    Put it among the processors: `structlog.configure(processors=[ContextProcessor(),
    ...])`. What is not known is left out, and what the event has already is kept.
    """

    def __init__(self) -> None:
        _follow(self)

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Add the fields."""
        try:
            for name, value in whereabouts().items():
                event.setdefault(name, value)
        except Exception:  # noqa: BLE001, S110 - a log line must not break a request
            pass
        return event


_lock = RLock()
_follower = Places()
_users = 0


def _follow(user: object) -> None:
    """Let runs keep their context for as long as this user of it lives."""
    global _users  # noqa: PLW0603 - counted, so that the last one ends it
    with _lock:
        _users += 1
        if _users == 1:
            add_observer(_follower)
    finalize(user, _unfollow).atexit = False


def _unfollow() -> None:
    global _users  # noqa: PLW0603 - as above
    with _lock:
        _users -= 1
        if _users == 0:
            remove_observer(_follower)
