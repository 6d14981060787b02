"""What a Celery message carries of a run, and how it gets from task to task.

While a task runs, what it publishes carries its context: the signals below put the
headers of the current context into every message, also into those that Celery sends
when the task has ended (the next of a chain, a retry).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tta_primitives.context import CORRELATION_HEADER, WorkflowContext
from tta_primitives.extras import needs
from tta_primitives.loops import moment, now

with needs("celery", __name__):
    from celery.signals import before_task_publish, task_postrun, task_prerun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["REMAINING_HEADER", "Carried", "carried", "carrying", "message_headers"]

REMAINING_HEADER = "x-tta-remaining-seconds"


class Carried:
    """The context that messages of this thread or task carry.

    Attributes:
        context: The context; its deadline is set where there is a loop with a clock.
        remaining: The seconds to the deadline when they were last known.
        request: Celery's request of the task that runs, None outside of one.
        outer: What is carried again when this has ended.
    """

    __slots__ = ("context", "outer", "remaining", "request")

    def __init__(
        self,
        context: WorkflowContext,
        *,
        remaining: float | None = None,
        request: Any = None,  # noqa: ANN401 - Celery has no types
        outer: Carried | None = None,
    ) -> None:
        self.context: WorkflowContext = context
        self.remaining = remaining
        self.request: Any = request
        self.outer: Carried | None = outer

    def begin(self, soft_limit: float | None = None) -> None:
        """Set the deadline, on the clock of the loop that runs now.

        Args:
            soft_limit: Seconds after which the task will be told to stop.
        """
        limits = [s for s in (self.remaining, soft_limit) if s is not None]
        if limits:
            self.context.deadline = now() + min(limits)

    def note(self) -> None:
        """Note what remains, for messages that are sent where no loop runs."""
        self.remaining = _remaining(self)

    def headers(self) -> dict[str, str]:
        """Return the headers of a message that is sent now."""
        headers = self.context.to_headers()
        remaining = _remaining(self)
        if remaining is not None:
            headers[REMAINING_HEADER] = _written(remaining)
        return headers


_carried: ContextVar[Carried | None] = ContextVar("tta_celery_carried", default=None)


def carried() -> Carried | None:
    """Return what messages carry here, None if nothing."""
    return _carried.get()


@contextmanager
def carrying(context: WorkflowContext) -> Iterator[None]:
    """Let messages that are published inside carry this context.

    Inside a task its own context is carried without this. Use it where a workflow or a
    request outside of Celery publishes: a view of FastAPI or Flask, a script.

    Args:
        context: Its correlation id, trace, baggage and deadline are what travels.
    """
    outer = _carried.get()
    request = None if outer is None else outer.request
    inner = Carried(context, request=request, outer=outer)
    inner.note()
    token = _carried.set(inner)
    try:
        yield
    finally:
        _carried.reset(token)


def message_headers(context: WorkflowContext) -> dict[str, str]:
    """Return the headers of a message that carries this context.

    `carrying` and `send` do this by themselves; it is for `apply_async(headers=...)`
    and for publishers that have nothing but a Celery app.

    Args:
        context: What the task is to be a part of.
    """
    return Carried(context).headers()


def received(request: Any) -> Carried:  # noqa: ANN401 - Celery has no types
    """Return what a task has got with its message.

    Where the message names no correlation id the id of the task is it. The idempotency
    key is the task's id, which a message that is delivered again has again.

    Args:
        request: Celery's request, `task.request`.
    """
    headers = _texts(getattr(request, "headers", None) or {})
    context = WorkflowContext.from_headers(headers)
    # A context without one makes one up when it is asked.
    if not (context._fields or {}).get("correlation_id") and request.id:
        context.correlation_id = request.id
    context._key = request.id
    remaining = _read(headers.get(REMAINING_HEADER))
    return Carried(context, remaining=remaining, request=request)


def _texts(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Return those headers that are texts; others are no business of ours."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if isinstance(name, str) and isinstance(value, str)
    }


def _read(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 else None  # Also False for what is not a number.


def _written(seconds: float) -> str:
    return f"{max(0.0, seconds):.6f}"


def _remaining(carried: Carried) -> float | None:
    """Return the seconds that remain now, as last known where no clock runs."""
    if carried.context.deadline is None or moment() is None:
        return carried.remaining
    return carried.context.remaining()


# --- Celery's signals -------------------------------------------------------


def _add_headers(headers: dict[str, Any] | None = None, **_: object) -> None:
    """Put the headers of the current context into a message that is published."""
    carried = _carried.get()
    if carried is None or headers is None:
        return
    ours = carried.headers()
    remaining = ours.pop(REMAINING_HEADER, None)
    if CORRELATION_HEADER not in _texts(headers):
        # Whoever gave headers of their own has decided what run the task belongs to.
        headers.update({k: v for k, v in ours.items() if k not in headers})
    if remaining is not None:
        given = _read(_texts(headers).get(REMAINING_HEADER))
        known = float(remaining)
        headers[REMAINING_HEADER] = _written(
            known if given is None else min(given, known)
        )
    _add_parent(headers, carried.request)


def _add_parent(headers: dict[str, Any], request: Any) -> None:  # noqa: ANN401 - as above
    """Name the parent of a task that was published in the loop's thread.

    Celery keeps its current task for each thread, and finds none there.
    """
    if request is None or not request.id or headers.get("parent_id") is not None:
        return
    if headers.get("id") != request.id:  # A retry is not its own parent.
        headers["parent_id"] = request.id
        if headers.get("root_id") in {None, headers.get("id")}:
            headers["root_id"] = request.root_id or request.id


def _open(task: Any = None, **_: object) -> None:  # noqa: ANN401 - as above
    """Carry the context of a task that begins in this thread."""
    inner = received(task.request)
    inner.outer = _carried.get()
    _carried.set(inner)


def _close(task: Any = None, **_: object) -> None:  # noqa: ANN401 - as above
    """Carry again what was carried before the task."""
    carried = _carried.get()
    if carried is not None and carried.request is task.request:
        _carried.set(carried.outer)


# Wherever this module is imported, in workers and in whoever publishes. They do nothing
# where no context is carried.
before_task_publish.connect(_add_headers, weak=False)
task_prerun.connect(_open, weak=False)
task_postrun.connect(_close, weak=False)
