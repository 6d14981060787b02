"""The states of a circuit breaker, and what leads from one to another.

Nothing here waits, reads a clock or tells anybody: times come in as numbers, changes go
out as records. A *ticket* is what a call gets when it is admitted. It belongs to one
episode (a period in which the circuit is closed, or one in which it is half-open), and
when that is over, what becomes of the call has no vote any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from tta_primitives.recovery.circuit_windows import Window

if TYPE_CHECKING:
    from tta_primitives.recovery.circuit_policy import CircuitState, Policy, Vote

__all__ = [
    "Change",
    "Circuit",
    "Closed",
    "Episode",
    "HalfOpen",
    "Isolated",
    "Open",
    "Probe",
    "Ticket",
]


class Change(NamedTuple):
    """The circuit has gone from one state to another.

    Attributes:
        before: The state that has ended.
        after: The state that has begun.
        reason: Why, in the words of `CircuitStateChange`.
        detail: What observers are told besides.
    """

    before: CircuitState
    after: CircuitState
    reason: str
    detail: dict[str, Any]


class Closed:
    """Calls pass and are counted; it is the ticket of all of them.

    Attributes:
        failures: How many there were in a row.
        window: The calls of the last seconds; None if nobody asks for them.
    """

    __slots__ = ("failures", "window")

    state: ClassVar[CircuitState] = "closed"

    def __init__(self, policy: Policy) -> None:
        self.failures: int = 0
        self.window: Window | None = (
            Window(policy.window) if policy.is_rolling else None
        )

    def count(self, vote: Vote, now: float) -> None:
        """Count a call that has ended."""
        self.failures = self.failures + 1 if vote.failed else 0
        window = self.window
        if window is not None:
            if now >= window.turns_at:
                window.turn(now)
            window.calls += 1
            window.failures += vote.failed
            window.slow += vote.slow

    def why_open(self, policy: Policy) -> tuple[str, dict[str, Any]] | None:
        """Return the reason to open, with the figures behind it, if there is one."""
        if policy.threshold is not None and self.failures >= policy.threshold:
            return "failures", {"failures": self.failures}
        window = self.window
        if window is None or window.calls < policy.minimum_calls:
            return None
        # Quotients, because 0.07 * 100 is a hair above 7.
        rate = policy.failure_rate
        if rate is not None and window.failures / window.calls >= rate:
            return "failure_rate", {"failures": window.failures, "calls": window.calls}
        rate = policy.slow_call_rate
        if rate is not None and window.slow / window.calls >= rate:
            return "slow_call_rate", {"slow": window.slow, "calls": window.calls}
        return None


class Open:
    """Calls are rejected until the break is over."""

    __slots__ = ("until",)

    state: ClassVar[CircuitState] = "open"

    def __init__(self, until: float) -> None:
        self.until: float = until

    def left(self, now: float) -> float:
        """Return the seconds until the next probe; 0.0 if one is due."""
        # To the nanosecond: whoever sleeps exactly so long must not come too early.
        return max(0.0, round(self.until - now, 9))


class HalfOpen:
    """A few calls at a time are admitted as probes.

    Attributes:
        probes: Those under way, the oldest first.
        successes: How many have succeeded.
    """

    __slots__ = ("_most", "_timeout", "probes", "successes")

    state: ClassVar[CircuitState] = "half_open"

    def __init__(self, most: int, timeout: float) -> None:
        self.probes: dict[Probe, None] = {}
        self.successes: int = 0
        self._most = most
        self._timeout = timeout

    def admit(self, now: float) -> Probe | None:
        """Return a probe if there is room, or one that hangs must give way."""
        if len(self.probes) >= self._most:
            oldest = next(iter(self.probes))
            if round(oldest.expires_at - now, 9) > 0:
                return None
            del self.probes[oldest]
        return self.add(now)

    def add(self, now: float) -> Probe:
        """Return a probe that somebody else has admitted."""
        probe = Probe(self, now + self._timeout)
        self.probes[probe] = None
        return probe


class Probe:
    """The ticket of one call while the circuit is half-open.

    Attributes:
        episode: The half-open episode that it belongs to.
        expires_at: When it has to give way to another, if there is one.
    """

    __slots__ = ("episode", "expires_at")

    def __init__(self, episode: HalfOpen, expires_at: float) -> None:
        self.episode: HalfOpen = episode
        self.expires_at: float = expires_at

    def free(self) -> bool:
        """Make room for another; tell whether it has not been made before."""
        return self.episode.probes.pop(self, self) is None


class Isolated:
    """Calls are rejected until somebody closes the circuit."""

    __slots__ = ()

    state: ClassVar[CircuitState] = "isolated"


Episode: TypeAlias = Closed | Open | HalfOpen | Isolated
Ticket: TypeAlias = Closed | Probe


class Circuit:
    """The state of one bound breaker, and how often what has happened to it.

    Attributes:
        episode: The present state.
        plain: The present state, if it is closed and a call needs no more than to be
            counted when it ends.
        openings: How often it has opened since it was last closed.
        break_seconds: How long the last break was, or the first will be.
        calls: Calls that were admitted.
        successes: How many of them have succeeded.
        failures: How many have failed.
        ignored: How many have ended in an error that says nothing.
        slow: How many took too long.
        rejected: Calls that were not admitted.
        opened: How often it has opened.
    """

    __slots__ = (
        "_is_plain",
        "_policy",
        "break_seconds",
        "calls",
        "episode",
        "failures",
        "ignored",
        "opened",
        "openings",
        "plain",
        "rejected",
        "slow",
        "successes",
    )

    episode: Episode
    plain: Closed | None

    def __init__(self, policy: Policy, *, is_plain: bool) -> None:
        self.calls: int = 0
        self.successes: int = 0
        self.failures: int = 0
        self.ignored: int = 0
        self.slow: int = 0
        self.rejected: int = 0
        self.opened: int = 0
        self._policy = policy
        self._is_plain = is_plain
        self.openings: int = 0
        self.break_seconds: float = policy.first_break
        self._begin(Closed(policy))

    def _begin(self, episode: Episode) -> CircuitState:
        """Begin a state; return the one before."""
        before = getattr(self, "episode", episode).state
        self.episode = episode
        is_plain = self._is_plain and isinstance(episode, Closed)
        self.plain = episode if is_plain else None  # type: ignore[assignment]
        return before

    def admit(self, now: float) -> Ticket | None:
        """Return the ticket of a call; None if it is rejected."""
        episode = self.episode
        if isinstance(episode, Closed):
            return episode
        return episode.admit(now) if isinstance(episode, HalfOpen) else None

    def left(self, now: float) -> float | None:
        """Return the seconds until the next probe, if the circuit is open."""
        episode = self.episode
        return episode.left(now) if isinstance(episode, Open) else None

    def awake(self, now: float) -> Change | None:
        """Go on to half-open if the break is over."""
        if self.left(now) != 0.0:
            return None
        return self.half_open("recovery_timeout")

    def vote(self, ticket: Ticket, vote: Vote, now: float) -> Change | None:
        """Draw the consequence of a call that has ended, if it still has a vote."""
        if isinstance(ticket, Probe):
            return self._vote_of_probe(ticket, vote, now)
        if ticket is not self.episode or not vote.counts:
            return None
        ticket.count(vote, now)
        why = ticket.why_open(self._policy) if vote.is_bad else None
        return None if why is None else self.open(now, *why)

    def _vote_of_probe(self, probe: Probe, vote: Vote, now: float) -> Change | None:
        episode = probe.episode
        has_vote = probe.free() and episode is self.episode
        if not has_vote or not vote.counts:
            return None
        if vote.is_bad:
            return self.open(now, "probe_failed", {})
        episode.successes += 1
        if episode.successes < self._policy.success_threshold:
            return None
        return self.close("probes_succeeded")

    def count(self, ticket: Ticket, vote: Vote, now: float) -> None:
        """Count a call that has ended; others draw the consequence."""
        if isinstance(ticket, Probe):
            ticket.free()
        elif vote.counts:
            ticket.count(vote, now)

    def join(self, now: float) -> Ticket:
        """Return the ticket of a call that others have admitted."""
        episode = self.episode
        if isinstance(episode, HalfOpen):
            return episode.add(now)
        # If it is neither, the state has changed since; this vote is for nothing.
        return episode if isinstance(episode, Closed) else Closed(self._policy)

    def follow(
        self,
        state: CircuitState,
        now: float,
        reason: str,
        *,
        left: float,
        pause: float,
        openings: int,
    ) -> Change | None:
        """Go to the state that the circuit of all processes is in.

        Args:
            state: That state.
            now: The time.
            reason: Why.
            left: Seconds until the next probe, if it is open.
            pause: How long the break was or will be, in seconds; 0 if there is none.
            openings: How often it has opened since it was last closed.
        """
        self.openings = openings
        self.break_seconds = pause or self._policy.first_break
        if state == "open":
            change: Change | None = self.open_for(left, now, reason, {})
        elif state == "half_open":
            change = self.half_open(reason)
        else:
            change = self.set(state, reason)
        # Between two calls of this process it may have opened, say, and again.
        return None if change is None or change.before == state else change

    def set(self, state: CircuitState, reason: str) -> Change | None:
        """Go to `"closed"` or `"isolated"`."""
        return self.close(reason) if state == "closed" else self.isolate(reason)

    def open(self, now: float, reason: str, figures: dict[str, Any]) -> Change:
        """Reject calls until a break is over."""
        opening = self.openings
        self.break_seconds = self._policy.break_seconds(opening, self.break_seconds)
        self.openings = opening + 1
        return self.open_for(self.break_seconds, now, reason, figures)

    def open_for(
        self, left: float, now: float, reason: str, figures: dict[str, Any]
    ) -> Change:
        """Reject calls for so many seconds from now."""
        self.opened += 1
        before = self._begin(Open(round(now + left, 9)))
        detail = {"retry_after": left, "opening": self.openings, **figures}
        return Change(before, "open", reason, detail)

    def half_open(self, reason: str) -> Change:
        """Admit probes."""
        policy = self._policy
        timeout = policy.half_open_timeout or self.break_seconds
        before = self._begin(HalfOpen(policy.half_open_max_calls, timeout))
        return Change(before, "half_open", reason, {})

    def close(self, reason: str) -> Change | None:
        """Admit all calls and forget the past."""
        self.openings = 0
        before = self._begin(Closed(self._policy))
        return None if before == "closed" else Change(before, "closed", reason, {})

    def isolate(self, reason: str) -> Change | None:
        """Reject all calls until the circuit is closed by hand."""
        self.openings = 0
        before = self._begin(Isolated())
        return None if before == "isolated" else Change(before, "isolated", reason, {})
