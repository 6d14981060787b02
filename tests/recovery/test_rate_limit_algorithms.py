"""The arithmetic of rate limits, beside fractions that are exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_primitives.recovery.rate_algorithms import SLACK, Limit

ALGORITHMS = ["token_bucket", "leaky_bucket", "sliding_window"]
# Halves of a nanosecond are what floats and rounding may add.
CLOSE = Fraction(2, 10**9)


class Exact:
    """What a limit allows, in fractions, from the list of all starts alone."""

    def __init__(self, algorithm, rate, period, capacity):
        self.algorithm = algorithm
        self.pace = Fraction(period) / Fraction(rate)
        self.period = Fraction(period)
        self.capacity = Fraction(capacity)
        self.starts = []

    def due(self, now, cost):
        """Return when a call may start, by going through all starts so far."""
        return getattr(self, f"_{self.algorithm}")(Fraction(now), Fraction(cost))

    def _token_bucket(self, now, cost):
        units, at = self.capacity, Fraction(-(10**9))
        for start, taken in self.starts:
            units = min(self.capacity, units + (start - at) / self.pace) - taken
            at = start
        return max(now, at + max(0, cost - units) * self.pace)

    def _leaky_bucket(self, now, cost):
        free_at = Fraction(-(10**9))
        for start, taken in self.starts:
            free_at = max(free_at, start) + taken * self.pace
        return max(now, free_at)

    def _sliding_window(self, now, cost):
        moments = sorted({now, *(start + self.period for start, _ in self.starts)})
        for moment in moments:
            inside = sum(t for s, t in self.starts if s + self.period > moment)
            if moment >= now and inside + cost <= self.capacity:
                return moment
        raise AssertionError


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=60, deadline=None)
@given(
    rate=st.integers(1, 7),
    period=st.sampled_from([1, 3, 60]),
    calls=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(1, 7)), min_size=1, max_size=25
    ),
)
def test_starts_are_where_fractions_put_them(algorithm, rate, period, calls):
    """Calls of whole costs at whole milliseconds, each waiting for its start."""
    bucket = Limit(algorithm, rate, period, rate).bucket()
    exact = Exact(algorithm, rate, period, rate)
    now = Fraction(0)
    for pause, units in calls:
        now += Fraction(pause, 1000)
        cost = min(units, rate)
        expected = exact.due(now, cost)
        found = max(float(now), bucket.due(float(now), cost))
        assert abs(Fraction(found) - expected) <= CLOSE
        assert bucket.enter(float(now), cost) == (expected - now <= CLOSE)
        if expected - now > CLOSE:
            bucket.take(found, cost)
            now = expected
        exact.starts.append((now, Fraction(cost)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("rate", "period"), [(3, 1), (7, 60), (2.5, 1), (1e5, 60)])
def test_100_000_starts_do_not_drift(algorithm, rate, period):
    """The last one is as near to where it belongs as a float can be."""
    capacity = max(1, rate)
    bucket, now = Limit(algorithm, rate, period, capacity).bucket(), 0.0
    for _ in range(100_000):
        now = max(now, bucket.due(now, 1))
        assert bucket.enter(now, 1)
    pace = Fraction(period) / Fraction(rate)
    expected = {
        "token_bucket": (100_000 - Fraction(capacity)) * pace,
        "leaky_bucket": 99_999 * pace,
        "sliding_window": Fraction(99_999 // int(rate) * period),
    }
    assert abs(Fraction(now) - expected[algorithm]) <= CLOSE


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
def test_starts_at_whole_nanoseconds_do_not_drift(algorithm):
    """A hair before or after the moment that was due is that moment."""
    bucket, now = Limit(algorithm, 3, 1.0, 1).bucket(), 0.0
    for _ in range(30_000):
        now = round(max(now, bucket.due(now, 1)), 9)
        assert bucket.enter(now, 1)
    assert bucket.full_at == pytest.approx(10_000, abs=1e-8)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_given_back_was_never_taken(algorithm):
    """The state is the same as without it, whatever came in between."""
    limit = Limit(algorithm, 4, 1.0, 4)
    with_it, without = limit.bucket(), limit.bucket()
    for bucket in (with_it, without):
        assert bucket.enter(0.0, 1)
    if algorithm != "leaky_bucket":
        with_it.take(0.1, 2)
        with_it.take(0.1, 1)
        with_it.give_back(0.1, 2)
        without.take(0.1, 1)
    else:
        with_it.take(0.25, 2)
        with_it.give_back(0.25, 2)
    for cost in (1, 2, 3, 4):
        assert with_it.due(0.3, cost) == pytest.approx(without.due(0.3, cost))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_given_back_after_a_penalty_does_not_undo_it(algorithm):
    """A penalty has emptied the bucket since."""
    bucket = Limit(algorithm, 4, 1.0, 4).bucket()
    bucket.take(0.0, 1)
    bucket.penalize(5.0)
    before = [bucket.due(0.0, 1), bucket.due(5.0, 1), bucket.due(5.0, 3)]
    bucket.give_back(0.0, 1)
    after = [bucket.due(0.0, 1), bucket.due(5.0, 1), bucket.due(5.0, 3)]
    assert after == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("capacity", [0.5, 1, 10])
def test_nobody_enters_before_a_penalty_is_over(algorithm, capacity):
    """However little a call costs, and however full the bucket was."""
    bucket = Limit(algorithm, capacity, 1.0, capacity).bucket()
    bucket.penalize(5.0)
    assert not bucket.enter(5 - 1e-6, capacity / 100)
    assert bucket.available(4.9) == 0
    assert bucket.due(4.0, capacity / 100) == 5
    assert bucket.enter(5.0, capacity / 100)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_bucket_is_idle_when_it_is_as_good_as_new(algorithm):
    """Then it may be forgotten; a moment before, it may not."""
    limit = Limit(algorithm, 2, 1.0, 2)
    bucket = limit.bucket()
    bucket.take(10.0, 1)
    idle_at = {"token_bucket": 10.5, "leaky_bucket": 10.5, "sliding_window": 11.0}
    assert bucket.idle_at() == idle_at[algorithm]
    bucket.penalize(50.0)
    assert bucket.idle_at() >= 50.0


def test_an_empty_leaky_bucket_has_room_for_all_that_it_holds():
    """However much runs out of it in a second."""
    bucket = Limit("leaky_bucket", 10, 1.0, 5).bucket()
    assert bucket.has_room(0.0, 5)
    assert bucket.enter(0.0, 1)
    assert [bucket.has_room(0.0, waiting) for waiting in (4, 5)] == [True, False]


def test_what_has_left_a_window_is_available_again():
    """Each start as soon as it is a period ago, the others not."""
    bucket = Limit("sliding_window", 5, 1.0, 5).bucket()
    for start in (0.0, 0.5, 0.6, 0.7):
        assert bucket.enter(start, 1)
    assert [bucket.available(now) for now in (0.9, 1.0, 1.5)] == [1, 2, 3]


def test_a_window_remembers_no_more_than_a_period():
    """What has left is dropped, however long it goes on."""
    window = Limit("sliding_window", 100, 1.0, 100).bucket()
    now = 0.0
    for _ in range(10_000):
        now = max(now, window.due(now, 1))
        window.take(now, 1)
        now += 0.003
    assert len(window._times) == len(window._sums) <= 301


def test_a_hair_is_no_wait():
    """What a timer of floats is early by does not count."""
    for algorithm in ALGORITHMS:
        bucket = Limit(algorithm, 1, 1.0, 1).bucket()
        assert bucket.enter(0.0, 1)
        assert not bucket.enter(1 - 3 * SLACK, 1)
        assert bucket.enter(1 - SLACK / 2, 1)
