"""One event loop in a thread of its own, for code that is not async."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import signal
import sys
import threading
import traceback
import weakref
from contextvars import ContextVar

import pytest

from tests.garbage import only_new_garbage
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.runtime import LoopThread, loop_thread

PATIENCE = 30.0
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


@pytest.fixture
def thread():
    """A loop thread of the test's own, closed at its end."""
    own = LoopThread(name="own-loop")
    yield own
    own.close(0)


async def seen_id():
    await asyncio.sleep(0)
    return request_id.get()


async def fail(error):
    await asyncio.sleep(0)
    raise error


def place_of(ident):
    """Return the file and the instruction at which a thread stands."""
    frame = sys._current_frames()[ident]
    return frame.f_code.co_filename, frame.f_lasti


class Patient:
    """Work that waits until it is cancelled, and notes that it cleaned up."""

    def __init__(self):
        self.began = threading.Event()
        self.cleaned = threading.Event()

    async def work(self):
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.cleaned.set()


def test_nothing_starts_before_the_first_call():
    """A loop thread made at import costs no thread in a process that forks."""
    before = threading.active_count()
    thread = LoopThread()
    assert (threading.active_count(), thread.is_running) == (before, False)


def test_every_call_runs_on_the_same_loop_in_the_named_thread(thread):
    """Clients that are bound to a loop live from one call to the next."""

    async def where():
        return asyncio.get_running_loop(), threading.current_thread().name

    assert thread.run(where()) == thread.run(where()) == (thread.loop, "own-loop")


def test_each_call_has_the_contextvars_of_its_caller(thread):
    """They are those of the call, not of the first one that was ever made."""
    seen = []
    for value in ("A", "B", None):
        token = request_id.set(value)
        seen.append(thread.run(seen_id()))
        request_id.reset(token)
    assert seen == ["A", "B", None]


def test_what_a_call_sets_stays_inside(thread):
    """Contextvars are copied: the caller's and the next call's are untouched."""

    async def set_it():
        request_id.set("inside")

    thread.run(set_it())
    assert (request_id.get(), thread.run(seen_id())) == (None, None)


def test_an_error_is_the_original_object(thread):
    """`except` and `is` work as if the call had been awaited."""
    error = ValueError("as it was")
    with pytest.raises(ValueError, match="as it was") as caught:
        thread.run(fail(error))
    assert caught.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


def test_an_error_leaves_no_circle(thread):
    """What the error's frames hold is let go with the error, without a collection."""

    class Big:
        pass

    async def fall():
        raise ValueError("gone")

    def once():
        big = Big()
        try:
            thread.run(fall())
        except ValueError:
            return weakref.ref(big)

    with only_new_garbage():
        left = once()
        # What the loop's thread still does with the last call is over with the next.
        thread.run(seen_id())
        assert left() is None
        assert gc.collect() == 0


def test_a_cancelled_call_is_an_ordinary_exception(thread):
    """A host that catches `Exception` answers 500 and goes on."""

    async def give_up():
        raise asyncio.CancelledError

    with pytest.raises(concurrent.futures.CancelledError, match=r"^$"):
        thread.run(give_up())


def test_sys_exit_in_one_call_does_not_end_the_others(thread):
    """The caller gets SystemExit, and the loop goes on."""
    patient = Patient()
    other = thread.submit(patient.work())
    with pytest.raises(SystemExit, match="3"):
        thread.run(fail(SystemExit(3)))
    assert (thread.run(seen_id()), other.done()) == (None, False)
    other.cancel()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_whatever_ends_the_wait_cancels_the_work(thread, kind):
    """The handler of a signal raises; the coroutine has cleaned up before it is out."""
    patient = Patient()

    def interrupt(number, frame):
        raise kind("from a signal")

    def raise_signal():
        patient.began.wait(PATIENCE)
        main = threading.main_thread().ident
        # Not before it waits: asyncio takes an OSError of its own for no trouble, and
        # Python looks for signals only between instructions.
        before = None
        while before != (place := place_of(main)):
            before = place if place[0] == threading.__file__ else None
            patient.cleaned.wait(0.02)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=raise_signal)
    sender.start()
    try:
        with pytest.raises(kind, match="from a signal"):
            thread.run(patient.work(), timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
        sender.join()
    assert patient.cleaned.is_set()


def test_the_limit_is_our_error_and_a_builtin_one(tta, thread):
    """The coroutine is cancelled at its limit, and cleans up first."""
    patient = Patient()
    with pytest.raises(TimeoutExceededError, match=r"work took longer than 5 s") as hit:
        thread.run(patient.work(), timeout=5)
    assert isinstance(hit.value, TimeoutError)
    assert hit.value.timeout_seconds == 5.0
    assert (tta.elapsed, patient.cleaned.is_set()) == (5.0, True)


def test_errors_call_the_work_by_its_name(tta, thread):
    """Inside a workflow the function's own name would say nothing."""
    with pytest.raises(TimeoutExceededError, match=r"^invoice took longer than 1 s$"):
        thread.run(asyncio.sleep(9), timeout=1, name="invoice")


def test_an_error_of_the_cleanup_is_the_cause_of_the_timeout(tta, thread):
    """Nothing that was raised is lost."""

    async def clean_up_badly():
        try:
            await asyncio.sleep(10)
        finally:
            raise ValueError("no cleaner")

    with pytest.raises(TimeoutExceededError, match="took longer") as hit:
        thread.run(clean_up_badly(), timeout=1)
    assert repr(hit.value.__cause__) == "ValueError('no cleaner')"


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_no_time_at_all_begins_nothing(thread, timeout):
    """The coroutine is closed, without a warning that nobody awaited it."""
    with pytest.raises(TimeoutExceededError, match="no time left to start"):
        thread.run(seen_id(), timeout=timeout)
    assert not thread.is_running


def test_a_wrong_limit_is_an_error_that_shows_it(thread):
    """So it is with every duration."""
    with pytest.raises(ValueError, match="timeout=-1"):
        thread.run(seen_id(), timeout=-1)


def test_a_function_instead_of_a_coroutine_is_told(thread):
    """The sentence says what to write."""
    with pytest.raises(TypeError, match=r"not the function 'seen_id': .* run\(seen_id"):
        thread.run(seen_id)
    with pytest.raises(TypeError, match=r"needs a coroutine for submit\(\), not 3"):
        thread.submit(3)


def test_running_in_its_own_thread_is_an_error_and_no_deadlock(thread):
    """Inside async code one awaits."""

    async def inside():
        return thread.run(seen_id())

    with pytest.raises(RuntimeError, match=r"cannot run seen_id in its own thread"):
        thread.run(inside())


def test_submitting_in_its_own_thread_is_fine(thread):
    """A workflow may begin background work."""

    async def inside():
        return thread.submit(seen_id())

    assert thread.run(inside()).result(PATIENCE) is None


def test_it_works_inside_another_running_loop(thread):
    """A sync function that an async test calls may use it; it blocks that loop."""

    async def eager():
        return thread.run(seen_id())

    assert asyncio.run(eager()) is None


def test_cancelling_the_future_cancels_the_coroutine(thread):
    """The cleanup runs."""
    patient = Patient()
    future = thread.submit(patient.work())
    assert patient.began.wait(PATIENCE)
    assert future.cancel()
    assert patient.cleaned.wait(PATIENCE)


def test_an_error_that_nobody_asks_for_is_logged(thread, caplog):
    """Work that was submitted and forgotten does not fail in silence."""
    future = thread.submit(fail(ValueError("unheard")))
    concurrent.futures.wait([future], PATIENCE)
    del future
    thread.run(asyncio.sleep(0))
    gc.collect()
    assert "fail failed, and nobody asked for its result" in caplog.text


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_an_error_that_somebody_has_seen_is_not_logged(thread, caplog, ask):
    """Whoever asked may deal with it."""
    future = thread.submit(fail(ValueError("heard")))
    concurrent.futures.wait([future], PATIENCE)
    with contextlib.suppress(ValueError):
        getattr(future, ask)()
    del future
    thread.run(asyncio.sleep(0))
    gc.collect()
    assert "fail failed" not in caplog.text


def test_closing_waits_for_what_was_submitted(tta, thread):
    """It is done before `close` returns."""
    done = []

    async def work():
        await asyncio.sleep(3)
        done.append(asyncio.get_running_loop().time())

    thread.submit(work())
    thread.close(timeout=5)
    assert (done, tta.elapsed) == ([3.0], 3.0)


def test_closing_cancels_what_takes_longer(tta, thread):
    """The future says why, and the cleanup runs."""
    patient = Patient()
    future = thread.submit(patient.work())
    thread.close(timeout=5)
    assert (tta.elapsed, patient.cleaned.is_set()) == (5.0, True)
    with pytest.raises(RuntimeError, match=r"was cancelled: .*own-loop' was closed"):
        future.result()


def test_closing_cancels_tasks_that_work_has_left_behind(thread):
    """No task and no thread is left over."""
    patient = Patient()

    async def leave_one():
        leave_one.task = asyncio.create_task(patient.work())

    thread.run(leave_one())
    assert patient.began.wait(PATIENCE)
    thread.close()
    assert patient.cleaned.is_set()
    assert "own-loop" not in {one.name for one in threading.enumerate()}


def test_what_ignores_its_cancellation_is_named(tta, thread, caplog):
    """Closing goes on after five seconds."""
    release = threading.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    thread.submit(stubborn())
    thread.close(timeout=0)
    release.set()
    assert tta.elapsed == 5.0
    assert "stubborn" in caplog.text
    assert "ignores that it was cancelled" in caplog.text
    caplog.clear()


def test_what_was_opened_on_the_loop_is_closed_on_it(thread):
    """The last first, each with the seconds that are left; one may fail."""
    closed = []

    async def first(seconds):
        closed.append(("first", asyncio.get_running_loop() is loop, seconds > 0))

    async def second(seconds):
        closed.append("second")
        raise ValueError("not closed")

    loop = thread.loop
    thread.at_close(first)
    thread.at_close(second)
    thread.close()
    assert closed == ["second", ("first", True, True)]


def test_after_closing_there_is_a_clear_error(thread):
    """Work is refused rather than lost, and no coroutine is left unawaited."""
    thread.run(seen_id())
    thread.close()
    for give in (thread.run, thread.submit):
        with pytest.raises(RuntimeError, match=r"takes no more work: close\(\) was"):
            give(seen_id())
    assert repr(thread) == "<LoopThread 'own-loop' closed>"


def test_a_call_that_comes_while_it_closes_is_refused_at_once(thread, monkeypatch):
    """Between the look for the loop and the call somebody else may have closed it."""
    thread.run(seen_id())
    host = thread._host()
    thread.close()
    monkeypatch.setattr(thread, "_host", lambda: host)
    began = threading.Event()

    async def never():
        began.set()

    for give in (thread.run, thread.submit):
        with pytest.raises(
            RuntimeError, match="the event loop of 'own-loop' is closed"
        ):
            give(never())
    assert not began.is_set()


def test_closing_twice_and_unstarted_is_no_error():
    """Teardown may run in any order."""
    thread = LoopThread()
    thread.close()
    thread.close()
    assert thread.is_closed


def test_it_cannot_close_itself(thread):
    """It would wait for the thread that waits."""

    async def inside():
        thread.close()

    with pytest.raises(RuntimeError, match="cannot be closed in its own thread"):
        thread.run(inside())


def test_the_process_shares_one_and_gets_another_when_that_is_closed():
    """A test that closes it leaves the next one a fresh loop."""
    shared = loop_thread()
    assert loop_thread() is shared
    shared.close()
    assert loop_thread() is not shared
    assert loop_thread().run(seen_id()) is None
    loop_thread().close()


def test_many_threads_share_it(thread):
    """Each gets its own answer, with its own contextvars."""

    def call(number):
        request_id.set(str(number))
        return thread.run(seen_id())

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(call, range(500)))
    assert answers == [str(number) for number in range(500)]


def test_a_broken_loop_is_told_to_whoever_waits(thread):
    """Nobody waits for ever for a loop that is over, and the next call has another."""

    def broken_once(timeout):
        selector.select = select
        raise OSError("no more polls")

    async def breaks_it():
        selector.select = broken_once
        await asyncio.Event().wait()

    selector = thread.loop._selector
    select = selector.select
    with pytest.raises(OSError, match="no more polls"):
        thread.run(breaks_it())
    assert thread.run(seen_id()) is None
