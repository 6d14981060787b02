"""Threads belong to the test that started them, and work in them holds time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import hashlib
import queue
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_tta.clock import driver, waits
from pytest_tta.clock import threads as threads_module
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.functions import REAL
from pytest_tta.clock.threads import BusyThread, OwnedThreads
from pytest_tta.clock.timeline import Sleeper, Timeline
from tests.processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOWHERE = "/there/is/no/such/directory"
TASKS = [
    pytest.param(threads_module._TASKS, id="cpu-time"),
    pytest.param(NOWHERE, id="second-look"),
]


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """Enter a clock."""
    with VirtualClock() as entered:
        yield entered


@pytest.fixture(params=TASKS)
def owned(request: pytest.FixtureRequest) -> Iterator[OwnedThreads]:
    """Own threads, on Linux and on a system that tells no CPU time."""
    threads = OwnedThreads(threading.current_thread(), tasks=request.param)
    yield threads
    threads.close()


def work(seconds: float) -> None:
    """Work in real time, with and without the interpreter's lock."""
    end = REAL["monotonic"]() + seconds
    while REAL["monotonic"]() < end:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2000)


def verdicts(threads: OwnedThreads, seconds: float = 0.3) -> Iterator[BusyThread]:
    """Ask again and again, as the loop does, until the threads are blocked."""
    end = REAL["monotonic"]() + seconds
    while (found := threads.busy()) is not None:
        yield found
        if REAL["monotonic"]() > end:
            pytest.fail(f"still busy: {found}")
        REAL["sleep"](0.0005)


def start(threads: OwnedThreads, target: Callable[[], object]) -> threading.Thread:
    """Start a thread that `threads` owns."""
    thread = threading.Thread(target=target, name="worker", daemon=True)
    threads.adopt(thread)
    thread.start()
    return thread


# --- durably blocked ---------------------------------------------------------


class Waits(NamedTuple):
    """Pair a wait with what ends it."""

    wait: Callable[[], object]
    wake: Callable[[], object]


def waits_for_event() -> Waits:
    """Wait for an event."""
    event = threading.Event()
    return Waits(event.wait, event.set)


def waits_for_queue() -> Waits:
    """Wait for an item of a queue."""
    items: queue.Queue[int] = queue.Queue()
    return Waits(items.get, lambda: items.put(1))


def waits_for_simple_queue() -> Waits:
    """Wait for an item of a queue that is written in C."""
    items: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait() -> None:
        items.get()

    return Waits(wait, lambda: items.put(1))


def waits_for_lock() -> Waits:
    """Wait for a lock by calling it."""
    lock = threading.Lock()
    lock.acquire()

    def wait() -> None:
        lock.acquire()

    return Waits(wait, lock.release)


def waits_in_with() -> Waits:
    """Wait for a lock that is an attribute, in a `with` statement."""
    holder = types.SimpleNamespace(lock=threading.Lock())
    holder.lock.acquire()

    def wait() -> None:
        with holder.lock:
            pass

    return Waits(wait, holder.lock.release)


class Slotted:
    """Keep a lock in a slot."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        """Make the lock."""
        self.lock = threading.Lock()


def waits_for_slot() -> Waits:
    """Wait for a lock that is kept in a slot."""
    holder = Slotted()
    holder.lock.acquire()

    def wait() -> None:
        holder.lock.acquire(blocking=True)

    return Waits(wait, holder.lock.release)


def waits_for_rlock() -> Waits:
    """Wait for a lock that its owner may take twice."""
    lock = threading.RLock()
    lock.acquire()

    def wait() -> None:
        with lock:
            pass

    return Waits(wait, lock.release)


def waits_for_thread() -> Waits:
    """Wait for the end of another thread."""
    event = threading.Event()
    other = threading.Thread(target=event.wait, daemon=True)
    other.start()

    def wake() -> None:
        event.set()
        other.join()

    return Waits(other.join, wake)


def waits_for_future() -> Waits:
    """Wait for the result of a future."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    return Waits(future.result, lambda: future.set_result(1))


WAITS = [
    waits_for_event,
    waits_for_queue,
    waits_for_simple_queue,
    waits_for_lock,
    waits_in_with,
    waits_for_slot,
    waits_for_rlock,
    waits_for_thread,
    waits_for_future,
]


@pytest.mark.parametrize("make", WAITS)
def test_a_wait_that_another_thread_must_end_is_durable(
    owned: OwnedThreads, make: Callable[[], Waits]
) -> None:
    """It is seen as such, not merely for want of CPU, and seen when it ends."""
    wait, wake = make()
    goes_on = threading.Event()

    def run() -> None:
        wait()
        while not goes_on.is_set():
            work(0.001)

    thread = start(owned, run)
    for _ in verdicts(owned):
        pass
    notes = list(owned.notes)
    wake()
    woken = owned.busy()
    goes_on.set()
    thread.join()

    assert notes == []
    assert woken is not None
    assert owned.busy() is None
    assert not owned.alive()


@pytest.mark.parametrize("make", WAITS)
def test_the_question_is_asked_of_the_object_waited_for(
    make: Callable[[], Waits],
) -> None:
    """The answer changes with the object, before the thread has had a chance."""
    wait, wake = make()
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    found = None
    while found is None or not found():
        REAL["sleep"](0.0005)
        frame = sys._current_frames()[thread.ident or 0]
        found = waits.still_waiting(frame)
        del frame

    wake()
    lasts = found()
    thread.join()

    assert lasts is (found.evidence is waits.Evidence.LATE)


def test_an_idle_pool_is_blocked(owned: OwnedThreads) -> None:
    """Workers that wait for jobs do not hold time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: None, range(4)))
        for worker in pool._threads:
            owned.adopt(worker)

        for _ in verdicts(owned):
            pass

        assert owned.notes == []
        assert owned.alive()


@pytest.mark.parametrize(
    "wait",
    [
        lambda: threading.Event().wait(0.3),
        lambda: queue.Queue[int]().get(timeout=0.3),
        lambda: REAL["sleep"](0.3),
    ],
    ids=["event", "queue", "sleep"],
)
def test_a_wait_with_a_limit_counts_after_some_patience_and_is_noted(
    owned: OwnedThreads, wait: Callable[[], object]
) -> None:
    """What may end by itself gets 2 ms of real time, and a note if that passes."""

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            wait()

    thread = start(owned, run)
    began = REAL["monotonic_ns"]()
    seen = list(verdicts(owned))

    assert REAL["monotonic_ns"]() - began >= threads_module.PATIENCE_NS
    assert seen[0].name == "worker"
    assert len(owned.notes) == 1
    assert owned.notes[0].startswith(
        "time moved while thread 'worker' waited for something unknown at "
    )
    owned.disown(thread)


def test_work_is_certain(owned: OwnedThreads) -> None:
    """A thread that has had CPU since it was last looked at is at work."""
    ends: list[int] = []

    def run() -> None:
        while not ends:
            pass

    thread = start(owned, run)
    certain = []
    for _ in range(30):
        REAL["sleep"](0.001)
        certain.append(owned.busy())
    ends.append(1)
    thread.join()

    assert None not in certain
    assert sum(found.certain for found in certain if found) >= 10
    assert owned.notes == []


def test_work_in_c_is_certain_where_cpu_time_can_be_read() -> None:
    """A thread may compute for long inside one call, and nobody takes that for rest."""
    owned = OwnedThreads(threading.current_thread())
    thread = start(owned, lambda: work(0.1))
    seen = []
    while thread.is_alive():
        seen.append(owned.busy())
        REAL["sleep"](0.001)
    owned.close()

    assert None not in seen[:20]


def test_a_busy_thread_is_named_with_the_users_line(owned: OwnedThreads) -> None:
    """The place is the innermost line of the user's, not of the library's."""
    items: queue.Queue[int] = queue.Queue()

    def my_worker() -> None:
        items.get()

    start(owned, my_worker)
    seen = list(verdicts(owned))
    items.put(1)

    assert {found.name for found in seen} == {"worker"}
    line = my_worker.__code__.co_firstlineno + 1
    assert seen[-1].where == (
        f"tests/clock/test_threads.py:{line} in "
        "test_a_busy_thread_is_named_with_the_users_line.<locals>.my_worker"
    )


def test_a_thread_about_to_start_is_busy(owned: OwnedThreads) -> None:
    """Between the call of start and its first line a thread is not idle."""
    thread = threading.Thread(target=int, name="young")
    owned.adopt(thread)

    assert owned.busy() == BusyThread("young", "about to start", certain=True)


def test_a_thread_that_ended_is_not_taken_for_the_next_of_its_number(
    owned: OwnedThreads,
) -> None:
    """The system gives the number of an ended thread to the one that starts next."""
    over = start(owned, lambda: None)
    over.join()
    event = threading.Event()
    later = start(owned, event.wait)
    over._ident = later.ident  # type: ignore[attr-defined]
    assert {found.name for found in verdicts(owned)} <= {"worker"}
    assert over not in owned._workers
    assert later in owned._workers
    event.set()
    later.join()


def test_without_columns_an_idle_pool_is_recognised_still() -> None:
    """`python -X no_debug_ranges` hides call sites, not what a pool waits for."""
    script = """
        import concurrent.futures, threading, time
        from pytest_tta.clock.threads import OwnedThreads
        owned = OwnedThreads(threading.current_thread())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
            owned.adopt(*pool._threads)
            lock = threading.Lock()
            lock.acquire()
            def by_lock():
                lock.acquire()
            thread = threading.Thread(target=by_lock)
            owned.adopt(thread)
            thread.start()
            while owned.busy():
                time.sleep(0.0005)
            print(owned.notes == [], len(owned.notes))
            lock.release()
    """

    done = subprocess.run(
        [sys.executable, "-X", "no_debug_ranges", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )

    # The bare lock is not recognised there, so it counts as unknown.
    assert done.stdout == "False 1\n"


# --- whose thread ------------------------------------------------------------


def test_threads_are_adopted_with_those_that_they_start(clock: VirtualClock) -> None:
    """A thread of a thread of the test belongs to the test."""
    owns: list[bool] = []

    def inner() -> None:
        owns.append(clock.threads.owns_current())

    def outer() -> None:
        owns.append(clock.threads.owns_current())
        thread = threading.Thread(target=inner)
        thread.start()
        thread.join()

    thread = threading.Thread(target=outer)
    thread.start()
    thread.join()

    assert owns == [True, True]
    assert clock.threads.owns_current()
    assert clock.threads.is_owner()


def test_a_thread_is_known_by_its_object_not_by_its_number(clock: VirtualClock) -> None:
    """A strange thread that got a dead worker's number is strange all the same."""
    worker = threading.Thread(target=int)
    worker.start()
    worker.join()
    owns: list[bool] = []
    real_start: Any = threading.Thread.start
    for _ in range(20):
        stranger = threading.Thread(
            target=lambda: owns.append(clock.threads.owns_current())
        )
        real_start.__tta_wrapped__(stranger)
        stranger.join()

    assert owns == [False] * 20


def test_threads_from_before_and_after_are_not_adopted() -> None:
    """Only what is started while the clock is active belongs to it."""
    ends = threading.Event()
    before = threading.Thread(target=ends.wait)
    before.start()
    with VirtualClock() as clock:
        alive = clock.threads.alive()
    after = threading.Thread(target=ends.wait)
    after.start()
    ends.set()
    before.join()
    after.join()

    assert not alive
    assert not clock.threads.alive()


def test_threads_of_tools_are_not_adopted(clock: VirtualClock) -> None:
    """A watchdog that is started in the test's thread is not the test's."""
    tool = types.ModuleType("pytest_timeout")
    exec("def start(thread): thread.start()", vars(tool))
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)

    tool.start(thread)

    assert not clock.threads.alive()
    ends.set()
    thread.join()


def test_a_thread_that_cannot_start_is_forgotten(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails leaves no thread behind that would hold time."""

    def fail(*args: object, **kwargs: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    for name in ("_start_new_thread", "_start_joinable_thread"):
        monkeypatch.setattr(threading, name, fail, raising=False)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        threading.Thread(target=int).start()

    assert clock.threads.busy() is None


def test_a_job_lends_its_thread_to_the_clock(owned: OwnedThreads) -> None:
    """A pool older than the clock is the clock's while it runs the clock's job."""
    seen: list[bool] = []

    def outer() -> None:
        seen.append(owned.owns_current())
        owned.call(lambda: seen.append(owned.owns_current()))
        seen.append(owned.owns_current())

    def job() -> None:
        owned.call(outer)
        seen.append(owned.owns_current())

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()

    assert seen == [True, True, True, False]


def test_nothing_is_kept_after_closing(owned: OwnedThreads) -> None:
    """Threads, and what they waited for, are let go, and none is adopted any more."""
    event = threading.Event()
    reference = weakref.ref(event._cond._waiters)  # type: ignore[attr-defined]
    thread = start(owned, event.wait)
    for _ in verdicts(owned):
        pass
    event.set()
    thread.join()

    owned.close()
    owned.adopt(thread)
    del event, thread
    gc.collect()

    assert reference() is None
    assert not owned.alive()
    assert owned.call(int) == 0


# --- H5, H16 -----------------------------------------------------------------


def test_h05_a_thread_at_work_holds_the_clock(clock: VirtualClock) -> None:
    """A plain thread that works for 0.15 s costs no virtual time, and no timeout."""

    async def main() -> tuple[str, int]:
        loop, done, ticks = asyncio.get_running_loop(), asyncio.Event(), list[int]()

        def run() -> None:
            work(0.15)
            loop.call_soon_threadsafe(done.set)

        async def tick() -> None:
            while True:
                await asyncio.sleep(1)
                ticks.append(1)

        ticker = asyncio.create_task(tick())
        threading.Thread(target=run).start()
        async with asyncio.timeout(30):
            await done.wait()
        ticker.cancel()
        return "in time", len(ticks)

    assert clock.run(main()) == ("in time", 0)
    assert clock.elapsed == 0


@pytest.mark.parametrize("where", ["pool", "thread"])
def test_h16_sleep_in_a_worker_thread_is_virtual(
    clock: VirtualClock, where: str
) -> None:
    """Backoff made with `time.sleep` passes at once, in step with the loop."""
    began = REAL["monotonic"]()
    seen: list[float] = []

    def backoff() -> None:
        for delay in (1, 2, 4, 8):
            time.sleep(delay)
            seen.append(time.monotonic())

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def run() -> None:
            backoff()
            loop.call_soon_threadsafe(done.set)

        if where == "pool":
            await asyncio.to_thread(backoff)
        else:
            threading.Thread(target=run).start()
            await done.wait()

    clock.run(main())

    assert seen == [1.0, 3.0, 7.0, 15.0]
    assert clock.sleeps.by(kind="thread").delays == [1, 2, 4, 8]
    assert REAL["monotonic"]() - began < 2


def test_h16_a_pool_older_than_the_clock_sleeps_in_its_time() -> None:
    """The loop's job makes the pool's thread the test's for as long as it runs."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        clock = VirtualClock()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, time.sleep, 3600)

        clock.run(main())

    assert clock.elapsed == 3600


def test_h16_sleep_in_the_loops_thread_makes_timers_late(clock: VirtualClock) -> None:
    """Time moves by the whole sleep; what was due fires afterwards, in order."""
    fired: list[tuple[str, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for delay in (2, 1, 7):
            loop.call_later(delay, lambda d=delay: fired.append((f"{d}", loop.time())))
        time.sleep(5)
        assert loop.time() == 5.0
        await asyncio.sleep(3)

    clock.run(main())

    assert fired == [("1", 5.0), ("2", 5.0), ("7", 7.0)]
    assert clock.sleeps.by(kind="blocking").delays == [5]


def test_h26_threads_of_a_plain_test_sleep_in_virtual_time(clock: VirtualClock) -> None:
    """A test without a loop may join threads that sleep for an hour."""
    woke: list[tuple[str, float]] = []

    def nap(name: str, seconds: float) -> None:
        time.sleep(seconds)
        woke.append((name, time.monotonic()))

    naps = [("long", 3600.0), ("short", 60.0)]
    threads = [threading.Thread(target=nap, args=each) for each in naps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert woke == [("short", 60.0), ("long", 3600.0)]


def by_join(nap: Callable[[], None]) -> None:
    """Wait for the end of a thread."""
    thread = threading.Thread(target=nap)
    thread.start()
    thread.join()


def by_leaving_a_pool(nap: Callable[[], None]) -> None:
    """Leave a pool, which waits for its jobs."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(nap)


def by_result(nap: Callable[[], None]) -> None:
    """Wait for the result of a job."""
    pool = concurrent.futures.ThreadPoolExecutor()
    pool.submit(nap).result()
    pool.shutdown(wait=False)


def by_queue(nap: Callable[[], None]) -> None:
    """Wait for an item of a queue."""
    items: queue.Queue[None] = queue.Queue()
    threading.Thread(target=lambda: items.put(nap())).start()  # type: ignore[func-returns-value]
    items.get()


@pytest.mark.parametrize("wait", [by_join, by_leaving_a_pool, by_result, by_queue])
def test_threads_sleep_as_long_as_they_want_while_a_loop_waits_for_them(
    wait: Callable[[Callable[[], None]], None],
) -> None:
    """The loop cannot move time then; its timers fire late, as outside of a test."""
    clock = VirtualClock()
    fired: list[float] = []

    def nap() -> None:
        time.sleep(10)
        time.sleep(5)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(3, lambda: fired.append(clock.elapsed))
        wait(nap)
        await asyncio.sleep(1)

    # A clock that does not move would hold this thread for ever.
    test = threading.Thread(target=lambda: clock.run(main()), daemon=True)
    test.start()
    test.join(PATIENCE)

    assert not test.is_alive()
    assert fired == [15.0]
    assert [(each.delay, each.woke_at) for each in clock.sleeps] == [
        (3, 15.0),
        (10, 10.0),
        (5, 15.0),
        (1, 16.0),
    ]


def test_a_loop_that_is_at_work_keeps_time_from_moving() -> None:
    """A thread sleeps on, however long a callback of the loop takes."""
    clock = VirtualClock()

    async def main() -> float:
        napping = asyncio.ensure_future(asyncio.to_thread(time.sleep, 10))
        await asyncio.sleep(0)
        work(0.1)
        elapsed = clock.elapsed
        await napping
        return elapsed

    assert clock.run(main()) == 0.0
    assert clock.elapsed == 10.0


def test_no_thread_of_a_clock_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the moment until it would look around again."""
    monkeypatch.setattr(driver, "_GLANCE_SECONDS", PATIENCE)
    before = {*threading.enumerate()}
    with VirtualClock() as clock:
        clock.run(asyncio.to_thread(time.sleep, 10))
        (left,) = {*threading.enumerate()} - before
    assert left.name == "pytest_tta clock"
    assert not left.is_alive()


def test_nobody_has_to_look_at_a_thread_that_sleeps(clock: VirtualClock) -> None:
    """It is known to wait from its first moment on, not only after a second look."""
    asked: list[object] = []
    add = clock.timeline.add_sleeper

    def ask(seconds: float, number: int) -> Sleeper:
        sleeper = add(seconds, number)
        asked.append(clock.holder())
        return sleeper

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Timeline, "add_sleeper", lambda _, *args: ask(*args))
        by_join(lambda: time.sleep(10))

    assert asked == [None]


def test_the_owner_drives_time_only_as_long_as_it_sleeps(clock: VirtualClock) -> None:
    """Afterwards a thread that sleeps moves time for itself."""
    driven: list[bool] = []

    def nap() -> None:
        time.sleep(60)
        driven.append(clock.is_driven)

    thread = threading.Thread(target=nap)
    thread.start()
    time.sleep(3600)
    driven.append(clock.is_driven)
    thread.join()

    assert driven == [True, False]


def test_a_sleeping_thread_is_released_when_the_clock_is_left() -> None:
    """A thread that sleeps for a year does not outlive its test for as long."""
    slept = threading.Event()

    def nap() -> None:
        time.sleep(3e7)
        slept.set()

    with VirtualClock() as clock:
        thread = threading.Thread(target=nap, daemon=True)
        thread.start()

        async def main() -> None:
            await asyncio.sleep(1)

        clock.run(main())
        before = slept.is_set()
    thread.join(1)

    assert not before
    assert slept.is_set()
