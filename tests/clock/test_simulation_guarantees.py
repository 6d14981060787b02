"""What holds in every schedule; and that each check notices when it does not.

Each guarantee is a function that asks a loop. It is asked of the simulated loop, and of
one that breaks this very guarantee on purpose.
"""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.clock import VirtualClock
from pytest_tta.clock.fences import SimulationFence
from pytest_tta.clock.simulation import SimulationLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_tta.clock.choices import Unit

SEEDS = range(30)


def schedules(loop: SimulationLoop) -> Iterator[SimulationLoop]:
    """Begin one execution after the other, in both modes that asyncio knows."""
    for seed in SEEDS:
        chance = random.Random(seed)
        loop.begin(
            lambda units, chance=chance: chance.randrange(len(units)),  # type: ignore[misc]
            mode="burst" if seed % 2 else "op",
            early=seed % 3,
        )
        yield loop


# --- the guarantees -------------------------------------------------------------------


def check_order_of_callbacks(loop: SimulationLoop) -> None:
    """Callbacks are called in the order in which they were registered."""

    async def body() -> list[int]:
        """Register callbacks while operations come in between."""
        called: list[int] = []

        async def noise() -> None:
            for _ in range(3):
                await loop.operation("noise")

        noises = [asyncio.create_task(noise()) for _ in range(2)]
        await asyncio.sleep(0)
        for number in range(10):
            loop.call_soon(called.append, number)
            if number % 3 == 0:
                await asyncio.sleep(0)
        await asyncio.wait(noises)
        return called

    for begun in schedules(loop):
        assert begun.run(body()) == list(range(10))


def check_one_step_of_a_task(loop: SimulationLoop) -> None:
    """A task is in the queue once at most."""
    doubles = []

    def look(units: Sequence[Unit]) -> int:
        owners = [getattr(h._callback, "__self__", None) for h in loop._ready]
        tasks = [owner for owner in owners if isinstance(owner, asyncio.Task)]
        doubles.extend(task for task in tasks if tasks.count(task) > 1)
        return len(units) - 1

    async def call(label: str) -> None:
        for _ in range(3):
            await loop.operation(label)

    async def body() -> None:
        """Let several tasks wait, for operations and each other."""
        await asyncio.gather(*(call(label) for label in "abc"))

    loop.begin(look, mode="burst")
    loop.run(body())
    assert doubles == []


def check_no_timer_before_its_time(loop: SimulationLoop) -> None:
    """A timer fires at its instant, and those of one instant in any order."""

    async def body() -> set[tuple[float, float]]:
        """Sleep for different times, beside operations."""
        ended = set()

        async def sleep(seconds: float) -> None:
            await loop.operation("before")
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            ended.add((due, loop.time()))

        await asyncio.gather(*(sleep(seconds) for seconds in (3, 1, 2, 1, 0.5)))
        return ended

    for begun in schedules(loop):
        assert [pair for pair in begun.run(body()) if pair[0] != pair[1]] == []


def check_time_at_rest_alone(loop: SimulationLoop) -> None:
    """Time moves when nothing is ready, and never backwards."""

    async def body() -> list[float]:
        """Note the time in each of several rounds without a wait."""
        seen: list[float] = []

        async def work() -> None:
            for _ in range(3):
                start = loop.time()
                for _ in range(5):
                    await asyncio.sleep(0)
                seen.extend((start, loop.time()))
                await asyncio.sleep(1)

        async def other() -> None:
            await asyncio.sleep(0.3)
            await loop.operation("other")

        await asyncio.gather(work(), other(), other())
        return seen

    for begun in schedules(loop):
        seen = begun.run(body())
        assert seen == sorted(seen)
        assert seen[::2] == seen[1::2]


def check_one_thread(loop: SimulationLoop) -> None:
    """Nobody calls into the loop from another thread."""
    raised = []

    def call() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except SimulationFence as error:
            raised.append(str(error))

    async def body() -> None:
        thread = threading.Thread(target=call, name="a thread")
        thread.start()
        thread.join()

    loop.begin()
    loop.run(body())
    assert len(raised) == 1
    assert "a thread" in raised[0]


def check_threads_are_inline(loop: SimulationLoop) -> None:
    """What asks for a thread runs in this one, when its operation is chosen."""

    async def body() -> list[int]:
        return list(
            await asyncio.gather(
                *(asyncio.to_thread(threading.get_ident) for _ in "ab")
            )
        )

    for begun in schedules(loop):
        assert begun.run(body()) == [threading.get_ident()] * 2


def check_errors_of_tasks_are_found(loop: SimulationLoop) -> None:
    """A task that failed unseen is there after the run, without collecting garbage."""

    async def fail() -> None:
        raise LookupError

    async def body() -> None:
        """Let a task fail that nobody waits for."""
        asyncio.create_task(fail())  # noqa: RUF006 - the loop keeps it
        await loop.operation("other")

    for begun in schedules(loop):
        begun.run(body())
        failed = [task for task in begun.tasks if task.exception() is not None]
        assert [type(task.exception()) for task in failed] == [LookupError]


# --- loops that break them ------------------------------------------------------------


class LastInFirstOut(SimulationLoop):
    """Call what was registered last."""

    def _run_once(self) -> None:
        self._ready.reverse()
        super()._run_once()


class Twice(SimulationLoop):
    """Let a task go on twice for one answer."""

    def operation(self, label: str) -> asyncio.Future[None]:
        """Register the task's step a second time."""
        future = super().operation(label)
        task: Any = asyncio.current_task(self)
        future.add_done_callback(
            lambda _: self._ready.extend(
                [h for h in self._ready if getattr(h._callback, "__self__", 0) is task]
            )
        )
        return future


class Early(SimulationLoop):
    """Let timers fire before their instant."""

    def _jump(self, ns: int) -> None:
        super()._jump(min(ns, self._timeline.now_ns + 100_000_000))


class Running(SimulationLoop):
    """Let time pass while something runs."""

    def _run_once(self) -> None:
        super()._run_once()
        self._timeline.creep(self._timeline.now_ns + 1)


class Open(SimulationLoop):
    """Take calls from any thread."""

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        """Believe everybody."""
        return self.call_soon(*args, **options)


class Threaded(SimulationLoop):
    """Start a thread for each call."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Wait for it at once."""
        future = self.create_future()
        thread = threading.Thread(target=lambda: future.set_result(func(*args)))
        thread.start()
        thread.join()
        return future


class Forgetful(SimulationLoop):
    """Keep no task."""

    def create_task(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        """Keep the first alone."""
        made = super().create_task(*args, **options)
        del self.tasks[1:]
        return made


GUARANTEES = [
    (check_order_of_callbacks, LastInFirstOut),
    (check_one_step_of_a_task, Twice),
    (check_no_timer_before_its_time, Early),
    (check_time_at_rest_alone, Running),
    (check_one_thread, Open),
    (check_threads_are_inline, Threaded),
    (check_errors_of_tasks_are_found, Forgetful),
]


@pytest.mark.parametrize("check", [each for each, _ in GUARANTEES])
def test_it_holds(check: Callable[[SimulationLoop], None]) -> None:
    """The simulated loop keeps what asyncio promises."""
    loop = SimulationLoop(VirtualClock())
    check(loop)
    loop.close()


@pytest.mark.parametrize(("check", "broken"), GUARANTEES)
def test_it_is_noticed_when_it_is_broken(
    check: Callable[[SimulationLoop], None], broken: type[SimulationLoop]
) -> None:
    """Each check fails for the loop that breaks its guarantee."""
    loop = broken(VirtualClock())
    with pytest.raises(AssertionError, match="assert"):
        check(loop)
    loop.close()


def test_harsh_mode_breaks_the_order_of_callbacks() -> None:
    """That is what it is for, and why nothing else uses it."""
    loop = SimulationLoop(VirtualClock())
    begin = loop.begin
    loop.begin = lambda choose, **_: begin(choose, mode="harsh")  # type: ignore[assignment, method-assign, misc]
    with pytest.raises(AssertionError, match="assert"):
        check_order_of_callbacks(loop)
    loop.close()
