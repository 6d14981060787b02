"""The ways in which a workflow is changed: one primitive, one thing about it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pytest_tta.mutation.rebuilding import saga_of, with_children
from pytest_tta.mutation.stand_ins import (
    CancellationsFail,
    FirstUndoneFirst,
    ThroughPrimitive,
)
from tta_primitives.mapping import MapPrimitive
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    _copied,
    positions,
)
from tta_primitives.recovery.backoff import Backoff
from tta_primitives.recovery.bulkhead import BulkheadPrimitive
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive
from tta_primitives.recovery.compensation import CompensationPrimitive, SagaPrimitive
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.rate_algorithms import Limit
from tta_primitives.recovery.rate_limit import RateLimitPrimitive
from tta_primitives.recovery.retry import RetryPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_tta.mutation.rebuilding import Change, Children, Primitive

__all__ = ["OPERATORS", "Mutant", "Mutation", "chosen", "mutations_of"]

# Long enough that no test waits for it, short enough for every storage.
_NEVER = 10 * 365 * 86_400.0


class Mutant(NamedTuple):
    """One change of one workflow, as plain data.

    Attributes:
        workflow: The name and the digest of the workflow's shape, `checkout@3fa9c1d2`.
        operator: The name of the way in which it is changed.
        path: Where.
        what: What becomes of what, for the report: `max_retries 3 -> 4`.
    """

    workflow: str
    operator: str
    path: str
    what: str


class Mutation(NamedTuple):
    """A change that can be made.

    Attributes:
        operator: The name of the way in which the workflow is changed.
        path: Where.
        what: What becomes of what.
        change: Makes it, as `rebuild` takes it.
    """

    operator: str
    path: str
    what: str
    change: Change


Variants: TypeAlias = "Iterator[tuple[str, Change]]"


def mutations_of(
    tree: Primitive, operators: frozenset[str] | None = None
) -> Iterator[Mutation]:
    """Yield the changes that can be made to a workflow, from its root down.

    Args:
        tree: The root of the workflow.
        operators: The names of those to use; None for all.
    """
    seen: set[int] = set()
    for path, node in positions(tree._as_operand()):
        # What stands in two places is one primitive, and changed as one.
        if id(node) in seen:
            continue
        seen.add(id(node))
        for name, variants in OPERATORS.items():
            if operators is None or name in operators:
                for what, change in variants(node):
                    yield Mutation(name, path, what, change)


def chosen(text: str) -> frozenset[str] | None:
    """Return the operators that a user names; None for all.

    Args:
        text: Names or families of them, with commas: `retry,timeout-limit`; empty or
            "all" for all.

    Raises:
        ValueError: A name is no operator and no family.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    if not asked or asked == ["all"]:
        return None
    found: set[str] = set()
    for word in asked:
        named = [n for n in OPERATORS if n == word or n.startswith(f"{word}-")]
        if not named:
            msg = f"{word!r} is no operator; there are {', '.join(OPERATORS)}"
            raise ValueError(msg)
        found.update(named)
    return frozenset(found)


def _through(node: Primitive, children: Children) -> Primitive:
    return ThroughPrimitive(children[0], node.name)


def _dropping(kind: type[Any]) -> Callable[[Any], Variants]:
    """Return the operator that takes primitives of a class out."""

    def drop(node: Any) -> Variants:  # noqa: ANN401 - any primitive
        if isinstance(node, kind) and node.children():
            yield "gone", _through

    return drop


def _setting(**values: Any) -> Change:  # noqa: ANN401 - attributes of any kind
    """Return a change that sets attributes, and binds anew with them."""

    def change(node: Primitive, children: Children) -> Primitive:
        other = _copied(node)
        for name, value in values.items():
            setattr(other, name, value)
        return with_children(other, children)

    return change


def _by_one(name: str, value: int | None, least: int) -> Iterator[tuple[str, int]]:
    """Yield a count that is one more and one less, and what to say of it."""
    if value is not None:
        for other in (value + 1, value - 1):
            if other >= least:
                yield f"{name} {value} -> {other}", other


def _times(ask: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """Return a function that returns so many times what another returns."""
    return lambda *asked: ask(*asked) * factor


def _retry_attempts(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, RetryPrimitive):
        for what, count in _by_one("max_retries", node.max_retries, 0):
            yield what, _setting(max_retries=count)


def _retry_backoff(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if not isinstance(node, RetryPrimitive):
        return
    if not node._backoff.is_zero:
        none = Backoff("constant", 0.0, 1.0, 0.0, "none")
        yield "backoff -> 0", _setting(_backoff=none)
        jitter: Any = node.jitter
        longer = Backoff(
            _scaled(node.backoff_strategy, 100),
            node.initial_delay * 100,
            node.backoff_factor,
            node.max_delay * 100,
            jitter,
        )
        yield "backoff x100", _setting(_backoff=longer)


def _scaled(strategy: Any, factor: float) -> Any:  # noqa: ANN401 - a name, a list, a function
    if isinstance(strategy, str):
        return strategy
    if callable(strategy):
        return _times(strategy, factor)
    return tuple(delay * factor for delay in strategy)


def _retry_errors(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, RetryPrimitive):
        if node.max_retries != 0:
            yield "retries nothing", _setting(retry_on=(), retry_if_result=None)
        everything = _setting(retry_on=Exception, give_up_on=(), retry_nested=True)
        yield "retries everything", everything


def _timeout_limit(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if not isinstance(node, TimeoutPrimitive):
        return
    for factor, what in ((10.0, "x10"), (0.1, "/10")):
        if node._ask is not None:
            yield f"timeout {what}", _setting(_ask=_times(node._ask, factor))
        else:
            limit = node._limit * factor
            yield f"timeout {node._limit:g} {what}", _setting(_limit=limit)


def _timeout_nesting(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    """Let a timeout and a retry that are one in the other change places."""
    pair = (TimeoutPrimitive, RetryPrimitive)
    if not isinstance(node, pair) or len(node.children()) != 1:
        return
    (inner,) = node.children()
    if not isinstance(inner, pair) or len(inner.children()) != 1:
        return
    if isinstance(node, RetryPrimitive) == isinstance(inner, RetryPrimitive):
        return
    outside = "timeout" if isinstance(inner, TimeoutPrimitive) else "retry"
    yield f"{outside} outside", _swap_nesting


def _swap_nesting(node: Primitive, children: Children) -> Primitive:
    """Swap, and leave the names where they were: the paths stay as they are."""
    (inner,) = children
    below = with_children(node.named(inner.name), inner.children())
    return with_children(inner.named(node.name), (below,))


def _fallback_order(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, FallbackPrimitive):
        yield from _swaps(node.children())


def _fallback_last(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, FallbackPrimitive) and len(node.fallbacks) > 1:
        yield f"without {node.fallbacks[-1].name}", _without_last


def _without_last(node: Primitive, children: Children) -> Primitive:
    return with_children(node, children[:-1])


def _swaps(children: Children) -> Variants:
    """Yield the changes that let two neighbours change places."""
    for index in range(len(children) - 1):
        one, other = children[index], children[index + 1]
        if one is not other:
            yield f"{other.name} before {one.name}", _swapping(index)


def _swapping(index: int) -> Change:
    def change(node: Primitive, children: Children) -> Primitive:
        order = list(children)
        order[index : index + 2] = order[index + 1], order[index]
        return with_children(node, tuple(order))

    return change


def _steps_order(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, SequentialPrimitive):
        yield from _swaps(node.children())


def _breaker_threshold(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, CircuitBreakerPrimitive):
        policy = node._policy
        for what, count in _by_one("failure_threshold", policy.threshold, 1):
            yield what, _setting(_policy=replace(policy, threshold=count))


def _breaker_recovery(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if not isinstance(node, CircuitBreakerPrimitive):
        return
    policy, ask = node._policy, node._policy.recovery_timeout
    longer = replace(
        policy,
        recovery_timeout=_times(ask, 10) if callable(ask) else ask * 10,
        first_break=policy.first_break * 10,
    )
    yield "recovery_timeout x10", _setting(_policy=longer)
    never = replace(policy, recovery_timeout=_NEVER, first_break=_NEVER)
    yield "never recovers", _setting(_policy=never)


def _breaker_cancellation(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    # What processes share is counted in the storage.
    if type(node) is CircuitBreakerPrimitive and node._policy.storage is None:
        yield "cancellations count as failures", _becoming(CancellationsFail)


def _becoming(kind: type[Any]) -> Change:
    """Return a change after which a primitive is one of another class."""

    def change(node: Primitive, children: Children) -> Primitive:
        # By itself it would have the name of its class.
        return with_children(_copied(node, kind).named(node.name), children)

    return change


def _cache_policy(**values: Any) -> Callable[[Any], Change]:  # noqa: ANN401 - options of any kind
    """Return what makes a change that sets options of a cache."""
    return lambda node: _setting(_policy=replace(node._policy, **values))


def _cache_ttl(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, CachePrimitive):
        yield "ttl -> 0", _cache_policy(ttl=0.0)(node)
        yield "ttl -> for ever", _cache_policy(ttl=_NEVER)(node)


def _cache_key(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, CachePrimitive):
        yield "one key for all", _cache_policy(key_fn=_one_key)(node)


def _one_key(*_asked: object) -> str:
    return "the only key"


def _cache_flight(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, CachePrimitive) and node._policy.single_flight:
        yield "no single flight", _cache_policy(single_flight=False)(node)


def _cache_errors(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, CachePrimitive) and node._policy.negative_on != (Exception,):
        ttl = node._policy.negative_ttl or node._policy.ttl
        kept = 60.0 if callable(ttl) or not ttl else ttl
        change = _cache_policy(negative_ttl=kept, negative_on=(Exception,))
        yield "errors are kept", change(node)


def _compensation_drop(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, CompensationPrimitive):
        yield f"without {node.compensation.name}", _through
    for index, (_, _, pair) in enumerate(_places(node)):
        if pair is not None:
            what = f"without {pair.compensation_label}"
            yield what, _changing_steps(_leaving_alone(index))


def _places(node: Any) -> list[Any]:  # noqa: ANN401 - any primitive
    """Return the steps of a saga that was given as a list, with what undoes them."""
    listed = node._listed() if isinstance(node, SagaPrimitive) else None
    return [] if listed is None else listed._places


def _leaving_alone(index: int) -> Callable[[list[Any]], None]:
    """Return what takes the compensation of a saga's step away."""

    def leave_alone(steps: list[Any]) -> None:
        steps[index] = steps[index][0]

    return leave_alone


def _changing_steps(edit: Callable[[list[Any]], None]) -> Change:
    """Return the change after which a saga has other steps.

    Args:
        edit: Changes the list of steps, and of pairs of a step and what undoes it.
    """

    def change(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - a saga
        left = iter(children)
        steps: list[Any] = [
            next(left) if pair is None else (next(left), next(left))
            for _, _, pair in _places(node)
        ]
        edit(steps)
        return saga_of(node, steps)

    return change


def _compensation_order(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    """Undo in the wrong order, or one step by what undoes another."""
    if type(node) is not SagaPrimitive:
        return
    if len(list(_undone_in(node))) > 1:
        yield "what is done first is undone first", _becoming(FirstUndoneFirst)
    pairs = [
        (index, pair)
        for index, (_, _, pair) in enumerate(_places(node))
        if pair is not None
    ]
    for (one, left), (other, right) in pairwise(pairs):
        what = f"{left.label} and {right.label} undo each other"
        yield what, _changing_steps(_exchanging(one, other))


def _undone_in(saga: Any) -> Iterator[object]:  # noqa: ANN401 - a saga
    """Yield what a saga can undo, as far as it is its own."""
    yield from (pair for _, _, pair in _places(saga) if pair is not None)
    for _, node in positions(saga):
        if isinstance(node, CompensationPrimitive):
            yield node


def _exchanging(one: int, other: int) -> Callable[[list[Any]], None]:
    """Return what lets two steps of a saga be undone by each other's compensation."""

    def exchange(steps: list[Any]) -> None:
        (first, undo_first), (second, undo_second) = steps[one], steps[other]
        steps[one], steps[other] = (first, undo_second), (second, undo_first)

    return exchange


def _errors_kept(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, (ParallelPrimitive, MapPrimitive)):
        other = not node._return_exceptions
        yield f"return_exceptions -> {other}", _setting(_return_exceptions=other)


def _parallel_order(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    is_parallel = isinstance(node, ParallelPrimitive)
    if is_parallel and len(node.branches) > 1 and node._max_concurrency != 1:
        yield "one after the other", _setting(_max_concurrency=1)


def _bulkhead_size(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, BulkheadPrimitive):
        for what, count in _by_one("max_concurrency", node.max_concurrency, 1):
            yield what, _setting(max_concurrency=count)


def _rate_limit(node: Any) -> Variants:  # noqa: ANN401 - any primitive
    if isinstance(node, RateLimitPrimitive):
        yield f"rate {node.rate:g} x10", _ten_times_the_rate


def _ten_times_the_rate(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - a rate limit
    other = _copied(node)
    other.rate = node.rate * 10
    other._limit = Limit(node.algorithm, other.rate, node.period, other._capacity())
    return with_children(other, children)


OPERATORS: dict[str, Callable[[Any], Variants]] = {
    "retry-drop": _dropping(RetryPrimitive),
    "retry-attempts": _retry_attempts,
    "retry-backoff": _retry_backoff,
    "retry-errors": _retry_errors,
    "timeout-drop": _dropping(TimeoutPrimitive),
    "timeout-limit": _timeout_limit,
    "timeout-nesting": _timeout_nesting,
    "fallback-drop": _dropping(FallbackPrimitive),
    "fallback-order": _fallback_order,
    "fallback-last": _fallback_last,
    "breaker-drop": _dropping(CircuitBreakerPrimitive),
    "breaker-threshold": _breaker_threshold,
    "breaker-recovery": _breaker_recovery,
    "breaker-cancellation": _breaker_cancellation,
    "cache-drop": _dropping(CachePrimitive),
    "cache-ttl": _cache_ttl,
    "cache-key": _cache_key,
    "cache-flight": _cache_flight,
    "cache-errors": _cache_errors,
    "compensation-drop": _compensation_drop,
    "compensation-order": _compensation_order,
    "parallel-order": _parallel_order,
    "parallel-errors": _errors_kept,
    "steps-order": _steps_order,
    "bulkhead-drop": _dropping(BulkheadPrimitive),
    "bulkhead-size": _bulkhead_size,
    "rate-drop": _dropping(RateLimitPrimitive),
    "rate-limit": _rate_limit,
}
