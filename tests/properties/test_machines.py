"""The state machines pass for our primitives, and find bugs that are planted here."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pytest_tta.properties.machines import (
    BulkheadMachine,
    CacheMachine,
    CircuitBreakerMachine,
    Machine,
    RateLimitMachine,
)
from tta_primitives import step
from tta_primitives.errors import BulkheadFullError, CircuitOpenError
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    RateLimitPrimitive,
)
from tta_primitives.recovery.circuit_state import Circuit

# The same examples each time: what they find does not depend on luck.
QUICK = settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=40,
    stateful_step_count=20,
)
HUNT = settings(
    QUICK,
    max_examples=400,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)


def run(base, kind, options=QUICK, **arguments):
    """Run a machine on one kind of primitive."""

    class Under(base):
        def make(self, step):
            return kind(step, **arguments)

    run_state_machine_as_test(Under, settings=options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 2},
        {"max_concurrency": 1, "max_queue": None},
        {"max_concurrency": 2, "max_queue": 2, "max_wait": 3.0},
    ],
    ids=str,
)
def test_a_bulkhead_of_ours_passes(options):
    """Slots, queue and waiting are as the model says."""
    run(BulkheadMachine, BulkheadPrimitive, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"failure_threshold": 2, "recovery_timeout": 10},
        {
            "failure_threshold": 1,
            "recovery_timeout": lambda opening: 5.0 * (opening + 1),
            "half_open_max_calls": 2,
            "success_threshold": 2,
            "half_open_timeout": 8.0,
        },
    ],
    ids=["usual", "quick", "all"],
)
def test_a_breaker_of_ours_passes(options):
    """Counting, breaks and probes are as the model says."""
    run(CircuitBreakerMachine, CircuitBreakerPrimitive, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"failure_rate": 0.5, "minimum_calls": 3, "window": 10},
        {"failure_rate": 0.4, "failure_threshold": 3, "minimum_calls": 2},
        {"slow_call_duration": 2, "slow_call_rate": 0.5, "minimum_calls": 2},
        {"slow_call_duration": 2, "slow_call_rate": 1, "minimum_calls": 1, "window": 4},
    ],
    ids=str,
)
def test_a_breaker_that_looks_at_rates_passes(options):
    """The window slides, slow calls count, and a slow probe opens it again."""
    run(CircuitBreakerMachine, CircuitBreakerPrimitive, **options)


ALGORITHMS = ["token_bucket", "leaky_bucket", "sliding_window"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "options",
    [
        {"key": lambda value: value % 2, "rate": 2},
        {"penalize_on": ConnectionError, "rate": 2, "max_wait": 1.5},
        {"penalize_on": (), "rate": 3, "period": 2},
        {"key": lambda value, context: str(value), "rate": 1, "max_wait": 3},
    ],
    ids=["keys", "any error", "no error", "all"],
)
def test_a_limit_with_keys_and_penalties_passes(algorithm, options):
    """A key has a limit of its own, and a complaint closes it for so long."""
    run(RateLimitMachine, RateLimitPrimitive, algorithm=algorithm, **options)


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
@pytest.mark.parametrize(
    "options",
    [{"rate": 2}, {"rate": 3, "period": 2, "max_wait": 1.5}, {"rate": 3, "burst": 5}],
    ids=str,
)
def test_a_bucket_of_ours_passes(algorithm, options):
    """Every call starts when the model says, to the microsecond."""
    run(RateLimitMachine, RateLimitPrimitive, algorithm=algorithm, **options)


@pytest.mark.parametrize("options", [{"rate": 2}, {"rate": 3, "max_wait": 0.5}])
def test_a_sliding_window_of_ours_passes(options):
    """No period has more starts than the rate."""
    run(RateLimitMachine, RateLimitPrimitive, algorithm="sliding_window", **options)


def odd_or_even(value, _loaded):
    """Return the tag of a value."""
    return ["odd" if value % 2 else "even"]


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 60},
        {"ttl": 0},
        {"ttl": 60, "single_flight": False},
        {"ttl": 60, "stale_ttl": 30, "early_refresh": 10},
        {"ttl": 60, "stale_if_error": 30},
        {"ttl": 60, "negative_ttl": 20, "negative_on": ConnectionError},
        {"ttl": 60, "negative_ttl": 90, "negative_on": ValueError},
        {
            "ttl": 60,
            "negative_ttl": 20,
            "negative_on": ConnectionError,
            "stale_if_error": 30,
        },
        {"ttl": 60, "ttl_jitter": 0.5},
        {"ttl": 60, "tags": ("all",)},
        {"ttl": 60, "tags": odd_or_even, "stale_ttl": 20},
    ],
    ids=" ".join,
)
def test_a_cache_of_ours_passes(options):
    """Hits, loads and their sharing are as the model says."""
    run(CacheMachine, CachePrimitive, **options)


class LeaksOnCancel(BulkheadPrimitive):
    """Gives no slot back if its call is cancelled."""

    async def execute(self, input_data, context, /):
        """Execute, and keep the slot after a cancellation."""
        try:
            return await super().execute(input_data, context)
        except asyncio.CancelledError:
            self._slots.active += 1
            raise


class ForgetsQueue(BulkheadPrimitive):
    """Rejects instead of queueing."""

    async def execute(self, input_data, context, /):
        """Look first whether there is a slot."""
        if self._slots.active >= self.max_concurrency:
            msg = "full"
            raise BulkheadFullError(msg)
        return await super().execute(input_data, context)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (LeaksOnCancel, r"is 'waiting' at 0 s and must be 'inside'"),
        (ForgetsQueue, r"caller 3 is 'rejected' at 0 s and must be 'waiting'"),
    ],
)
def test_bugs_of_bulkheads_are_found(kind, text):
    """And shrunk to as few callers as it takes."""
    with pytest.raises(AssertionError, match=text):
        run(BulkheadMachine, kind, HUNT, max_concurrency=2, max_queue=3)


class TwoProbes(CircuitBreakerPrimitive):
    """Admits everybody while it is half-open."""

    def _admit(self, context):
        try:
            return super()._admit(context)
        except CircuitOpenError:
            if self.state != "half_open":
                raise
            return self._circuit.episode.add(self._clock.now())


class NoReset(CircuitBreakerPrimitive):
    """Goes on counting failures after a success."""

    async def execute(self, input_data, context, /):
        """Execute, and set the count back to what it was."""
        episode = self._circuit.episode
        before = getattr(episode, "failures", 0)
        output = await super().execute(input_data, context)
        if self._circuit.episode is episode:
            episode.failures = max(before, episode.failures)
        return output


class CountsCancellation(CircuitBreakerPrimitive):
    """Takes a cancellation for a failure."""

    async def execute(self, input_data, context, /):
        """Execute, and count what is no failure."""
        try:
            return await super().execute(input_data, context)
        except asyncio.CancelledError:
            self._settle(self._circuit.episode, self._counted(True, False), context)
            raise


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (TwoProbes, r"is 'inside' at 30 s and must be 'rejected': .* half-open, and 1"),
        (NoReset, r"is 'open' and must be 'closed'"),
        (CountsCancellation, r"is 'open' and must be 'closed'"),
    ],
)
def test_bugs_of_breakers_are_found(kind, text):
    """The message tells where a call stands, and why it should not."""
    with pytest.raises(AssertionError, match=text):
        run(CircuitBreakerMachine, kind, HUNT, failure_threshold=2)


class NeverSlow(CircuitBreakerPrimitive):
    """Does not look at how long a call took."""

    def _is_slow(self, started):
        return False


class RemembersAll(CircuitBreakerPrimitive):
    """Counts calls that have left the window long ago."""

    def _wrap(self, primitive):
        super()._wrap(primitive)
        policy = replace(self._policy, window=100 * self._policy.window)
        self._circuit = Circuit(policy, is_plain=True)


class JudgesAtOnce(CircuitBreakerPrimitive):
    """Does not wait until there are enough calls for a rate."""

    def _wrap(self, primitive):
        super()._wrap(primitive)
        policy = replace(self._policy, minimum_calls=1)
        self._circuit = Circuit(policy, is_plain=True)


RATES = {"failure_rate": 0.5, "minimum_calls": 3, "window": 10}
SLOW = {"slow_call_duration": 2, "slow_call_rate": 1, "minimum_calls": 1}


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (NeverSlow, SLOW, r"is 'closed' and must be 'open'"),
        (RemembersAll, RATES, r"is 'open' and must be 'closed'"),
        (JudgesAtOnce, RATES, r"is 'open' and must be 'closed'"),
    ],
)
def test_bugs_of_rates_are_found(kind, options, text):
    """Slow calls, the window, and how many calls a rate needs."""
    with pytest.raises(AssertionError, match=text):
        run(CircuitBreakerMachine, kind, HUNT, **options)


class OneForAll(RateLimitPrimitive):
    """Has one limit for all keys, whatever its options say."""

    async def _admission(self, input_data, context):
        self._ask_key = lambda *_: "all"
        return await super()._admission(input_data, context)


class Deaf(RateLimitPrimitive):
    """Does not hear what the server complains of."""

    def _asked_to_pause(self, error):
        return None


class Generous(RateLimitPrimitive):
    """Lets a whole burst start when a penalty is over."""

    async def _learn(self, error, key, context):
        await super()._learn(error, key, context)
        lane = self._by_loop.here().lane(key, asyncio.get_running_loop().time())
        lane.bucket._spent = 0.0
        lane.bucket._since = lane.bucket.full_at = lane.bucket.closed_until


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (
            OneForAll,
            {"key": lambda value: value, "rate": 1},
            r"is 'waiting' at 0 s and must be 'inside'",
        ),
        (Deaf, {"rate": 2}, r"is 'inside' at .* s and must be 'waiting'"),
        (Generous, {"rate": 2}, r"is 'inside' at .* s and must be 'waiting'"),
    ],
)
def test_bugs_of_keys_and_penalties_are_found(kind, options, text):
    """A limit that all share, a complaint that nobody hears, one that helps nobody."""
    with pytest.raises(AssertionError, match=text):
        run(RateLimitMachine, kind, HUNT, **options)


class TooLargeBurst(RateLimitPrimitive):
    """Lets one more start at once than the rate allows."""

    def _capacity(self):
        return super()._capacity() + 1


class LateAfterCancel(RateLimitPrimitive):
    """Spends the units of a call that was cancelled while it waited."""

    async def _wait(self, waiter):
        try:
            return await super()._wait(waiter)
        except asyncio.CancelledError:
            waiter._lane.bucket.take(asyncio.get_running_loop().time(), waiter.cost)
            waiter._lane._arm(asyncio.get_running_loop().time())
            raise


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (TooLargeBurst, r"caller 3 is 'inside' at 0 s and must be 'waiting'"),
        (LateAfterCancel, r"is 'waiting' at .* s and must be 'inside'"),
    ],
)
def test_bugs_of_rate_limits_are_found(kind, text):
    """Calls that start too early, and too late."""
    with pytest.raises(AssertionError, match=text):
        run(RateLimitMachine, kind, HUNT, rate=2)


class StaleHit(CachePrimitive):
    """Keeps values for twice as long as it was told."""

    def _record(self, load, input_data, value, slip):
        record = super()._record(load, input_data, value, slip)
        fresh, kept = 2 * record.fresh_for, 2 * record.kept_for
        return record._replace(fresh_for=fresh, kept_for=kept)


class NoSingleFlight(CachePrimitive):
    """Loads for each caller, whatever its options say."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._policy = replace(self._policy, single_flight=False)


class KeepsInvalidated(CachePrimitive):
    """Keeps a value that was invalidated while it was being loaded."""

    def _forget(self, key):
        """Do nothing about loads that are under way."""


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (StaleHit, r"is 'returned' at 60 s and must be 'waiting': there is no fresh"),
        (NoSingleFlight, r"is loading \[0, 0\] at 0 s, and must be loading \[0\]"),
        (KeepsInvalidated, r"is loading \[0\] at 0 s, and must be loading \[0, 0\]"),
    ],
)
def test_bugs_of_caches_are_found(kind, text):
    """Stale hits, loads too many, stale writes."""
    with pytest.raises(AssertionError, match=text):
        run(CacheMachine, kind, HUNT, ttl=60)


class KeepsErrors(CachePrimitive):
    """Keeps an error for as long as a value."""

    def _remember(self, load, error):
        policy = self._policy
        self._policy = replace(policy, negative_ttl=policy.ttl)
        super()._remember(load, error)
        self._policy = policy


class ForgetsErrors(CachePrimitive):
    """Loads again although an error is remembered."""

    def _raise_remembered(self, key, context):
        """Do nothing."""


class LivesLonger(CachePrimitive):
    """Lengthens lives by chance instead of shortening them."""

    def _record(self, load, input_data, value, slip):
        record = super()._record(load, input_data, value, slip)
        longer = 2 * self._policy.ttl - record.fresh_for
        return record._replace(fresh_for=longer, kept_for=longer)


class ForgetsTags(CachePrimitive):
    """Keeps what is being loaded while its tag is invalidated."""

    def _void_tagged(self, tags):
        """Do nothing."""


ERRORS = {"ttl": 60, "negative_ttl": 20, "negative_on": ConnectionError}


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (KeepsErrors, ERRORS, r"is 'failed' at \d+ s and must be 'waiting'"),
        (ForgetsErrors, ERRORS, r"is 'waiting' at 0 s and must be 'failed': its error"),
        (
            LivesLonger,
            {"ttl": 60, "ttl_jitter": 0.5},
            r"is 'returned' at \d+ s and must be 'waiting'",
        ),
        (ForgetsTags, {"ttl": 60, "tags": ("a",)}, r"must be loading \[0, 0\]"),
    ],
)
def test_bugs_of_errors_lives_and_tags_are_found(kind, options, text):
    """Errors kept too long or not at all, lives too long, stale writes under a tag."""
    with pytest.raises(AssertionError, match=text):
        run(CacheMachine, kind, HUNT, **options)


def test_a_machine_without_a_primitive_says_what_to_define():
    """The sentence has the line to write."""
    with pytest.raises(NotImplementedError, match=r"must define make\(self, step\)"):
        CacheMachine()


@pytest.mark.parametrize("made", [None, CachePrimitive(step(str), ttl=1)])
def test_what_is_no_primitive_around_the_step_is_refused(made):
    """Nobody could answer it."""

    class Wrong(CacheMachine):
        def make(self, step):
            return made

    with pytest.raises(TypeError, match=r"Wrong.make\(step\) returned .*, and must"):
        Wrong()


@pytest.mark.parametrize(
    ("base", "primitive", "text"),
    [
        (
            CacheMachine,
            lambda step: CachePrimitive(step, ttl=1, key_fn=str),
            r"has no model of key_fn= of .*; it knows ttl, stale_ttl",
        ),
        (
            CacheMachine,
            lambda step: CachePrimitive(step, ttl=1, max_size=2),
            r"has no model of .*: it knows .* a max_size of at least 3",
        ),
        (
            CacheMachine,
            lambda step: CachePrimitive(step, ttl=9, ttl_jitter=0.5, stale_ttl=1),
            r"has no model of .*: it knows ttl_jitter only without stale_ttl",
        ),
        (
            CircuitBreakerMachine,
            lambda step: CircuitBreakerPrimitive(step, record_on=OSError),
            r"has no model of record_on= of",
        ),
    ],
)
def test_options_without_a_model_are_refused(base, primitive, text):
    """A model that knows less than the primitive does would find bugs in nothing."""

    class Under(base):
        def make(self, step):
            return primitive(step)

    with pytest.raises(TypeError, match=text):
        Under()


def test_all_machines_have_one_base():
    """What is theirs alone is the model."""
    machines = (BulkheadMachine, CacheMachine, CircuitBreakerMachine, RateLimitMachine)
    assert all(issubclass(one, Machine) for one in machines)
