"""Calls that are not made while they would only fail: `CircuitBreakerPrimitive`."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast, overload

from tta_primitives.cancellation import is_cancellation
from tta_primitives.door import closing, emit, is_listening, log_once
from tta_primitives.errors import CircuitIsolatedError, CircuitOpenError
from tta_primitives.loops import LoopClock
from tta_primitives.namespace import namespace_of
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand
from tta_primitives.recovery.circuit_policy import (
    CircuitState,
    CircuitStateChange,
    RecoveryTimeout,
    Vote,
    checked,
)
from tta_primitives.recovery.circuit_shared import SharedCircuit, SharedTicket
from tta_primitives.recovery.circuit_state import Circuit, Closed, Probe
from tta_primitives.recovery.options import SharedOptions, changed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta
    from typing import Unpack

    from redis.asyncio import Redis

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive
    from tta_primitives.recovery.circuit_state import Change, Ticket
    from tta_primitives.recovery.classify import ErrorFilter

__all__ = ["CircuitBreakerOptions", "CircuitBreakerPrimitive", "CircuitBreakerStats"]


class CircuitBreakerOptions(SharedOptions, total=False):
    """The keyword arguments of `CircuitBreakerPrimitive`, which documents them."""

    failure_threshold: int | None
    failure_rate: float | None
    minimum_calls: int
    window: float | timedelta
    recovery_timeout: RecoveryTimeout
    half_open_max_calls: int
    success_threshold: int
    half_open_timeout: float | timedelta | None
    slow_call_duration: float | timedelta | None
    slow_call_rate: float | None
    failure_if_result: Callable[[Any], Any] | None
    record_on: ErrorFilter
    ignore: ErrorFilter
    on_state_change: Callable[[CircuitStateChange], None] | None


@dataclass(frozen=True, slots=True)
class CircuitBreakerStats:
    """How a circuit breaker stands, and what it has done so far in this process.

    Attributes:
        state: `"closed"`, `"open"`, `"half_open"` or `"isolated"`.
        retry_after: Seconds until the next probe while it is open; 0.0 if one is due.
        calls: Calls that were admitted.
        successes: How many of them have succeeded.
        failures: How many have failed.
        ignored: How many have ended in an error that is no failure.
        slow: How many took too long, however they ended.
        rejected: Calls that were not admitted.
        opened: How often the breaker has opened.
    """

    state: CircuitState
    retry_after: float | None
    calls: int
    successes: int
    failures: int
    ignored: int
    slow: int
    rejected: int
    opened: int

    @property
    def failure_ratio(self) -> float:
        """Failures among the calls that have succeeded or failed; 0.0 without any."""
        judged = self.successes + self.failures
        return self.failures / judged if judged else 0.0


_GOOD, _SLOW = Vote(failed=False, slow=False), Vote(failed=False, slow=True)
_FAILED, _FAILED_SLOWLY = Vote(failed=True, slow=False), Vote(failed=True, slow=True)
_SILENT = Vote(failed=False, slow=False, counts=False)
_EVENTS: Final = {
    "closed": "breaker.closed",
    "open": "breaker.opened",
    "half_open": "breaker.half_opened",
    "isolated": "breaker.isolated",
}


class _Unbound:
    """Stands for the circuit of an open wrapper."""

    plain = None


class CircuitBreakerPrimitive(Wrapper[In, Out]):
    """Stops calling a primitive that keeps failing, and tries it again after a break.

    *Closed*, it passes calls on and counts how they end. After too many failures it is
    *open*: calls are rejected at once with a `CircuitOpenError`. When the break is over
    the next call makes it *half-open*: a few calls are admitted as probes. One that
    fails opens it again, enough that succeed close it.

    The error of a call is never replaced, also when it is the one that opens. A call
    that is cancelled says nothing about what was called; nor does a rejection from
    further inside, an error that a step has made of a cancellation, or a stream that
    its consumer leaves. A call votes only in the period in which it was admitted: what
    a call from before the failure brings later neither closes the breaker nor opens it.

    A stream has succeeded when it ends. It is slow if its first chunk is.

    Each bound breaker has a state of its own, for one event loop at a time. With
    `storage=` all processes share one: each call asks Redis first, and a state that has
    changed is seen by the next call of every process. While Redis is away, each process
    decides by what it has seen itself.

    Observers hear `breaker.opened` (reason, retry_after, opening, and the figures that
    led to it), `breaker.half_opened`, `breaker.closed` and `breaker.isolated` (reason),
    `breaker.rejected` (state, retry_after), and with a storage `breaker.storage_failed`
    (error) and `breaker.storage_malformed`.

    Args:
        primitive: A primitive or a function; without it the breaker is an open wrapper.
        failure_threshold: So many failures in a row open it. None for 5, or for no such
            limit where `failure_rate` is given; given both, either opens.
        failure_rate: So large a part of the calls in a window opens it when they fail,
            above 0 and at most 1.
        minimum_calls: There must be so many calls in the window before a rate counts.
        window: Length of the window, in seconds. It slides in steps of a tenth.
        recovery_timeout: The break in seconds, or a function that returns it for each
            opening: it is given how often the breaker has opened before since it was
            last closed, 0 for the first time.
        half_open_max_calls: So many probes are admitted at a time.
        success_threshold: So many probes must succeed to close it.
        half_open_timeout: A probe that takes longer gives way to the next call, in
            seconds, and has no vote then. None for the length of the break.
        slow_call_duration: A call that takes longer is slow, in seconds.
        slow_call_rate: So large a part of the calls in a window opens it when they are
            slow. A slow probe opens it again.
        failure_if_result: A predicate on results; one that it accepts is returned, and
            counts as a failure.
        record_on: Which errors are failures: a type, a tuple of types, or a predicate.
            Any other says nothing.
        ignore: Which are not, whatever `record_on` says.
        on_state_change: Called after each change with a `CircuitStateChange`; what it
            raises is logged once and ignored.
        storage: A `redis.asyncio.Redis` in which all processes share the state.
        namespace: What tells this breaker from others in the same storage. None derives
            it from the wrapped primitives: their classes, names, options and functions.

    Raises:
        CircuitOpenError: On execution; nothing was executed.
        CircuitIsolatedError: On execution; the breaker was opened by hand.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or has no meaning without another; or
            with a storage, a lambda or a local function has no `namespace`.
    """

    # What `execute` reads of an open wrapper.
    _circuit: Circuit = cast("Any", _Unbound)
    # The circuit of all processes, if there is one.
    _shared: SharedCircuit | None = None

    @overload
    def __init__(
        self: CircuitBreakerPrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[CircuitBreakerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        primitive: AsyncOperand[In, Out],
        **options: Unpack[CircuitBreakerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        primitive: SyncOperand[In, Out],
        **options: Unpack[CircuitBreakerOptions],
    ) -> None: ...
    def __init__(
        self,
        primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        *,
        failure_threshold: int | None = None,
        failure_rate: float | None = None,
        minimum_calls: int = 10,
        window: float | timedelta = 30.0,
        recovery_timeout: RecoveryTimeout = 30.0,
        half_open_max_calls: int = 1,
        success_threshold: int = 1,
        half_open_timeout: float | timedelta | None = None,
        slow_call_duration: float | timedelta | None = None,
        slow_call_rate: float | None = None,
        failure_if_result: Callable[[Any], Any] | None = None,
        record_on: ErrorFilter = (Exception,),
        ignore: ErrorFilter = (),
        on_state_change: Callable[[CircuitStateChange], None] | None = None,
        storage: Redis | None = None,
        namespace: str | None = None,
    ) -> None:
        self._policy = checked(
            failure_threshold=failure_threshold,
            failure_rate=failure_rate,
            minimum_calls=minimum_calls,
            window=window,
            recovery_timeout=recovery_timeout,
            half_open_max_calls=half_open_max_calls,
            success_threshold=success_threshold,
            half_open_timeout=half_open_timeout,
            slow_call_duration=slow_call_duration,
            slow_call_rate=slow_call_rate,
            failure_if_result=failure_if_result,
            record_on=record_on,
            ignore=ignore,
            on_state_change=on_state_change,
            storage=storage,
            namespace=namespace,
        )
        if primitive is not None:
            self._wrap(as_operand(primitive))

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        """Take the primitive, and make the state of one binding."""
        super()._wrap(primitive)
        policy = self._policy
        self._needs_position = primitive._needs_position
        self._reads_deadline = primitive._reads_deadline
        limit = policy.slow_call_duration
        self._is_timed = limit is not None
        # Half a nanosecond more: a difference of two times is not quite exact.
        self._slow_after = inf if limit is None else limit + 5e-10
        is_shared = policy.storage is not None
        is_special = self._is_timed or policy.failure_if_result is not None
        is_plain = not (is_shared or is_special or primitive._needs_position)
        self._circuit = Circuit(policy, is_plain=is_plain)
        self._clock = LoopClock()
        if is_shared:
            self._reads_deadline = True
            namespace = policy.namespace or namespace_of(primitive)
            self._shared = SharedCircuit(
                policy, namespace, self._circuit, self._clock, self._tell
            )

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        return changed(self._policy, CircuitBreakerPrimitive.__init__)

    @property
    def state(self) -> CircuitState:
        """The present state; one that is shared is told as it was last heard."""
        self._wrapped()
        return self._circuit.episode.state

    @property
    def stats(self) -> CircuitBreakerStats:
        """How it stands, and what it has done so far in this process."""
        self._wrapped()
        circuit = self._circuit
        return CircuitBreakerStats(
            state=circuit.episode.state,
            retry_after=circuit.left(self._clock.last()),
            calls=circuit.calls,
            successes=circuit.successes,
            failures=circuit.failures,
            ignored=circuit.ignored,
            slow=circuit.slow,
            rejected=circuit.rejected,
            opened=circuit.opened,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive, unless that would only fail."""
        # A closed circuit, and calls that need only be counted: what most executions
        # find. All else is looked at more closely.
        circuit = self._circuit
        closed = circuit.plain
        if closed is None:
            return await self._guarded(input_data, context)
        circuit.calls += 1
        try:
            output: Out = await self.primitive.execute(input_data, context)  # type: ignore[union-attr]
        except Exception as error:
            self._settle(closed, self._vote_on_error(error), context)
            raise
        circuit.successes += 1
        closed.failures = 0
        window = closed.window
        if window is not None:
            now = self._clock.now()
            if now >= window.turns_at:
                window.turn(now)
            window.calls += 1
        return output

    async def _guarded(self, input_data: In, context: WorkflowContext) -> Out:
        child, label = self._wrapped(), self._child_label
        is_local = self._shared is None
        ticket: Any = self._admit(context) if is_local else await self._enter(context)
        view = context if label is None else context.below(self, child, label)
        started = self._clock.now() if self._is_timed else None
        vote = None
        try:
            output: Out = await child.execute(input_data, view)
        except Exception as error:
            slow = started is not None and self._is_slow(started)
            vote = self._vote_on_error(error, slow)
            raise
        else:
            slow = started is not None and self._is_slow(started)
            vote = self._vote_on(output, slow)
            return output
        finally:
            if is_local:
                self._settle(ticket, vote, context)
            else:
                await self._leave(ticket, vote, context)

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the chunks of the primitive, unless it would only fail."""
        child, label = self._wrapped(), self._child_label
        ticket = await self._enter(context)
        view = context if label is None else context.below(self, child, label)
        started, slow = self._clock.now(), None
        vote = None
        try:
            async with closing(child.stream(input_data, view)) as chunks:
                async for chunk in chunks:
                    if slow is None:
                        slow = self._is_slow(started)
                    yield chunk
        except Exception as error:
            slow = self._is_slow(started) if slow is None else slow
            vote = self._vote_on_error(error, slow)
            raise
        else:
            slow = self._is_slow(started) if slow is None else slow
            vote = self._counted(False, slow)  # noqa: FBT003 - as below
        finally:
            await self._leave(ticket, vote, context)

    async def isolate(self, context: WorkflowContext | None = None) -> None:
        """Reject all calls, of all processes that share the state, until `close`.

        Calls that are under way go on, and have no vote.

        Args:
            context: Where observers are told of it; None to tell only
                `on_state_change`.

        Raises:
            Exception: The storage could not be reached; the breaker of this process is
                isolated while it is away.
        """
        await self._set("isolated", context)

    async def close(self, context: WorkflowContext | None = None) -> None:
        """Admit calls again, in all processes that share the state; forget the past.

        Args:
            context: Where observers are told of it; None to tell only
                `on_state_change`.

        Raises:
            Exception: The storage could not be reached; the breaker of this process is
                closed while it is away.
        """
        await self._set("closed", context)

    async def _set(self, state: CircuitState, context: WorkflowContext | None) -> None:
        self._wrapped()
        if self._shared is None:
            self._tell(self._circuit.set(state, "by_hand"), context)
        else:
            await self._shared.set(state, context)

    async def _enter(self, context: WorkflowContext) -> Ticket | SharedTicket:
        """Return the ticket of a call, from whoever decides.

        Raises:
            CircuitOpenError: It is not admitted.
        """
        if self._shared is None:
            return self._admit(context)
        ticket = await self._shared.admit(context)
        if ticket is None:
            raise self._rejection(context)
        self._circuit.calls += 1
        return ticket

    def _admit(self, context: WorkflowContext) -> Ticket:
        """Return the ticket of a call, from the circuit of this process.

        Raises:
            CircuitOpenError: It is not admitted.
        """
        circuit = self._circuit
        ticket: Ticket | None
        if type(circuit.episode) is Closed:
            ticket = circuit.episode
        else:
            now = self._clock.now()
            self._tell(circuit.awake(now), context)
            ticket = circuit.admit(now)
            if ticket is None:
                raise self._rejection(context)
        circuit.calls += 1
        return ticket

    def _rejection(self, context: WorkflowContext) -> CircuitOpenError:
        """Return the error of a call that is not admitted, and tell observers of it."""
        circuit = self._circuit
        circuit.rejected += 1
        state, left = circuit.episode.state, circuit.left(self._clock.now())
        if is_listening():
            emit(context, "breaker.rejected", state=state, retry_after=left)
        where = f"{context.position_of(self).path}/{self._wrapped().name}"
        if state == "isolated":
            return CircuitIsolatedError(f"{where}: the circuit was isolated by hand")
        if left is None:
            return CircuitOpenError(f"{where}: the circuit is half-open, being probed")
        return CircuitOpenError(
            f"{where}: the circuit is open for another {left:g} s", retry_after=left
        )

    def _is_slow(self, started: float) -> bool:
        return self._clock.now() - started > self._slow_after

    def _vote_on_error(self, error: Exception, slow: bool = False) -> Vote | None:  # noqa: FBT001, FBT002 - as below
        """Return what an error says; None if it stands for a cancellation."""
        if is_cancellation(error):
            return None
        if not self._policy.is_failure(error):
            self._circuit.ignored += 1
            return _SILENT
        return self._counted(True, slow)  # noqa: FBT003 - as below

    def _vote_on(self, output: object, slow: bool) -> Vote:  # noqa: FBT001 - as below
        refuses = self._policy.failure_if_result
        failed = refuses is not None and bool(refuses(output))
        return self._counted(failed, slow)

    def _counted(self, failed: bool, slow: bool) -> Vote:  # noqa: FBT001 - names cost as much as the rest
        circuit = self._circuit
        circuit.slow += slow
        if failed:
            circuit.failures += 1
            return _FAILED_SLOWLY if slow else _FAILED
        circuit.successes += 1
        return _SLOW if slow else _GOOD

    def _settle(
        self, ticket: Ticket, vote: Vote | None, context: WorkflowContext
    ) -> None:
        """Let a call that has ended have its vote; it has none if it was cancelled."""
        if vote is not None:
            change = self._circuit.vote(ticket, vote, self._clock.now())
            self._tell(change, context)
        elif type(ticket) is Probe:
            ticket.free()

    async def _leave(
        self,
        ticket: Ticket | SharedTicket,
        vote: Vote | None,
        context: WorkflowContext,
    ) -> None:
        """Do the same, with whoever decides."""
        if isinstance(ticket, SharedTicket):
            await cast("SharedCircuit", self._shared).settle(ticket, vote, context)
        else:
            self._settle(ticket, vote, context)

    def _tell(self, change: Change | None, context: WorkflowContext | None) -> None:
        """Tell observers and the user's listener of a change that has been made."""
        if change is None:
            return
        before, after, reason, detail = change
        if context is not None:
            emit(context, _EVENTS[after], reason=reason, **detail)
        hook = self._policy.on_state_change
        if hook is None:
            return
        name, left = self._wrapped().name, detail.get("retry_after")
        try:
            hook(CircuitStateChange(self.name, name, before, after, reason, left))
        except Exception as error:  # noqa: BLE001 - a listener never changes a run
            log_once(hook, error)
