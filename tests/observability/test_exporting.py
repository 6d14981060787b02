"""Nobody waits for a collector, whatever it does; forks send what is theirs."""

from __future__ import annotations

import asyncio
import functools
import json
import operator
import os
import signal
import threading
import time

import pytest

from tests.processes import PATIENCE, free_port
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import SpanCounts, initialize_observability
from tta_primitives.observability.exporting import SpanQueue

UNMETERED = {"enable_prometheus": False}
# A process that waits for the collector as the SDK does waits for ten.
GENEROUS = 5.0


@step
async def load(value):
    return value


async def run(count: int = 1) -> None:
    for _ in range(count):
        assert await load.execute(1, WorkflowContext()) == 1


def taken_by(action) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


async def test_collector_that_is_away_fails_no_call_and_holds_nobody_up():
    """The most it can cost is two seconds, at the very end."""
    observability = initialize_observability(
        "a", otlp_endpoint=f"http://127.0.0.1:{free_port()}", **UNMETERED
    )
    await run(10)
    assert taken_by(observability.shutdown) < GENEROUS
    assert observability.spans.exported == 0


async def test_spans_that_cannot_be_sent_are_counted():
    """An operator sees that traces are missing, and how many."""
    with initialize_observability(
        "a",
        otlp_endpoint=f"http://127.0.0.1:{free_port()}",
        otlp_timeout=0.1,
        **UNMETERED,
    ) as observability:
        await run(10)
        assert observability.flush(PATIENCE)
        assert observability.spans == SpanCounts(failed=10)


async def test_collector_that_hangs_costs_what_shutdown_was_given(receiver):
    """Its thread is left alone with it, and ends with the process."""
    receiver.mode = "hang"
    observability = initialize_observability(
        "a", otlp_endpoint=receiver.url, otlp_timeout=60, **UNMETERED
    )
    await run(3)
    assert not observability.flush(0.01)
    await asyncio.to_thread(receiver.wait_until, lambda r: r.requests == 1)
    await run(2)
    assert observability.spans.waiting == 2
    assert taken_by(lambda: observability.shutdown(0.05)) < GENEROUS
    assert observability.spans.dropped == 2
    receiver.stop()


async def test_collector_that_answers_too_late_is_given_up(receiver):
    """One request takes no longer than `otlp_timeout`."""
    receiver.mode = "hang"
    with initialize_observability(
        "a", otlp_endpoint=receiver.url, otlp_timeout=0.2, **UNMETERED
    ) as observability:
        await run()
        assert observability.flush(PATIENCE)
        assert observability.spans.failed == 1
        receiver.mode = "ok"
        await run()
        assert observability.flush(PATIENCE)
        assert observability.spans.exported == 1


@pytest.mark.parametrize("mode", ["error", "kill"])
async def test_collector_that_fails_in_the_middle_fails_no_call(receiver, mode):
    """An answer with an error, or half an answer: the next batch is sent again."""
    with initialize_observability(
        "a", otlp_endpoint=receiver.url, otlp_timeout=0.5, **UNMETERED
    ) as observability:
        await run()
        assert observability.flush(PATIENCE)
        receiver.mode = mode
        await run()
        assert observability.flush(PATIENCE)
        receiver.mode = "ok"
        await run()
        assert observability.flush(PATIENCE)
        counts = observability.spans
    assert counts.exported >= 2
    assert counts.exported + counts.failed == 3


async def test_collector_that_is_killed_during_a_run_fails_no_call(receiver):
    """Connections to it are open when it goes."""
    with initialize_observability(
        "a", otlp_endpoint=receiver.url, otlp_timeout=0.5, **UNMETERED
    ) as observability:
        await run()
        assert observability.flush(PATIENCE)
        receiver.stop()
        await run(20)
        assert observability.flush(PATIENCE)
        assert observability.spans == SpanCounts(exported=1, failed=20)


async def test_full_queue_drops_spans_counts_them_and_tells_once(receiver, caplog):
    """Memory is bounded, whatever the collector does."""
    receiver.mode = "hang"
    observability = initialize_observability(
        "a", otlp_endpoint=receiver.url, span_queue_size=5, **UNMETERED
    )
    await run(50)
    observability.shutdown(0.0)
    receiver.stop()
    counts = observability.spans
    assert counts.dropped + counts.failed + counts.waiting <= 50
    assert counts.dropped >= 40
    assert caplog.text.count("spans are dropped") == 1


class Exporter:
    """Takes batches, or waits until it may."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()
        self.error = error
        self.is_closed = False

    def export(self, batch):
        from opentelemetry.sdk.trace.export import SpanExportResult

        self.entered.set()
        self.may_go.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        self.batches.append([span.name for span in batch])
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.is_closed = True


class Ended:
    """What a queue asks of a span."""

    def __init__(self, name: str, *, sampled: bool = True) -> None:
        self.name = name
        flags = type("Flags", (), {"sampled": sampled})
        self.context = type("Place", (), {"trace_flags": flags})


def test_batches_are_bounded_and_in_order():
    """As many at once as was said."""
    exporter = Exporter()
    queue = SpanQueue(lambda: exporter, max_batch=3)
    for number in range(7):
        queue.on_end(Ended(str(number)))
    assert queue.close(PATIENCE)
    assert functools.reduce(operator.iadd, exporter.batches, []) == list("0123456")
    assert max(map(len, exporter.batches)) <= 3
    assert queue.counts == SpanCounts(exported=7)


def test_queue_takes_no_more_than_was_said():
    """What comes while it is full is dropped at once."""
    exporter = Exporter()
    exporter.may_go.clear()
    lost: list[int] = []
    queue = SpanQueue(lambda: exporter, max_queue=2, max_batch=1)
    queue.on_lost = lost.append
    queue.on_end(Ended("being sent"))
    assert exporter.entered.wait(PATIENCE)
    for name in ("waits", "waits, too", "too late", "too late, too"):
        queue.on_end(Ended(name))
    assert queue.counts == SpanCounts(dropped=2, waiting=2)
    assert lost == [1, 1]
    exporter.may_go.set()
    assert queue.close(PATIENCE)
    assert queue.counts == SpanCounts(exported=3, dropped=2)


def test_full_batch_is_sent_without_waiting_for_the_delay():
    """The thread wakes up for it."""
    exporter = Exporter()
    queue = SpanQueue(lambda: exporter, max_batch=2, delay_seconds=3600)
    queue.on_end(Ended("a"))
    assert not exporter.entered.is_set()
    queue.on_end(Ended("b"))
    assert exporter.entered.wait(PATIENCE)
    queue.close(PATIENCE)


def test_spans_are_sent_after_the_delay():
    """However few there are."""
    exporter = Exporter()
    queue = SpanQueue(lambda: exporter, delay_seconds=0.01)
    queue.on_end(Ended("a"))
    assert exporter.entered.wait(PATIENCE)
    queue.close(PATIENCE)


def test_what_is_not_sampled_is_not_sent():
    """A span that only records is for others."""
    exporter = Exporter()
    queue = SpanQueue(lambda: exporter)
    queue.on_end(Ended("a", sampled=False))
    queue.close(PATIENCE)
    assert exporter.batches == []


def test_exporter_that_raises_ends_nothing():
    """The spans have failed, and the thread goes on."""
    exporter = Exporter(error=RuntimeError("no"))
    lost: list[int] = []
    queue = SpanQueue(lambda: exporter)
    queue.on_lost = lost.append
    queue.on_end(Ended("a"))
    assert queue.flush(PATIENCE)
    exporter.error = None
    queue.on_end(Ended("b"))
    assert queue.close(PATIENCE)
    assert queue.counts == SpanCounts(exported=1, failed=1)
    assert lost == [1]


def test_after_the_end_spans_are_dropped_and_counted():
    """Nobody sends them any more, and nobody who listens to that may raise."""

    def listener(number: int) -> None:
        raise RuntimeError("no")

    exporter = Exporter()
    queue = SpanQueue(lambda: exporter)
    queue.on_lost = listener
    queue.on_end(Ended("a"))
    assert queue.close(PATIENCE)
    assert exporter.is_closed
    queue.on_end(Ended("b"))
    assert queue.counts == SpanCounts(exported=1, dropped=1)
    assert queue.flush(PATIENCE)
    assert queue.close(PATIENCE)
    queue.shutdown()


def test_queue_without_spans_has_no_thread():
    """Not even for its end."""
    before = threading.active_count()
    queue = SpanQueue(lambda: pytest.fail("nobody needs an exporter"))
    assert queue.flush(PATIENCE)
    assert threading.active_count() == before
    assert queue.close(PATIENCE)


def test_flush_during_an_export_waits_for_what_came_before_it():
    """It is for all spans that had ended by then."""
    exporter = Exporter()
    exporter.may_go.clear()
    queue = SpanQueue(lambda: exporter, max_batch=1)
    queue.on_end(Ended("a"))
    assert exporter.entered.wait(PATIENCE)
    queue.on_end(Ended("b"))
    assert not queue.flush(0.01)
    exporter.may_go.set()
    assert queue.flush(PATIENCE)
    assert exporter.batches == [["a"], ["b"]]
    queue.close(PATIENCE)


FORKS = """
import asyncio, json, os, sys
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability

def run(name):
    asyncio.run(step(lambda v: v).named(name).execute(1, WorkflowContext()))

def initialize():
    return initialize_observability(
        "forks", enable_prometheus=False, otlp_endpoint=sys.argv[1]
    )

observability = initialize()
run("in the parent, sent before")
observability.flush(30)
run("in the parent, waiting")
"""


def test_forked_child_sends_its_own_spans_and_not_its_parents(receiver, processes):
    """At the end of the child, over a connection of its own."""
    code = f"""{FORKS}
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads.
child = os.fork()
if not child:
    assert initialize() is observability
    run("in the child")
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(json.dumps(status))
"""
    done = processes.python("-c", code, receiver.url)
    assert done.wait() == 0, done.output
    assert json.loads(done.output) == 0
    assert sorted(span.name for span in receiver.spans) == [
        "in the child",
        "in the parent, sent before",
        "in the parent, waiting",
    ]


def test_children_of_multiprocessing_send_their_spans_at_their_end(receiver, processes):
    """They run no `atexit`."""
    code = f"""{FORKS}
from multiprocessing import get_context
children = [get_context("fork").Process(target=run, args=(f"child {{n}}",))
            for n in range(2)]
for child in children:
    child.start()
for child in children:
    child.join()
"""
    done = processes.python("-c", code, receiver.url)
    assert done.wait() == 0, done.output
    names = sorted(span.name for span in receiver.spans)
    assert names[:2] == ["child 0", "child 1"]
    assert len(names) == 4


def test_process_ends_although_its_collector_hangs(receiver, processes):
    """Its exit is held up by two seconds at most."""
    receiver.mode = "hang"
    code = f"""{FORKS.replace("observability.flush(30)", "")}
print("ready", flush=True)
sys.stdin.read()
"""
    process = processes.python("-c", code, receiver.url)
    process.wait_for("ready")
    assert process.wait(PATIENCE) == 0
    receiver.wait_until(lambda r: r.requests == 1)


def test_worker_that_is_stopped_by_a_signal_sends_its_spans(receiver, processes):
    """If the signal ends it as `sys.exit` does, which is what servers do."""
    code = f"""{FORKS}
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
signal.pause()
"""
    process = processes.python("-c", code, receiver.url)
    process.wait_for("ready")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert len(receiver.spans) == 2
