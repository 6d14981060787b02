"""Backoff: delays as a pure function of the retry's number, within their bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recovery.doubles import Boom, Script, virtual
from tta_primitives import WorkflowContext
from tta_primitives.chance import seeded
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.recovery.backoff import Backoff


def delays(
    count, strategy="exponential", jitter="none", *, initial=1, factor=2, top=30
):
    """Return the first delays of a backoff."""
    backoff = Backoff(strategy, initial, factor, top, jitter)
    seen = []
    for number in range(1, count + 1):
        seen.append(backoff.delay(number, seen[-1] if seen else None))
    return seen


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("linear", [1, 2, 3, 4, 5, 6]),
        ("exponential", [1, 2, 4, 8, 16, 20]),
        ("fibonacci", [1, 1, 2, 3, 5, 8]),
        ("decorrelated", [3, 9, 20, 20, 20, 20]),
        ((0.1, 5, 0), [0.1, 5, 0, 0, 0, 0]),
        (lambda number: number**2, [1, 4, 9, 16, 20, 20]),
        (lambda number: math.inf, [20, 20, 20, 20, 20, 20]),
    ],
)
def test_case_08_strategies_grow_as_documented(strategy, expected):
    """Without jitter every delay is exact, and none exceeds the maximum of 20."""
    assert delays(6, strategy, top=20) == expected


@given(
    strategy=st.sampled_from(
        ["constant", "linear", "exponential", "fibonacci", "decorrelated"]
    ),
    jitter=st.sampled_from(["full", "equal", "none"]),
    initial=st.floats(0, 1e3),
    factor=st.floats(1, 1e3),
    top=st.floats(0, 1e3),
    seed=st.integers(),
)
def test_case_10_no_delay_is_negative_or_above_the_maximum(
    *, strategy, jitter, initial, factor, top, seed
):
    """The cap is never exceeded by any strategy with any jitter."""
    with seeded(seed):
        seen = delays(20, strategy, jitter, initial=initial, factor=factor, top=top)
    assert all(0 <= delay <= top for delay in seen)


@given(seed=st.integers())
def test_case_10_equal_jitter_waits_at_least_half(seed):
    """Equal jitter lies between half the backoff and the whole."""
    with seeded(seed):
        seen = delays(4, jitter="equal")
    assert all(
        cap / 2 <= delay <= cap for delay, cap in zip(seen, [1, 2, 4, 8], strict=True)
    )


@given(seed=st.integers())
def test_case_10_decorrelated_delays_lie_between_initial_and_three_times_the_last(seed):
    """Each delay is drawn from [initial, min(maximum, 3 * previous)]."""
    with seeded(seed):
        seen = delays(10, "decorrelated", "full")
    previous = 1
    for delay in seen:
        assert 1 <= delay <= min(30, 3 * previous)
        previous = delay


def test_case_10_full_jitter_is_spread_over_the_whole_range():
    """It reaches the lowest and the highest tenth, and one half on average."""
    backoff = Backoff("constant", 1, 2, 1, "full")
    with seeded(3):
        seen = [backoff.delay(1, None) for _ in range(2000)]
    assert min(seen) < 0.1
    assert max(seen) > 0.9
    assert sum(seen) / 2000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("strategy", ["exponential", "fibonacci", "linear"])
def test_the_ten_thousandth_retry_waits_the_maximum(strategy):
    """Numbers that overflow a float end at the cap, not in an error."""
    backoff = Backoff(strategy, 0.5, 2.0, 30.0, "none")
    assert backoff.delay(10_000, None) == 30
    assert Backoff(strategy, 0.0, 2.0, 30.0, "none").delay(10_000, None) == 0


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        ("soon", TypeError),
        (None, TypeError),
        (float("nan"), ValueError),
    ],
)
@virtual
async def test_a_strategy_function_that_returns_nonsense_is_named(clock, value, error):
    """The message shows the call and what it returned."""
    retried = RetryPrimitive(Script(Boom()), backoff_strategy=lambda number: value)
    with pytest.raises(error, match=rf"backoff_strategy\(1\)={value!r} must be"):
        await retried.execute("x", WorkflowContext())


@virtual
async def test_a_list_of_delays_may_have_a_zero(clock):
    """Two seconds once, and no waiting at all from then on."""
    retried = RetryPrimitive(
        Script(Boom(1), Boom(2), Boom(3), "ok"),
        max_retries=3,
        backoff_strategy=[2, 0],
        jitter="none",
    )
    assert await retried.execute("x", WorkflowContext()) == "ok"
    assert clock.elapsed == 2


@virtual
async def test_a_hint_does_not_feed_the_decorrelated_backoff(clock):
    """The next delay is drawn from the backoff before, not from what a server asked."""

    class Slow(Boom):
        retry_after = 50

    retried = RetryPrimitive(
        Script(Slow()), backoff_strategy="decorrelated", initial_delay=1, max_retries=2
    )
    with seeded(0), pytest.raises(Boom, match="boom"):
        await retried.execute("x", WorkflowContext())
    first, second = clock.sleeps.delays
    assert 51 <= first <= 53
    assert 51 <= second <= 50 + 3 * (first - 50)
