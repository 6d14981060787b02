"""A request that is let through to the real server, and what came back, with its times.

The whole answer is fetched before the client gets any of it. Meanwhile virtual time
stands still, except that a timer goes off which is due by then in real time, too. What
the client is given afterwards comes at the times at which it really came; so it sees
now what it will see of a recording.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta.clock import active
from pytest_tta.clock.functions import REAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_tta.wire.exchange import Part, WireAnswer

__all__ = ["Caught", "Forward", "fetch_in_task", "fetch_in_thread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """What came back from a real server.

    Attributes:
        status: The HTTP status; None if no head came.
        headers: Names in lower case, and values, in order.
        head_after: Real seconds from the request to the head, or to the error.
        parts: The body: real seconds after the head, and bytes, as they came.
        error: What the client's library raised, if anything.
    """

    status: int | None
    headers: tuple[tuple[str, str], ...]
    head_after: float
    parts: tuple[Part, ...]
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Forward:
    """Asks for a request to be sent where it would have gone.

    Attributes:
        done: Is given what came back; returns what the client is given.
        around: Makes what is entered while the network is at work.
    """

    done: Callable[[Caught], WireAnswer]
    around: Callable[[], AbstractContextManager[object]]


async def fetch_in_task(forward: Forward, transport: Any, request: Any) -> WireAnswer:  # noqa: ANN401 - of either library
    """Let a request through, and wait for the whole answer.

    Being cancelled takes effect when it has come: a recording of half an answer is of
    no use to anybody.

    Args:
        forward: Who asked for it.
        transport: The client's own.
        request: The request, which is not changed.
    """

    async def fetch() -> WireAnswer:
        """Send the request, and read all that comes."""
        with _real_time(), forward.around():
            caught = await _caught_in_task(transport, request)
        return forward.done(caught)

    task = asyncio.ensure_future(fetch())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - see the next line
            break  # It is the task's own, and raised below.
    answer = task.result()
    if cancelled is not None:
        raise cancelled
    return answer


def fetch_in_thread(forward: Forward, transport: Any, request: Any) -> WireAnswer:  # noqa: ANN401 - as above
    """Let a request through, and block until the whole answer is here."""
    with _real_time(), forward.around():
        caught = _caught_in_thread(transport, request)
    return forward.done(caught)


@contextmanager
def _real_time() -> Iterator[None]:
    """Let virtual time stand still, for as long as the real server takes."""
    clock = active.clock
    with ExitStack() as stack:
        if clock is not None:
            stack.enter_context(clock.real())
            stack.enter_context(clock.hold("an answer that is being recorded"))
        yield


class _Catching:
    """Takes down an answer while it comes."""

    def __init__(self) -> None:
        self._began = self._head_at = REAL["monotonic"]()
        self._status: int | None = None
        self._headers: tuple[tuple[str, str], ...] = ()
        self._parts: list[Part] = []

    def head(self, response: Any) -> None:  # noqa: ANN401 - of either library
        self._head_at = REAL["monotonic"]()
        self._status = response.status_code
        self._headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in response.headers.raw
        )

    def part(self, data: bytes) -> None:
        self._parts.append((REAL["monotonic"]() - self._head_at, data))

    def caught(self, error: Exception | None) -> Caught:
        if self._status is None:
            self._head_at = REAL["monotonic"]()
        return Caught(
            status=self._status,
            headers=self._headers,
            head_after=self._head_at - self._began,
            parts=tuple(self._parts),
            error=error,
        )


async def _caught_in_task(transport: Any, request: Any) -> Caught:  # noqa: ANN401 - as above
    catching = _Catching()
    try:
        response = await transport.handle_async_request(request)
        try:
            catching.head(response)
            async for part in response.stream:
                catching.part(part)
        finally:
            await response.aclose()
    except Exception as error:  # noqa: BLE001 - whoever records says what it means
        return catching.caught(error)
    return catching.caught(None)


def _caught_in_thread(transport: Any, request: Any) -> Caught:  # noqa: ANN401 - as above
    catching = _Catching()
    try:
        response = transport.handle_request(request)
        try:
            catching.head(response)
            for part in response.stream:
                catching.part(part)
        finally:
            response.close()
    except Exception as error:  # noqa: BLE001 - as above
        return catching.caught(error)
    return catching.caught(None)
