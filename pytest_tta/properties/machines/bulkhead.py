"""The state machine of a bulkhead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pytest_tta.properties.machines.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.properties.machines.world import Caller, Load

__all__ = ["BulkheadMachine"]

_SLACK = 1e-6


class BulkheadMachine(Machine):
    """Find what a bulkhead does wrong: slots, queue, limits of waiting, cancellation.

    The model: so many calls are inside, the others wait in the order in which they
    came; a slot that becomes free goes to the first of them, however its call ended;
    who waits for longer than `max_wait`, or finds the queue full, is rejected.

        class TestBulkhead(BulkheadMachine):
            def make(self, step):
                return BulkheadPrimitive(step, max_concurrency=2, max_queue=3)

        TestBulkheadCase = TestBulkhead.TestCase
    """

    _known: ClassVar[dict[str, Any]] = {
        "max_concurrency": 1,
        "max_queue": 0,
        "max_wait": None,
    }

    def __init__(self) -> None:
        super().__init__()
        self._inside: set[Caller] = set()
        # Who waits, and until when.
        self._queue: dict[Caller, float] = {}

    def _moments(self) -> Sequence[float]:
        wait = self.options["max_wait"]
        return (1.0,) if wait is None else (wait, wait / 2, 2 * wait)

    def _admit(self, caller: Caller) -> None:
        slots, places = self.options["max_concurrency"], self.options["max_queue"]
        if len(self._inside) < slots:
            self._enter(caller)
        elif places is not None and len(self._queue) >= places:
            caller.expect("rejected", f"{slots} slots and {places} places are taken")
        else:
            wait = self.options["max_wait"]
            self._queue[caller] = float("inf") if wait is None else self.now + wait
            caller.expect("waiting", f"{slots} slots are taken")

    def _enter(self, caller: Caller) -> None:
        self._inside.add(caller)
        slots = self.options["max_concurrency"]
        caller.expect("inside", f"it has one of {slots} slots")

    def _ended(self, load: Load, result: object, *, is_ok: bool) -> None:
        load.caller.expect(
            "returned" if is_ok else "failed", "the step has answered", result
        )
        self._leave(load.caller)

    def _gone(self, caller: Caller) -> None:
        if self._queue.pop(caller, None) is None:
            self._leave(caller)

    def _leave(self, caller: Caller) -> None:
        self._inside.discard(caller)
        if self._queue:
            first = next(iter(self._queue))
            del self._queue[first]
            self._enter(first)

    def _passed(self) -> None:
        for caller, until in list(self._queue.items()):
            if until <= self.now + _SLACK:
                del self._queue[caller]
                wait = self.options["max_wait"]
                caller.expect("rejected", f"it has waited for max_wait={wait:g} s")
