"""Hypothesis strategies for what can happen to a workflow and how it is configured.

Each shrinks toward the plain workflow: no fault, no retry, the first place, the longest
time limit. What a failing example prints can be pasted into a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from pytest_tta.faults.catalogue import cancel, fail, hang, lost_ack, returns, slow
from pytest_tta.faults.plan import FaultPlan, FaultRule
from pytest_tta.faults.schedules import always, every, first, nth
from pytest_tta.paths import check_place
from pytest_tta.properties.drawing import dictionaries, packed, triples
from pytest_tta.properties.needed import needed_hypothesis
from tta_primitives.arguments import check_choice, check_count, seconds
from tta_primitives.primitive import WorkflowPrimitive, positions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from hypothesis.strategies import DrawFn, SearchStrategy

    from pytest_tta.faults.catalogue import Fault

__all__ = ["checked_places", "errors", "fault_plans", "retry_policies", "timeouts"]

Kind: TypeAlias = Literal["fail", "lost_ack", "slow", "hang", "cancel", "returns"]

_TYPES = (ConnectionError, TimeoutError, OSError, RuntimeError, ValueError)
# Cancellation ends the test's own run, and wrong values must be given: both are asked
# for by name.
_USUAL_KINDS: tuple[Kind, ...] = ("fail", "lost_ack", "slow", "hang")
_DELAYS = (0.1, 1.0, 10.0, 60.0, 600.0)
_SCHEDULES = (
    first(1),
    nth(2),
    first(2),
    nth(3),
    first(3),
    # Next to what it shrinks to: a byte goes down by one as long as that fails as well.
    always(),
    every(2),
    every(3),
)
_MILLISECONDS = 1000
_STRATEGIES = ("constant", "linear", "exponential", "fibonacci", "decorrelated")
_JITTERS = ("none", "full", "equal")


def errors(*, types: Sequence[type[Exception]] = _TYPES) -> SearchStrategy[Exception]:
    """Generate errors that a step may raise.

    Args:
        types: Their classes, the plainest first; each is made with one text.

    Raises:
        TypeError: One is no class of exceptions.
        ValueError: There is none.
    """
    kinds = _checked_types(types)
    st = needed_hypothesis().strategies
    made: SearchStrategy[Exception] = st.sampled_from(kinds).map(_made)
    return made


def _made(kind: type[Exception]) -> Exception:
    return kind("injected")


def timeouts(
    *,
    min_seconds: float | timedelta = 0.001,
    max_seconds: float | timedelta = 60.0,
) -> SearchStrategy[float]:
    """Generate time limits in whole milliseconds, the longest being the plainest.

    Args:
        min_seconds: The shortest, at least a millisecond.
        max_seconds: The longest.

    Raises:
        TypeError: One is no duration.
        ValueError: The shortest is less than a millisecond or above the longest.
    """
    least = round(seconds("min_seconds", min_seconds) * _MILLISECONDS)
    most = round(seconds("max_seconds", max_seconds) * _MILLISECONDS)
    if not 1 <= least <= most:
        msg = (
            f"min_seconds={min_seconds!r} must be at least 0.001 and at most "
            f"max_seconds={max_seconds!r}"
        )
        raise ValueError(msg)
    st = needed_hypothesis().strategies
    shorter = st.integers(0, most - least)
    limits: SearchStrategy[float] = shorter.map(lambda n: (most - n) / _MILLISECONDS)
    return limits


def retry_policies(
    *, max_retries: int = 5, max_seconds: float | timedelta = 60.0
) -> SearchStrategy[dict[str, Any]]:
    """Generate keyword arguments: `RetryPrimitive(step, **policy)`.

    The plainest policy is `{"max_retries": 0}`; options that are left out keep their
    defaults.

    Args:
        max_retries: No policy retries more often.
        max_seconds: No delay and no limit is longer.

    Raises:
        TypeError: `max_seconds` is no duration.
        ValueError: `max_retries` is no count, or `max_seconds` is less than a
            millisecond.
    """
    check_count("max_retries", max_retries)
    longest = round(seconds("max_seconds", max_seconds) * _MILLISECONDS)
    limits = timeouts(max_seconds=max_seconds)
    st = needed_hypothesis().strategies
    delays = st.integers(0, longest).map(lambda n: n / _MILLISECONDS)
    return dictionaries(
        {"max_retries": st.integers(0, max_retries)},
        {
            "backoff_strategy": st.sampled_from(_STRATEGIES),
            "initial_delay": delays,
            "backoff_factor": st.integers(2, 8).map(lambda n: n / 2),
            "max_delay": delays,
            "jitter": st.sampled_from(_JITTERS),
            "max_elapsed": limits,
            "attempt_timeout": limits,
        },
    )


def fault_plans(
    *,
    paths: Sequence[str] | WorkflowPrimitive[Any, Any],
    max_faults: int = 3,
    kinds: Sequence[Kind] = _USUAL_KINDS,
    types: Sequence[type[Exception]] = _TYPES,
    values: Sequence[object] = (),
) -> SearchStrategy[FaultPlan]:
    """Generate plans of faults: `Harness(faults=plan)`.

    The plainest plan has no fault; the plainest fault strikes the first call of the
    first place.

    Args:
        paths: Where faults may strike, or a workflow: at each of its leaves.
        max_faults: No plan has more rules.
        kinds: What may go wrong, the plainest first: `fail` (not executed, an error),
            `lost_ack` (executed, an error), `slow`, `hang`, `cancel` (which ends the
            run, and with it the test) and `returns` (one of `values`).
        types: The classes of the errors.
        values: What is returned instead of the output.

    Raises:
        TypeError: A path is no text, or a type is no class of exceptions.
        ValueError: There is no path or no kind, a kind is unknown, `max_faults` is no
            count, or `returns` comes without `values`.
    """
    places = checked_places(
        "paths", paths, wanted="a list of paths, such as ['retry/llm']"
    )
    check_count("max_faults", max_faults)
    faults = _faults(_checked_kinds(kinds), _checked_types(types), tuple(values))
    return _plans([_rules_at(place, faults) for place in places], max_faults)


def _rules_at(place: str, faults: list[Fault]) -> list[list[FaultRule]]:
    """Return the rules for a place: by fault, then by schedule."""
    return [[FaultRule(place, fault, one) for one in _SCHEDULES] for fault in faults]


def _plans(
    rules: list[list[list[FaultRule]]], max_faults: int
) -> SearchStrategy[FaultPlan]:
    """Choose rules by place, fault and schedule, each of which shrinks by itself.

    Drawing is what an example costs: all of them are one draw.
    """
    st = needed_hypothesis().strategies
    counts = len(rules), len(rules[0]), len(rules[0][0])
    choices = packed(max_faults, counts)

    def plans(draw: DrawFn) -> FaultPlan:
        chosen = triples(draw(choices), counts)
        return FaultPlan(
            *(rules[place][fault][schedule] for place, fault, schedule in chosen)
        )

    found: SearchStrategy[FaultPlan] = st.composite(plans)()
    return found


def _faults(
    kinds: tuple[Kind, ...],
    types: tuple[type[Exception], ...],
    values: tuple[object, ...],
) -> list[Fault]:
    """Return every fault of these kinds, in their order."""
    if "returns" in kinds and not values:
        msg = "kinds has 'returns', which needs values=[...] to return"
        raise ValueError(msg)
    found: dict[Kind, list[Fault]] = {
        "fail": [fail(kind) for kind in types],
        "lost_ack": [lost_ack(kind) for kind in types],
        "slow": [slow(delay) for delay in _DELAYS],
        "hang": [hang()],
        "cancel": [cancel()],
        "returns": [returns(value) for value in values],
    }
    return [fault for kind in kinds for fault in found[kind]]


def checked_places(
    name: str,
    value: Sequence[str] | WorkflowPrimitive[Any, Any],
    *,
    wanted: str,
    one_of_them: str = "place",
) -> tuple[str, ...]:
    """Return places that were given, or those of all leaves of a workflow.

    Args:
        name: The parameter, for the message.
        value: What was given.
        wanted: What it must be, for the message.
        one_of_them: What each of them is called.

    Raises:
        TypeError: It is neither.
        ValueError: There is none, or one is no place.
    """
    if isinstance(value, WorkflowPrimitive):
        return tuple(path for path, one in positions(value) if not one.children())
    if isinstance(value, str) or not all(isinstance(one, str) for one in value):
        msg = f"{name}={value!r} must be {wanted}"
        raise TypeError(msg)
    if not value:
        msg = f"{name}={value!r} must name at least one {one_of_them}"
        raise ValueError(msg)
    return tuple(check_place(name, one) for one in value)


def _checked_kinds(kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    if not kinds:
        msg = f"kinds={kinds!r} must have at least one kind of fault"
        raise ValueError(msg)
    for kind in kinds:
        check_choice("kinds", kind, get_args(Kind))
    return tuple(kinds)


def _checked_types(types: Sequence[object]) -> tuple[type[Exception], ...]:
    found = tuple(
        one for one in types if isinstance(one, type) and issubclass(one, Exception)
    )
    if len(found) != len(types):
        msg = f"types={types!r} must be classes of exceptions, such as [TimeoutError]"
        raise TypeError(msg)
    if not found:
        msg = f"types={types!r} must have at least one class of exceptions"
        raise ValueError(msg)
    return found
