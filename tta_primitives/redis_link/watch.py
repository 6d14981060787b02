"""A time limit for many short operations, with one timer for all of them.

Making and cancelling a timer costs more than all the rest of a limit. Here there is one
for each event loop: it fires once in the time that an operation may take, looks who has
waited too long, and is set again only if somebody still waits.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives.deadline import Alarm, Thrown

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["Watch"]

T = TypeVar("T")

MARGIN = 0.001
"""How early a limit may be called reached, in seconds."""


class Watch:
    """Limits how long operations take on one event loop.

    Attributes:
        loop: The loop.
    """

    __slots__ = ("_dues", "_timer", "loop")

    timer_kind = "timeout"
    """What a log of timers may call it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._dues: dict[Alarm, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @types.coroutine
    def within(
        self, awaited: Coroutine[Any, Any, T], seconds: float
    ) -> Generator[Any, Any, T]:
        """Await a coroutine for so many seconds at most, as `asyncio.timeout` does.

        Args:
            awaited: What to await.
            seconds: The limit.

        Raises:
            TimeoutError: The time was up, and the coroutine has been cancelled.
        """
        try:
            pending = awaited.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        alarm = Alarm()
        self._set(alarm, self.loop.time() + seconds)
        try:
            # Its first wait is handed through; from then on it is delegated to.
            try:
                yield pending
            except BaseException as error:  # noqa: BLE001 - it is thrown in just below
                rest: Any = Thrown(awaited, error)
            else:
                rest = awaited
            value: T = yield from rest
        except asyncio.CancelledError:
            if alarm.off():
                msg = f"no answer within {seconds:g} s"
                raise TimeoutError(msg) from None
            raise
        except BaseException:
            alarm.off()
            raise
        finally:
            del self._dues[alarm]
        alarm.off()
        return value

    def _set(self, alarm: Alarm, due: float) -> None:
        self._dues[alarm] = due
        if self._timer is None:
            self._timer = self.loop.call_at(due, self)
        elif due < self._timer.when():
            self._timer.cancel()
            self._timer = self.loop.call_at(due, self)

    def __call__(self) -> None:
        """Ring for those who have waited too long.

        Where the loop itself was held up, their answers may be there, and are only to
        be seen: so they have two more iterations.
        """
        # A timer may fire a little early: by rounding, and by the loop's resolution.
        now = self.loop.time() + MARGIN
        late = [alarm for alarm, due in self._dues.items() if due <= now]
        if late:
            self.loop.call_soon(self.loop.call_soon, self._ring, late)
        waiting = [due for due in self._dues.values() if due > now]
        self._timer = self.loop.call_at(min(waiting), self) if waiting else None

    def _ring(self, late: list[Alarm]) -> None:
        for alarm in late:
            # Once: whoever cleans up after it is not interrupted again.
            if alarm in self._dues and not alarm.rang:
                alarm()
