"""Faults of the connection: nobody is there, it breaks, or nothing comes.

A connection that is silent fails at a primitive as it does in a client that has a time
limit: at once with a `TimeoutError`, as how long the client would wait is its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_tta.faults.llm_base import Expectation, LLMFault, Raises, written
from pytest_tta.faults.llm_edits import without_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_tta.wire.api import WireStrike
    from pytest_tta.wire.exchange import WireAnswer

__all__ = [
    "closed_early",
    "connect_refused",
    "dns",
    "garbage_head",
    "no_headers",
    "reset",
    "slow_connect",
    "slow_write",
]

_GARBAGE = b"garbage\r\n\r\n"


def connect_refused() -> LLMFault:
    """Refuse the connection: nothing listens there."""
    error = partial(ConnectionRefusedError, "the connection was refused")
    return _broken(connect_refused, error, delivered=False, connect="refused")


def dns() -> LLMFault:
    """Find no address for the name of the host."""
    error = partial(ConnectionError, "the name of the host has no address")
    return _broken(dns, error, delivered=False, connect="unresolved")


def slow_connect() -> LLMFault:
    """Never accept the connection: clients wait until their connect timeout."""
    error = partial(TimeoutError, "the connection was not accepted in time")
    return _broken(slow_connect, error, delivered=False, connect="silent")


def slow_write() -> LLMFault:
    """Do not read the request: clients wait until their write timeout.

    On a real network a client notices only with a request that is larger than what the
    buffers hold; with a smaller one it waits until its read timeout.
    """
    error = partial(TimeoutError, "the request was not read in time")
    return _broken(
        slow_write, error, delivered=False, reads_request=False, ending="silent"
    )


def reset() -> LLMFault:
    """Tear the connection down (RST) in place of an answer."""
    error = partial(ConnectionResetError, "the connection was reset")
    return _broken(reset, error, ending="reset")


def closed_early() -> LLMFault:
    """Close the connection without an answer."""
    error = partial(ConnectionError, "the server closed without an answer")
    return _broken(closed_early, error, ending="closed")


def no_headers() -> LLMFault:
    """Never begin an answer: clients wait until their read timeout."""
    error = partial(TimeoutError, "no answer began in time")
    return _broken(no_headers, error, ending="silent")


def garbage_head() -> LLMFault:
    """Answer with what is no HTTP."""
    error = partial(ConnectionError, "the answer is no HTTP")
    return _broken(
        garbage_head, error, has_head=True, raw_head=_GARBAGE, ending="closed"
    )


def _broken(
    maker: Callable[[], LLMFault],
    error: Callable[[], Exception],
    *,
    delivered: bool = True,
    **changes: Any,  # noqa: ANN401 - fields of any kind
) -> LLMFault:
    expect = Expectation(may_retry=True, delivered=delivered)
    wire = partial(_changed, changes)
    return Raises(0, written(maker), expect, wire, error=error)


def _changed(changes: Mapping[str, Any], strike: WireStrike) -> WireAnswer:
    nothing = replace(without_answer(strike.answer()), head_after=0.0)
    return replace(nothing, **changes)
