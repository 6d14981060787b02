"""The tree of errors: what a caller may catch them by."""

from __future__ import annotations

import copy
import pickle

import pytest

from tta_primitives import errors

EVERY = [getattr(errors, name) for name in errors.__all__]


def made(kind):
    """Return an error of this kind with what it needs."""
    if issubclass(kind, ExceptionGroup):
        return kind("failed", [ValueError(1), KeyError(2)])
    if kind is errors.TimeoutExceededError:
        return kind("failed", timeout_seconds=1.5)
    if kind is errors.RetryResultError:
        return kind("failed", last_result=[1])
    if issubclass(kind, errors.ExecutionRejectedError):
        return kind("failed", retry_after=2.5)
    return kind("failed")


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_a_primitive_error(kind) -> None:
    """One name catches all that the library raises of its own accord."""
    assert issubclass(kind, errors.PrimitiveError)
    assert issubclass(kind, Exception)


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (errors.CircuitIsolatedError, (errors.CircuitOpenError,)),
        (errors.CircuitOpenError, (errors.ExecutionRejectedError,)),
        (errors.BulkheadFullError, (errors.ExecutionRejectedError,)),
        (errors.RateLimitExceededError, (errors.ExecutionRejectedError,)),
        (errors.TimeoutExceededError, (TimeoutError,)),
        (errors.CacheKeyError, (TypeError,)),
        (errors.NoRouteError, (LookupError,)),
        (errors.OpenWrapperError, (TypeError,)),
        (errors.UnboundStepError, (TypeError,)),
        (errors.FallbackExhaustedError, (ExceptionGroup,)),
        (errors.SagaCompensationError, (ExceptionGroup,)),
    ],
)
def test_errors_are_what_a_caller_would_catch_anyway(kind, bases) -> None:
    """Each is also the builtin that fits."""
    assert issubclass(kind, bases)


def test_what_an_error_knows_is_on_it() -> None:
    """Seconds to wait, the limit that expired, the last result."""
    assert made(errors.CircuitOpenError).retry_after == 2.5
    assert errors.BulkheadFullError("full").retry_after is None
    assert made(errors.TimeoutExceededError).timeout_seconds == 1.5
    assert made(errors.RetryResultError).last_result == [1]


@pytest.mark.parametrize(
    "kind", [errors.FallbackExhaustedError, errors.SagaCompensationError]
)
def test_groups_stay_of_their_kind(kind) -> None:
    """`except*` and `split` give parts of the same kind."""
    matching, rest = made(kind).split(ValueError)
    assert (type(matching), type(rest)) == (kind, kind)
    assert [str(error) for error in matching.exceptions] == ["1"]


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    "twin", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_errors_travel_between_processes(kind, twin) -> None:
    """Workers of a pool send them as they are, with what they know."""
    error = made(kind)
    other = twin(error)
    assert type(other) is kind
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_the_tree_is_drawn_in_the_modules_docstring() -> None:
    """Every error stands there once."""
    drawn = errors.__doc__
    assert [kind.__name__ for kind in EVERY if kind.__name__ not in drawn] == []
