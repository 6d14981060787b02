"""Where event loops come from while a clock is active.

`asyncio.run`, `asyncio.Runner`, pytest-asyncio, anyio and `IsolatedAsyncioTestCase` all
ask `asyncio.events.new_event_loop` for their loop unless somebody gave them a factory.
So does `LoopThread`, which begins a loop in a thread for each test that has a clock.
Standing there, for as long as a clocked test runs, serves all of them alike and changes
neither a test's id nor a fixture, policy or loop of anybody else.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import ref

from pytest_tta.clock.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_tta.clock.clock import VirtualClock

__all__ = ["LoopSource", "foreign_loop_message"]


class LoopSource:
    """Makes the loops of a test session, and gives each clock those that live on."""

    def __init__(self) -> None:
        self._loops: list[ref[VirtualLoop]] = []

    @contextmanager
    def in_virtual_time(self, clock: VirtualClock) -> Iterator[None]:
        """Run the block in the clock's time: new loops and those that are shared.

        A loop that is shared by several tests, as those of a session are, goes on in
        real time when the clock is left. One that has been running in another thread
        keeps real time. The loops of loop threads that were begun inside are closed.
        """
        shared = self.living()
        with ExitStack() as stack:
            for loop in shared:
                stack.enter_context(clock.on(loop))
            stack.enter_context(clock)
            stack.callback(self._leave_new, clock, shared)
            maker = self._maker(clock)
            stack.callback(_release_loop_threads, maker)
            with self.making(maker):
                yield

    @contextmanager
    def in_real_time(self) -> Iterator[None]:
        """Make loops that a later clock can take over, and that keep real time now."""
        with self.making(self._make_real):
            yield

    def living(self) -> list[VirtualLoop]:
        """Return the loops that are not closed yet, and not another thread's."""
        if not self._loops:
            return []
        here = (None, get_ident())
        return [o for o in self._not_closed() if o.thread_ident in here]

    def _not_closed(self) -> list[VirtualLoop]:
        """Return the loops that are not closed yet, and forget the others."""
        living: list[VirtualLoop] = []
        for one in list(self._loops):
            loop = one()
            if loop is None or loop.is_closed():
                self._loops.remove(one)
            else:
                living.append(loop)
        return living

    @contextmanager
    def making(self, make: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[None]:
        """Let asyncio make its loops with this function."""
        before = asyncio.events.new_event_loop
        _place(make)
        try:
            yield
        finally:
            _place(before)

    def _maker(self, clock: VirtualClock) -> Callable[[], VirtualLoop]:
        def new_event_loop() -> VirtualLoop:
            loop = clock.new_loop()
            self._loops.append(ref(loop))
            return loop

        return new_event_loop

    def _make_real(self) -> VirtualLoop:
        loop = VirtualLoop()
        self._loops.append(ref(loop))
        return loop

    def _leave_new(self, clock: VirtualClock, shared: list[VirtualLoop]) -> None:
        """Give loops that outlive the test in which they were made real time back."""
        if not self._loops:
            return
        for loop in self._not_closed():
            if loop.clock is clock and loop not in shared:
                clock.forget(loop)
                loop.detach()


def _release_loop_threads(maker: object) -> None:
    """Close what loop threads began with this maker, if there are loop threads."""
    loop_threads = sys.modules.get("tta_primitives.runtime.loop_thread")
    if loop_threads is not None:
        loop_threads.release(maker)


def _place(make: Callable[[], Any]) -> None:
    asyncio.events.new_event_loop = make
    asyncio.new_event_loop = make


def foreign_loop_message(kind: str) -> str:
    """Return the sentence for a test whose loop is not ours.

    Args:
        kind: What runs it, such as the qualified name of the loop's class.
    """
    return (
        f"this test has virtual time, but its event loop is {kind}, which keeps its "
        "own: a loop factory of the project (pytest_asyncio_loop_factories, "
        "anyio_backend) made it. Let tests that use the clock run without that "
        'factory, or give them real time with @pytest.mark.tta_clock("real")'
    )
