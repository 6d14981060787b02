"""How replies of a Celery fleet come back, and cancellations get to its workers.

Over the broker that the tasks go over, whichever it is: replies in a queue for each
caller, cancellations to all workers at once. Celery's own results would have to be
polled for, or hold a thread for each call.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from tta_primitives.chance import new_id
from tta_primitives.distributed.errors import EngineError
from tta_primitives.extras import needs

with needs("celery", __name__, "kombu"):
    import kombu
    from kombu.exceptions import KombuError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AWAY", "BrokerMailbox", "LocalMailbox", "Mailbox"]

logger: logging.Logger = logging.getLogger(__name__)

_kombu: Any = kombu  # It has no types.

AWAY: tuple[type[Exception], ...] = (KombuError, OSError)
"""What is raised while a broker is away; its own client's errors are among them."""

_TICK = 0.2
_SUBSCRIBED_AFTER = 0.01
_READY_SECONDS = 10.0
_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_KEEP_SECONDS = 3600.0
_POLICY = {
    "max_retries": 5,
    "interval_start": 0.0,
    "interval_step": 0.2,
    "interval_max": 1.0,
}


class Mailbox(Protocol):
    """Brings replies to a caller, and cancellations to workers; its methods block.

    Attributes:
        address: Where replies to this caller are posted.
    """

    address: str

    def receive(self, deliver: Callable[[str], object]) -> None:
        """Begin to hand over replies, in a thread of its own."""

    def give_up(self) -> None:
        """End a `receive` that nobody waits for any more; this does not block."""

    def obey(self, cancel: Callable[[str], object]) -> None:
        """Begin to hand over cancellations in this process, if it has not begun."""

    def post(self, address: str, reply: str) -> None:
        """Post a reply; it is there when this returns."""

    def revoke(self, call_id: str) -> None:
        """Cancel a call, wherever it is."""

    def close(self) -> None:
        """End what this process has begun."""


class LocalMailbox:
    """The mailbox of a fleet that is this process alone."""

    address = "here"

    def __init__(self) -> None:
        self._deliver: Callable[[str], object] = _nobody
        self._cancel: Callable[[str], object] = _nobody

    def receive(self, deliver: Callable[[str], object]) -> None:
        """Begin to hand over replies."""
        self._deliver = deliver

    def give_up(self) -> None:
        """Forget who wanted replies."""
        self._deliver = _nobody

    def obey(self, cancel: Callable[[str], object]) -> None:
        """Begin to hand over cancellations."""
        self._cancel = cancel

    def post(self, address: str, reply: str) -> None:  # noqa: ARG002 - there is one
        """Hand over a reply."""
        self._deliver(reply)

    def revoke(self, call_id: str) -> None:
        """Cancel a call."""
        self._cancel(call_id)

    def close(self) -> None:
        """Forget who wanted replies."""
        self._deliver = _nobody


def _nobody(_: str) -> None:
    """Take what comes when nobody waits for it any more."""


class BrokerMailbox:
    """Replies and cancellations over the broker of a Celery app.

    A caller has one thread that waits for replies, a worker process one that waits for
    cancellations, each with a connection of its own.

    Args:
        app: The Celery app.
        prefix: What the names of queues begin with; one for each fleet.
    """

    def __init__(self, app: Any, *, prefix: str) -> None:  # noqa: ANN401 - Celery has no types
        self._app = app
        self._prefix = prefix
        self.address: str = f"{prefix}-replies-{new_id()}"
        self._cancellations = _kombu.Exchange(
            f"{prefix}-cancellations", type="fanout", durable=False
        )
        self._replies: _Listener | None = None
        self._orders: _Listener | None = None
        self._lock = threading.Lock()

    def receive(self, deliver: Callable[[str], object]) -> None:
        """Begin to hand over replies.

        Raises:
            EngineError: The broker cannot be reached.
        """
        # It outlives a lost connection, and goes away with its caller.
        queue = _kombu.Queue(
            self.address,
            _kombu.Exchange(""),
            routing_key=self.address,
            expires=_KEEP_SECONDS,
        )
        replies = _Listener(self._app, queue, deliver, deletes=True)
        self._replies = replies
        replies.wait_until_ready()

    def give_up(self) -> None:
        """End a `receive` that nobody waits for any more; this does not block."""
        replies, self._replies = self._replies, None
        if replies is not None and replies.pid == os.getpid():
            replies.give_up()

    def obey(self, cancel: Callable[[str], object]) -> None:
        """Begin to hand over cancellations in this process."""
        with self._lock:
            orders = self._orders
            if orders is not None and orders.pid == os.getpid():
                return
            queue = _kombu.Queue(
                f"{self._prefix}-orders-{new_id()}",
                self._cancellations,
                durable=False,
                auto_delete=True,
                expires=60.0,
            )
            orders = self._orders = _Listener(self._app, queue, cancel)
        # A worker whose broker is away works on, and listens again when it is back.
        orders.is_ready()

    def post(self, address: str, reply: str) -> None:
        """Post a reply, a few times if the broker is away.

        Raises:
            Exception: One of `AWAY`, or of the broker's client.
        """
        with self._app.producer_or_acquire() as producer:
            producer.publish(
                reply,
                exchange="",
                routing_key=address,
                serializer="json",
                retry=True,
                retry_policy=_POLICY,
            )

    def revoke(self, call_id: str) -> None:
        """Cancel a call, also one that is still in the queue."""
        self._app.control.revoke(call_id)
        with self._app.producer_or_acquire() as producer:
            producer.publish(
                call_id,
                exchange=self._cancellations,
                declare=[self._cancellations],
                delivery_mode="transient",
                serializer="json",
                retry=True,
                retry_policy=_POLICY,
            )

    def close(self) -> None:
        """End both threads."""
        for listener in (self._replies, self._orders):
            if listener is not None and listener.pid == os.getpid():
                listener.stop()
        self._replies = self._orders = None


class _Listener:
    """A thread that hands over what comes to a queue, and comes back after outages.

    Args:
        app: The Celery app.
        queue: The queue.
        take: Gets each text.
        deletes: Whether the queue goes when this ends.

    Attributes:
        pid: The process that the thread is in.
    """

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - Celery has no types
        queue: Any,  # noqa: ANN401 - Celery has no types
        take: Callable[[str], object],
        *,
        deletes: bool = False,
    ) -> None:
        self.pid = os.getpid()
        self._app = app
        self._queue = queue
        self._take = take
        self._deletes = deletes
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._reason: Exception | None = None
        name = f"tta-{queue.name}"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Wait until nothing that comes is missed.

        Raises:
            EngineError: The broker cannot be reached.
        """
        if not self.is_ready():
            reason = type(self._reason).__name__ if self._reason else "no answer"
            self.stop()
            msg = f"the broker of the Celery app cannot be reached: {reason}"
            raise EngineError(msg) from self._reason

    def is_ready(self) -> bool:
        """Wait until nothing that comes is missed; tell whether it is so by now."""
        return self._ready.wait(_READY_SECONDS)

    def give_up(self) -> None:
        """Let the thread end, and whoever waits for it; this does not block."""
        self._stop.set()
        self._ready.set()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_READY_SECONDS)

    def _serve(self) -> None:
        pause = _PAUSE
        while not self._stop.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    self._consume(connection)
                pause = _PAUSE
            except Exception as error:  # noqa: BLE001 - each broker's client has its own
                self._reason = error
                if self._ready.is_set():
                    logger.warning(
                        "%r is cut off: %s", self._queue.name, type(error).__name__
                    )
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _consume(self, connection: Any) -> None:  # noqa: ANN401 - kombu has no types
        channel = connection.channel()
        queue = self._queue(channel)
        with _kombu.Consumer(
            channel,
            queues=[queue],
            callbacks=[self._take_one],
            on_decode_error=self._drop,
            accept=["json"],
        ):
            # Some brokers have not subscribed before the first look.
            wait = _SUBSCRIBED_AFTER
            while not self._stop.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=wait)
                wait = _TICK
                self._ready.set()
        if self._deletes:
            queue.delete()

    def _drop(self, message: Any, error: Exception) -> None:  # noqa: ANN401 - as below
        """Drop what cannot be read, or it would come again and hold up the others."""
        logger.warning(
            "what came to %r is no JSON and is dropped: %s",
            self._queue.name,
            type(error).__name__,
        )
        message.ack()

    def _take_one(self, body: object, message: Any) -> None:  # noqa: ANN401 - kombu has no types
        if isinstance(body, str):
            try:
                self._take(body)
            except RuntimeError as error:  # Its loop has been closed meanwhile.
                logger.warning("a message came too late: %s", error)
        message.ack()
