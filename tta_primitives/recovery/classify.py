"""Which errors are worth another attempt, and which are worth an alternative."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from tta_primitives.errors import (
    CircuitOpenError,
    ExecutionRejectedError,
    SagaCompensationError,
)
from tta_primitives.recovery.hints import header, is_mute, status

if TYPE_CHECKING:
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = [
    "ErrorFilter",
    "Judge",
    "any_matches",
    "check_filter",
    "check_predicate",
    "is_retryable",
    "is_unexpected",
    "listed",
    "matches",
    "rejects_as_a_whole",
]

ErrorFilter: TypeAlias = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
)

PROGRAMMING_ERRORS = (
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
    NotImplementedError,
)
# RFC 9110, section 15.5: the same request will be answered in the same way again.
PERMANENT_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 410, 413, 422})
# A quota that is used up comes as 429, like a rate limit; only this word differs.
_QUOTA_WORDS = frozenset(
    {
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "insufficient_quota",
    }
)


# A program that makes a type for each error must not fill the memory with them.
_MOST_TYPES = 64


def is_retryable(error: Exception) -> bool:
    """Tell whether an error leaves hope: it does not say that it is permanent.

    Permanent are HTTP statuses that repeat themselves, an explicit
    `x-should-retry: false`, an exhausted quota, an open circuit, a saga that could not
    be undone, and programming errors. An explicit `x-should-retry: true` outweighs the
    status. A group is retryable if all its leaves are. An attribute `retryable` of the
    error's own, True or False, outweighs what its HTTP answer says.
    """
    if isinstance(error, SagaCompensationError):
        return False
    if isinstance(error, ExceptionGroup):
        return all(map(is_retryable, error.exceptions))
    if isinstance(error, (*PROGRAMMING_ERRORS, CircuitOpenError)):
        return False
    if is_mute(error):
        return True
    advice = _advice(error)
    if advice is not None:
        return advice
    return status(error) not in PERMANENT_STATUSES and not _is_out_of_quota(error)


def _advice(error: Exception) -> bool | None:
    """Return what an error, or else its answer, says of a retry; None if nothing."""
    own = getattr(error, "retryable", None)
    if isinstance(own, bool):
        return own
    said = (header(error, "x-should-retry") or "").strip().lower()
    return said == "true" if said in {"true", "false"} else None


def is_unexpected(error: Exception) -> bool:
    """Tell whether an error is no programming error, so that a fallback may answer."""
    if isinstance(error, ExceptionGroup):
        return all(map(is_unexpected, error.exceptions))
    return not isinstance(error, PROGRAMMING_ERRORS)


def _is_out_of_quota(error: Exception) -> bool:
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    words = body if isinstance(body, dict) else {}
    details = words.get("details")
    told = [getattr(error, key, None) for key in ("code", "type")]
    told += [words.get(key) for key in ("code", "type")]
    if isinstance(details, dict):
        told.append(details.get("error_code"))
    return any(isinstance(word, str) and word in _QUOTA_WORDS for word in told)


def matches(errors: ErrorFilter, error: Exception) -> bool:
    """Tell whether a filter applies to an error; to a group if it does to all leaves.

    Args:
        errors: Types, or a predicate, which is asked about the leaves of groups.
        error: What was raised.
    """
    if _is_direct(errors, error):
        return True
    if isinstance(error, ExceptionGroup):
        return all(matches(errors, leaf) for leaf in error.exceptions)
    return callable(errors) and bool(errors(error))


def any_matches(errors: ErrorFilter, error: Exception) -> bool:
    """Tell whether a filter applies to an error, or to any leaf of a group."""
    if isinstance(error, ExceptionGroup) and not _is_direct(errors, error):
        return any(any_matches(errors, leaf) for leaf in error.exceptions)
    return matches(errors, error)


def listed(errors: ErrorFilter, error: Exception) -> bool:
    """Tell whether a retry's filter lists an error.

    An open circuit is listed only by its own type or that of rejections: a filter as
    wide as `Exception` was not written with it in mind.
    """
    if isinstance(error, ExceptionGroup):
        return _names_group(errors, error) or all(
            listed(errors, leaf) for leaf in error.exceptions
        )
    if isinstance(errors, tuple) and isinstance(error, CircuitOpenError):
        errors = tuple(t for t in errors if issubclass(t, ExecutionRejectedError))
    return matches(errors, error)


def _is_direct(errors: ErrorFilter, error: Exception) -> bool:
    return isinstance(errors, tuple) and isinstance(error, errors)


def _names_group(errors: ErrorFilter, group: ExceptionGroup[Exception]) -> bool:
    named = errors if isinstance(errors, tuple) else ()
    return any(
        issubclass(kind, BaseExceptionGroup) and isinstance(group, kind)
        for kind in named
    )


def check_filter(name: str, value: object) -> ErrorFilter:
    """Return a filter of errors.

    Args:
        name: The parameter, for the message.
        value: An exception type, several in a tuple or list, or a predicate.

    Raises:
        TypeError: It is none of these.
    """
    types = value if isinstance(value, (tuple, list)) else (value,)
    if all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
        return cast("ErrorFilter", tuple(types))
    if callable(value) and not isinstance(value, type):
        return cast("ErrorFilter", value)
    msg = (
        f"{name}={value!r} must be an exception type, a tuple of them, or a function "
        "that takes an exception and returns a bool"
    )
    raise TypeError(msg)


def check_predicate(name: str, value: object) -> Callable[[Any], Any] | None:
    """Return a function of one argument, or None.

    Raises:
        TypeError: It is neither, or an exception type, which belongs in a filter.
    """
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    if value is None or (callable(value) and not is_error):
        return cast("Callable[[Any], Any] | None", value)
    msg = f"{name}={value!r} must be a function of one argument, or None"
    raise TypeError(msg)


class Judge:
    """What one retry knows of errors: which are worth another attempt.

    Args:
        retry_on: As for `RetryPrimitive`.
        give_up_on: As above.
        primitive: What is executed again.
    """

    __slots__ = ("_give_up_on", "_is_by_type", "_is_whole", "_passing", "_retry_on")

    def __init__(
        self,
        retry_on: ErrorFilter | None,
        give_up_on: ErrorFilter,
        primitive: WorkflowPrimitive[Any, Any],
    ) -> None:
        self._retry_on = retry_on
        self._give_up_on = give_up_on
        self._is_by_type = not (callable(retry_on) or callable(give_up_on))
        self._is_whole = rejects_as_a_whole(primitive)
        self._passing: frozenset[type[Exception]] = frozenset()

    def knows_as_passing(self, error: Exception) -> bool:
        """Tell quickly that errors of this type are retried whatever else they say.

        That saves asking an error that says nothing, the same as many before it.
        """
        return type(error) in self._passing and not error.__dict__

    def is_worth_retrying(self, error: Exception, *, idempotent: bool) -> bool:
        """Tell whether an error may pass, and what has failed may be done again."""
        is_worth = self._is_worth(error, idempotent=idempotent)
        # For an error that says nothing by itself, its type has decided.
        if is_worth and self._is_by_type and is_mute(error):
            if len(self._passing) >= _MOST_TYPES:
                self._passing = frozenset()
            self._passing |= {type(error)}
        return is_worth

    def _is_worth(self, error: Exception, *, idempotent: bool) -> bool:
        if self._give_up_on and any_matches(self._give_up_on, error):
            return False
        if self._retry_on is not None:
            return listed(self._retry_on, error)
        return is_retryable(error) and (idempotent or self._left_no_trace(error))

    def _left_no_trace(self, error: Exception) -> bool:
        """Tell whether an error says that nothing was executed, in all its leaves."""
        if isinstance(error, ExceptionGroup):
            return all(map(self._left_no_trace, error.exceptions))
        return isinstance(error, ExecutionRejectedError) and self._is_whole


def rejects_as_a_whole(primitive: WorkflowPrimitive[Any, Any]) -> bool:
    """Tell whether a rejection from a tree means that nothing in it was executed.

    That is so for wrappers around one leaf. In a chain, a later step may be rejected
    after an earlier one has done its work.
    """
    children = primitive.children()
    return not children or (len(children) == 1 and rejects_as_a_whole(children[0]))
