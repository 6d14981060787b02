"""One circuit for all processes that share a Redis, and a local one for its absence."""

from __future__ import annotations

import asyncio
import logging
from asyncio.events import _get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast, get_args

from tta_primitives.context import Enforced
from tta_primitives.door import emit
from tta_primitives.loops import running_loop
from tta_primitives.recovery.circuit_policy import CircuitState
from tta_primitives.recovery.circuit_scripts import ADMIT, FREE, REPORT, SET
from tta_primitives.recovery.circuit_state import Probe
from tta_primitives.recovery.circuit_windows import SLICES
from tta_primitives.redis_link import link_to

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tta_primitives.context import WorkflowContext
    from tta_primitives.loops import LoopClock
    from tta_primitives.recovery.circuit_policy import Policy, Vote
    from tta_primitives.recovery.circuit_state import Change, Circuit, Ticket
    from tta_primitives.redis_link import Script

__all__ = ["SharedCircuit", "SharedTicket"]

logger: logging.Logger = logging.getLogger("tta_primitives")

_STATES: Final = frozenset(get_args(CircuitState))
_MICRO: Final = 1_000_000
# Nothing in a state means anything after a day without a change.
_KEEP_SECONDS: Final = 24 * 3600
# No answer is on its way for longer; what seems to be is a clock that was set back.
_LATEST: Final = 1 * _MICRO


class Answer(NamedTuple):
    """What Redis says of the circuit, and of the call that has asked.

    Attributes:
        is_admitted: Whether that call is admitted.
        state: The state.
        episode: The number of the state's episode.
        left: Seconds until the next probe while it is open.
        pause: The length of the break, in seconds; 0 if it is closed.
        openings: How often it has opened since it was last closed.
        failures: How many there were in a row.
        permit: The number of the call's permit as a probe; 0 if it has none.
        reason: Why the state has just changed; empty if it has not.
        at: When this was so, in microseconds of the server's clock.
        was_malformed: Whether something was found that could not be read.
    """

    is_admitted: bool
    state: CircuitState
    episode: int
    left: float
    pause: float
    openings: int
    failures: int
    permit: int
    reason: str
    at: int
    was_malformed: bool


class SharedTicket:
    """What a call gets when it is admitted: a ticket there, and one here.

    Attributes:
        local: The ticket of the local circuit.
        episode: The episode in Redis; None if it was not asked.
        permit: The permit of a probe in Redis; 0 for none.
        openings: How often the circuit had opened, for the length of the next break.
    """

    __slots__ = ("episode", "local", "openings", "permit")

    def __init__(self, local: Ticket, answer: Answer | None) -> None:
        self.local: Ticket = local
        self.episode: int | None = None if answer is None else answer.episode
        self.permit: int = 0 if answer is None else answer.permit
        self.openings: int = 0 if answer is None else answer.openings


_Tell: TypeAlias = "Callable[[Change | None, WorkflowContext | None], None]"


class SharedCircuit:
    """Asks Redis, and follows what it says with the local circuit.

    The local circuit is told of all calls of this process, but only while Redis is away
    does it draw consequences. What must not be lost when a caller is cancelled is said
    to Redis in a task of its own; it ends with the limit on commands.

    Args:
        policy: The options of the breaker.
        namespace: What tells it from others in the same Redis.
        circuit: The local circuit.
        clock: The time of the local circuit.
        tell: Is told of changes, with the context of the call that has brought them.
    """

    def __init__(
        self,
        policy: Policy,
        namespace: str,
        circuit: Circuit,
        clock: LoopClock,
        tell: _Tell,
    ) -> None:
        self._link = link_to("storage", policy.storage)
        self._key = f"tta:breaker:{namespace}"
        self._policy = policy
        self._circuit = circuit
        self._clock = clock
        self._tell = tell
        self._errands: set[asyncio.Task[Any]] = set()
        self._is_away = False
        # What the local circuit stands for, and how it was when it was last heard of.
        self._followed: tuple[int, CircuitState] | None = None
        self._heard_at = 0
        self._failures_heard = 0

    async def admit(self, context: WorkflowContext) -> SharedTicket | None:
        """Return the ticket of a call; None if it is rejected."""
        answer = await self._ask(context)
        now, circuit = self._clock.now(), self._circuit
        if answer is None:
            self._move(circuit.awake(now), context)
            local = circuit.admit(now)
            return None if local is None else SharedTicket(local, None)
        self._follow(answer, context)
        if not answer.is_admitted:
            return None
        return SharedTicket(circuit.join(now), answer)

    async def settle(
        self, ticket: SharedTicket, vote: Vote | None, context: WorkflowContext
    ) -> None:
        """Count a call that has ended, or give its place back.

        Args:
            ticket: What it was admitted with.
            vote: What it says; None if it was cancelled, and must not wait any more.
            context: The view that the breaker was executed with.
        """
        if vote is None:
            self._free(ticket)
        elif ticket.episode is None:
            self._vote_here(ticket, vote, context)
        elif self._is_news(ticket, vote):
            report = self._report(ticket, ticket.episode, vote, context)
            await asyncio.shield(self._send(report))
        else:
            self._circuit.count(ticket.local, vote, self._clock.now())

    async def set(self, state: CircuitState, context: WorkflowContext | None) -> None:
        """Change the state by hand, in all processes.

        Raises:
            Exception: Redis could not be reached; only this process's has changed.
        """
        try:
            answer = await self._run(SET, state)
        except Exception:
            self._move(self._circuit.set(state, "by_hand"), context)
            raise
        self._follow(answer, context)

    async def _ask(self, context: WorkflowContext) -> Answer | None:
        """Ask Redis to admit a call; return None if it does not answer in time."""
        task = self._send(self._admit())
        deadline = context.deadline
        # A deadline that somebody enforces is left to whoever does it.
        limit = asyncio.timeout_at(None if type(deadline) is Enforced else deadline)
        answer = None
        try:
            async with limit:
                answer = await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - whatever it is, the local one decides
            if not limit.expired():
                self._note_failure(error, context)
        finally:
            if answer is None:
                # The permit that may come will not be used.
                task.add_done_callback(self._give_back)
            # Its error's traceback holds this frame, which must not hold it.
            del task
        return answer

    def _admit(self) -> Coroutine[Any, Any, Answer]:
        policy = self._policy
        timeout = _micro(policy.half_open_timeout or 0)
        return self._run(ADMIT, policy.half_open_max_calls, timeout)

    def _give_back(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        answer = task.result()
        if answer.permit:
            self._send(self._freed(answer.episode, answer.permit))

    def _free(self, ticket: SharedTicket) -> None:
        if isinstance(ticket.local, Probe):
            ticket.local.free()
        # A coroutine may be closed after its loop; then the permit expires by itself.
        has_loop = _get_running_loop() is not None
        if ticket.episode is not None and ticket.permit and has_loop:
            self._send(self._freed(ticket.episode, ticket.permit))

    async def _freed(self, episode: int, permit: int) -> None:
        # If Redis is away now, the permit expires by itself.
        with suppress(Exception):
            await self._run(FREE, episode, permit)

    def _is_news(self, ticket: SharedTicket, vote: Vote) -> bool:
        """Tell whether a vote changes anything, as far as this process has heard."""
        if ticket.permit or vote.is_bad:
            return True
        return vote.counts and (self._policy.is_rolling or self._failures_heard > 0)

    async def _report(
        self, ticket: SharedTicket, episode: int, vote: Vote, context: WorkflowContext
    ) -> None:
        permit = ticket.permit
        try:
            if vote.counts:
                arguments = self._arguments(ticket, vote)
                answer = await self._run(REPORT, episode, permit, *arguments)
            else:
                answer = await self._run(FREE, episode, permit)
        except Exception as error:  # noqa: BLE001 - as above
            self._note_failure(error, context)
            self._vote_here(ticket, vote, context)
        else:
            self._circuit.count(ticket.local, vote, self._clock.now())
            self._follow(answer, context)

    def _arguments(self, ticket: SharedTicket, vote: Vote) -> tuple[float, ...]:
        """Return what the script needs to draw the consequence of a vote."""
        policy = self._policy
        return (
            int(vote.failed),
            int(vote.slow),
            _micro(self._next_break(ticket) if vote.is_bad else 0),
            policy.threshold or 0,
            policy.success_threshold,
            _micro(policy.window / SLICES if policy.is_rolling else 0),
            policy.minimum_calls,
            policy.failure_rate or 0,
            policy.slow_call_rate or 0,
        )

    def _next_break(self, ticket: SharedTicket) -> float:
        last = self._circuit.break_seconds
        return self._policy.break_seconds(ticket.openings, last)

    def _vote_here(
        self, ticket: SharedTicket, vote: Vote, context: WorkflowContext
    ) -> None:
        """Let the local circuit draw the consequence of a call."""
        change = self._circuit.vote(ticket.local, vote, self._clock.now())
        self._move(change, context)

    def _move(self, change: Change | None, context: WorkflowContext | None) -> None:
        """Tell of a change that the local circuit has made on its own."""
        if change is not None:
            self._followed = None
            self._tell(change, context)

    def _follow(self, answer: Answer, context: WorkflowContext | None) -> None:
        """Bring the local circuit to the state that Redis tells of."""
        if 0 < self._heard_at - answer.at < _LATEST:
            return  # It was overtaken by a later one.
        self._note_success(answer, context)
        known = (answer.episode, answer.state)
        if known == self._followed:
            return
        self._followed = known
        change = self._circuit.follow(
            answer.state,
            self._clock.now(),
            answer.reason or "shared",
            left=answer.left,
            pause=answer.pause,
            openings=answer.openings,
        )
        self._tell(change, context)

    def _note_success(self, answer: Answer, context: WorkflowContext | None) -> None:
        self._heard_at = answer.at
        self._failures_heard = answer.failures
        self._is_away = False
        if answer.was_malformed and context is not None:
            emit(context, "breaker.storage_malformed")

    def _note_failure(self, error: Exception, context: WorkflowContext) -> None:
        emit(context, "breaker.storage_failed", error=error)
        if not self._is_away:
            self._is_away = True
            logger.warning(
                "the circuit breaker %s goes on without its storage: %r",
                self._key,
                error,
            )

    def _send(self, errand: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something that goes on when its caller is cancelled."""
        task = running_loop().create_task(errand, name="circuit breaker")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def _run(self, script: Script, *arguments: str | float) -> Answer:
        policy = self._policy
        keep = max(_KEEP_SECONDS, 2 * policy.window)
        found = await self._link.run(
            script, [self._key], (round(keep * 1000), *arguments)
        )
        return _answer(found)


def _micro(seconds: float) -> int:
    return max(1, round(seconds * _MICRO)) if seconds else 0


def _answer(found: Any) -> Answer:  # noqa: ANN401 - whatever Redis has answered
    """Read what a script has answered.

    Raises:
        ValueError: It is nothing that a script of ours answers.
    """
    try:
        admitted, state, episode, left, pause, *rest, reason, at, malformed = found
        openings, failures, permit = map(int, rest)
        return Answer(
            bool(admitted),
            _state(state),
            int(episode),
            int(left) / _MICRO,
            int(pause) / _MICRO,
            openings,
            failures,
            permit,
            str(reason, "ascii"),
            int(at),
            bool(malformed),
        )
    except (TypeError, ValueError) as error:
        msg = f"Redis has answered what no circuit breaker asks for: {found!r}"
        raise ValueError(msg) from error


def _state(found: Any) -> CircuitState:  # noqa: ANN401 - as above
    state = str(found, "ascii")
    if state not in _STATES:
        raise ValueError(state)
    return cast("CircuitState", state)
