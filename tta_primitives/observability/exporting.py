"""Spans on their way out: a bounded queue, and one thread that sends what is in it.

The SDK's own processor can hold a process up for ten seconds at its end, tells nobody
how many spans it has dropped, and sends from forked workers over the connection of
their parent. This one is a span processor of the SDK like that one, and keeps three
promises: whoever ends a span never waits, whoever stops waits as long as was said, and
each process sends its own spans over a connection of its own.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SpanCounts", "SpanQueue"]

logger: logging.Logger = logging.getLogger(__name__)

# How long a process may be held up at its end.
_LAST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """What has become of the spans that ended in this process.

    Attributes:
        exported: The collector has taken them.
        failed: They were sent, and the collector refused them or did not answer.
        dropped: They were never sent: the queue was full, or the process stopped.
        waiting: They are in the queue.
    """

    exported: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0


_queues: WeakSet[SpanQueue] = WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue._begin_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SpanQueue:
    """A span processor that sends sampled spans in batches, from a thread of its own.

    The thread begins with the first span of a process. In a forked process that is
    another thread with another exporter, and what the parent had not sent yet is left
    to the parent.

    Args:
        make_exporter: Makes a span exporter, once for each process.
        clean: Takes secrets out of a span, in the thread.
        max_queue: How many spans may wait; what comes then is dropped and counted.
        max_batch: How many are sent at once, and how many must wait to be sent early.
        delay_seconds: How long a span waits at most until it is sent.
    """

    def __init__(
        self,
        make_exporter: Callable[[], Any],
        clean: Callable[[Any], Any] = lambda span: span,
        *,
        max_queue: int = 2048,
        max_batch: int = 512,
        delay_seconds: float = 5.0,
    ) -> None:
        self._make_exporter = make_exporter
        self._clean = clean
        self._max_queue = max_queue
        self._max_batch = min(max_batch, max_queue)
        self._delay = delay_seconds
        self._is_closed = False
        # Told of spans that were not exported, how many.
        self.on_lost: Callable[[int], None] | None = None
        self._begin_process()
        _queues.add(self)

    def _begin_process(self) -> None:
        """Begin with nothing: locks and threads of a parent process are dead here."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._queue: deque[Any] = deque()
        self._flushes: deque[threading.Event] = deque()
        self._thread: threading.Thread | None = None
        self._has_ended = False
        self._exporter: Any = None
        self._exported = self._failed = self._dropped = 0

    @property
    def counts(self) -> SpanCounts:
        """What has become of the spans of this process so far."""
        self._check_process()
        return SpanCounts(self._exported, self._failed, self._dropped, len(self._queue))

    def on_start(self, span: object, parent_context: object = None) -> None:
        """Do nothing: the SDK tells when a span begins."""

    def _on_ending(self, span: object) -> None:
        """Do nothing: the SDK tells when a span is about to end."""

    def on_end(self, span: Any) -> None:  # noqa: ANN401 - the SDK is not imported here
        """Take a span that has ended, if it was sampled; never wait."""
        if not span.context.trace_flags.sampled:
            return
        self._check_process()
        if self._is_closed or len(self._queue) >= self._max_queue:
            self._drop(1)
            return
        self._queue.append(span)
        if self._thread is None:
            self._begin_thread()
        if len(self._queue) >= self._max_batch:
            self._wake.set()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits; return whether that was done in time."""
        return self.flush(timeout_millis / 1000)

    def flush(self, timeout: float) -> bool:
        """Send what waits; return whether that was done within so many seconds."""
        self._check_process()
        if self._thread is None:
            return True
        done = self._ask()
        self._wake.set()
        return done.wait(timeout)

    def _ask(self) -> threading.Event:
        """Return the event that is set when all that waits by now was sent."""
        done = threading.Event()
        self._flushes.append(done)
        if self._has_ended:
            done.set()
        return done

    def shutdown(self) -> None:
        """Stop at once, as the SDK asks for: `close` waits."""
        self.close(0.0)

    def close(self, timeout: float) -> bool:
        """Send what waits and stop; return whether all was sent within so many seconds.

        What could not be sent by then is dropped and counted.
        """
        self._check_process()
        if self._is_closed:
            return True
        done = None if self._thread is None else self._ask()
        self._is_closed = True
        self._wake.set()
        is_done = done is None or done.wait(timeout)
        self._drop(len(self._queue))
        self._queue.clear()
        return is_done

    def _check_process(self) -> None:
        # For those who fork without telling Python.
        if self._pid != os.getpid():
            self._begin_process()

    def _drop(self, number: int) -> None:
        if not number:
            return
        if not self._dropped:
            logger.warning("spans are dropped: more end than can be sent")
        self._dropped += number
        self._tell_lost(number)

    def _tell_lost(self, number: int) -> None:
        if self.on_lost is not None:
            try:
                self.on_lost(number)
            except Exception:
                logger.exception("%r raised and is ignored", self.on_lost)

    def _begin_thread(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._work, name="tta-spans", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # The interpreter is going down.
                self._drop(len(self._queue))
                self._queue.clear()
                return
            self._thread = thread
        self._flush_at_exit()

    def _flush_at_exit(self) -> None:
        """Flush where no `atexit` is run: in children of multiprocessing and Celery."""
        processes = sys.modules.get("multiprocessing.process")
        if processes is not None and processes.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(None, self.close, args=(_LAST_SECONDS,), exitpriority=10)
        celery = sys.modules.get("celery.signals")
        if celery is not None:
            celery.worker_process_shutdown.connect(self._celery_ends)

    def _celery_ends(self, **_about: object) -> None:
        self.close(_LAST_SECONDS)

    def _work(self) -> None:
        wake, queue, flushes = self._wake, self._queue, self._flushes
        while not self._is_closed:
            wake.wait(self._delay)
            wake.clear()
            asked = list(flushes)
            while queue:
                self._send(queue)
            for done in asked:
                flushes.remove(done)
                done.set()
        # Whoever asks from now on sees that it has ended; whoever has asked is told.
        self._has_ended = True
        for done in list(flushes):
            done.set()
        self._close_exporter()

    def _send(self, queue: deque[Any]) -> None:
        batch: list[Any] = []
        while len(batch) < self._max_batch:
            try:
                batch.append(queue.popleft())
            except IndexError:  # It was cleared in the meantime.
                break
        try:
            is_sent = self._export(batch)
        except Exception as error:  # noqa: BLE001 - it must not end the thread
            is_sent = False
            if not self._failed:
                logger.warning("spans could not be sent: %s", type(error).__name__)
        if is_sent:
            self._exported += len(batch)
        else:
            self._failed += len(batch)
            self._tell_lost(len(batch))

    def _export(self, batch: list[Any]) -> bool:
        from opentelemetry import context

        if self._exporter is None:
            self._exporter = self._make_exporter()
        # Spans of an instrumented HTTP library about this request would never end.
        suppress = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
        token = context.attach(
            context.set_value(suppress or "suppress_instrumentation", value=True)
        )
        try:
            clean = [self._clean(span) for span in batch]
            return bool(self._exporter.export(clean).name == "SUCCESS")
        finally:
            context.detach(token)

    def _close_exporter(self) -> None:
        if self._exporter is not None:
            try:
                self._exporter.shutdown()
            except Exception as error:  # noqa: BLE001 - nobody is left to be told
                logger.debug("the exporter did not stop: %s", type(error).__name__)
