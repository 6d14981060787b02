"""What a client did wrong with what it was answered, though nothing failed.

Most failures of language models are silent, and so is most of what clients do about
them: a text that was cut is shown as whole, a limit is asked again too early, an SDK
tries three times in each of three attempts. The providers know what they have sent, and
each fault says what a correct client may do about it; this compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_tta.wire.provider import WireExchange

__all__ = ["Finding", "FindingKind", "audit", "check_kinds"]

FindingKind: TypeAlias = Literal[
    "accepted_bad_answer",
    "ignored_retry_after",
    "retried_permanent_error",
    "multiplied_retries",
    "leaked_response",
    "no_deadline",
]

PATIENCE = 300.0
"""How many seconds one request may take before somebody should have given up."""

# Times of the clock are sums of floats.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a client did wrong.

    Attributes:
        kind: What.
        path: The primitive that asked; "" if none did.
        text: What happened, with the requests it is about, in a sentence.
    """

    kind: FindingKind
    path: str
    text: str

    def __str__(self) -> str:
        allowed = f"tta_wire.tolerate({self.kind!r})"
        return f"{self.kind}: {self.text}\n  or let it be: {allowed}"


def check_kinds(kinds: Iterable[str]) -> frozenset[str]:
    """Return kinds of findings as a set.

    Raises:
        ValueError: One of them is unknown.
    """
    known = get_args(FindingKind)
    for kind in kinds:
        if kind not in known:
            msg = f"{kind!r} is no finding; there are {', '.join(known)}"
            raise ValueError(msg)
    return frozenset(kinds)


def audit(exchanges: Sequence[WireExchange]) -> list[Finding]:
    """Return what clients did wrong, in the order in which it happened.

    Args:
        exchanges: All requests with their answers, in order.
    """
    findings: list[tuple[int, Finding]] = []
    for group in _questions(exchanges):
        findings += _about_retries(group)
    for exchange in exchanges:
        findings += _about_one(exchange, exchanges)
    findings.sort(key=lambda one: one[0])
    return [finding for _, finding in findings]


def _questions(exchanges: Sequence[WireExchange]) -> list[list[WireExchange]]:
    """Return the requests of each question: equal ones, of one place in one run.

    Of a question that no primitive asks, only the SDK's own attempts are known.
    """
    groups: dict[Any, list[WireExchange]] = {}
    everything: list[list[WireExchange]] = []
    for one in exchanges:
        request = one.request
        key = (id(one.run), request.path, request.url, request.body)
        if key not in groups or (one.run is None and request.retry_count == 0):
            groups[key] = []
            everything.append(groups[key])
        groups[key].append(one)
    return everything


def _about_retries(group: list[WireExchange]) -> Iterator[tuple[int, Finding]]:
    for one, after in pairwise(group):
        expected = getattr(one.fault, "expect", None)
        if expected is None:
            continue
        asked = f"{_name(one)} was answered with {one.fault!r}"
        if not expected.may_retry:
            text = (
                f"{asked}, which will not go away, and was asked again as request "
                f"{after.request.number}; give up on such an answer"
            )
            yield _found(after, "retried_permanent_error", text)
        elif expected.not_before is not None:
            waited = after.request.at - one.answered_at
            if waited < expected.not_before - _TOLERANCE:
                text = (
                    f"{asked}, and was asked again after {waited:g} s as request "
                    f"{after.request.number}; wait for {expected.not_before:g} s"
                )
                yield _found(after, "ignored_retry_after", text)
    begun = [one for one in group if one.request.retry_count == 0]
    if len(begun) > 1 and len(begun) < len(group):
        of_sdk = max(one.request.retry_count for one in group)
        text = (
            f"{_name(group[0])} was sent {len(group)} times: the SDK tried up to "
            f"{of_sdk + 1} times in each of {len(begun)} attempts; give the SDK's "
            "client max_retries=0, and let one retry decide"
        )
        yield _found(group[-1], "multiplied_retries", text)


def _about_one(
    one: WireExchange, exchanges: Sequence[WireExchange]
) -> Iterator[tuple[int, Finding]]:
    if one.is_answered and (one.is_forgotten or not one.is_closed):
        text = (
            f"the answer to {_name(one)} was never closed; read it to its end, or use "
            "the stream as a context manager"
        )
        yield _found(one, "leaked_response", text)
    if one.took > PATIENCE:
        text = (
            f"{_name(one)} took {one.took:g} s, and nobody gave up on it; give it a "
            "TimeoutPrimitive, or the client a timeout"
        )
        yield _found(one, "no_deadline", text)
    expected = getattr(one.fault, "expect", None)
    if expected is None or expected.may_accept or not one.looks_good:
        return
    if one.is_accepted and not _was_followed(one, exchanges):
        text = (
            f"{_name(one)} was answered with {one.fault!r}, and its caller went on as "
            "if all was well; look at the reason why an answer ended"
        )
        yield _found(one, "accepted_bad_answer", text)


def _was_followed(one: WireExchange, exchanges: Sequence[WireExchange]) -> bool:
    """Tell whether the run asked again after this answer, here or elsewhere."""
    return any(
        other.run is one.run and other.request.number > one.request.number
        for other in exchanges
    )


def _name(one: WireExchange) -> str:
    by = f" by {one.request.path!r}" if one.request.path else ""
    return f"request {one.request.number} to {one.request.url}{by}"


def _found(one: WireExchange, kind: FindingKind, text: str) -> tuple[int, Finding]:
    return one.request.number, Finding(kind, one.request.path, text)
