"""Errors that a primitive takes in a certain way, as code that can be pasted."""

# ruff: noqa: ANN401 - primitives of any class

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta.coverage.kinds import kind_of
from tta_primitives.errors import BulkheadFullError, RateLimitExceededError
from tta_primitives.recovery.classify import any_matches, is_unexpected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Written", "failure_for", "hint_for", "permanent_for"]

_OURS = "from tta_primitives.errors import RateLimitExceededError"


@dataclass(frozen=True, slots=True)
class Written:
    """An error as code.

    Attributes:
        code: An expression that makes it.
        imports: What that needs.
    """

    code: str
    imports: frozenset[str] = frozenset()


def failure_for(primitive: Any) -> Written:
    """Return an error that a primitive acts on: that it retries, counts, falls back on.

    Args:
        primitive: Whose filter it has to pass; None for any error.
    """
    acts = None if primitive is None else _acting(primitive)
    for error in _candidates(primitive):
        if acts is None or acts(error):
            return _written(error)
    return _written(ConnectionError("down"))


def permanent_for(primitive: Any) -> Written | None:
    """Return an error that a primitive does not act on; None if it acts on all."""
    acts = _acting(primitive)
    tried: tuple[Exception, ...] = (
        TypeError("bug"),
        ValueError("bad"),
        LookupError("none"),
        RuntimeError("broken"),
        ConnectionError("down"),
    )
    return next((_written(error) for error in tried if not acts(error)), None)


def hint_for(primitive: Any) -> Written | None:
    """Return an error that asks a retry to wait; None if it would not be retried."""
    acts = _acting(primitive)
    if acts(RateLimitExceededError("busy", retry_after=0.01)):
        code = 'RateLimitExceededError("busy", retry_after=0.01)'
        return Written(code, frozenset({_OURS}))
    for error in _listed(primitive):
        busy = type("Busy", (type(error),), {"retry_after": 0.01})
        if acts(busy("busy")):
            base = _written(error)
            name = base.code.partition("(")[0]
            code = f'type("Busy", ({name},), {{"retry_after": 0.01}})'
            return Written(code, base.imports)
    return None


def _acting(primitive: Any) -> Callable[[Exception], bool]:
    """Return a function that tells whether a primitive acts on an error."""
    kind = kind_of(primitive)
    if kind == "retry":
        judge, idempotent = primitive._judge, primitive.idempotent
        return lambda error: judge.is_worth_retrying(error, idempotent=idempotent)
    if kind == "fallback" and primitive.fallback_on is None:
        return is_unexpected
    if kind == "breaker":
        policy = primitive._policy
        return lambda error: bool(policy.is_failure(error))
    filters = {
        "fallback": lambda: primitive.fallback_on,
        "cache": lambda: primitive._policy.negative_on,
        "rate limit": lambda: primitive.penalize_on,
    }
    found = filters[kind]()
    return lambda error: any_matches(found, error)


def _candidates(primitive: Any) -> Iterator[Exception]:
    yield ConnectionError("down")
    yield TimeoutError("late")
    yield from _listed(primitive)
    yield BulkheadFullError("busy")
    yield ValueError("bad")
    yield RuntimeError("broken")


def _listed(primitive: Any) -> Iterator[Exception]:
    """Yield the errors that a filter names, as far as one text makes them."""
    policy = getattr(primitive, "_policy", None)
    names = ("retry_on", "fallback_on", "record_on", "negative_on", "penalize_on")
    for source in (primitive, policy):
        for name in names:
            found = getattr(source, name, None)
            for kind in found if isinstance(found, tuple) else ():
                try:
                    error = kind("down")
                except TypeError:
                    continue
                if isinstance(error, Exception):
                    yield error


def _written(error: Exception) -> Written:
    kind = type(error)
    code = f'{kind.__qualname__}("{error.args[0]}")'
    if getattr(builtins, kind.__name__, None) is kind:
        return Written(code)
    module = kind.__module__
    return Written(code, frozenset({f"from {module} import {kind.__qualname__}"}))
