"""The outcomes that a node may have, from its kind and its constants.

An outcome that the constants rule out is not in the list; nor is one that only a
programming error leads to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.coverage.kinds import ByKind, compensations_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_tta.coverage.nodes import Node

__all__ = ["attempt_name", "later_steps", "may_run", "outcomes_of", "undone_by"]

# Beyond so many attempts, one outcome stands for all later ones.
_MOST_ATTEMPTS = 6
_UNIVERSES: ByKind[Callable[[Node], Iterator[str]]] = ByKind()


def outcomes_of(node: Node) -> Iterator[str]:
    """Yield the outcomes that a node may have, in the order of the report."""
    return _UNIVERSES.get(node.kind, _other)(node)


def attempt_name(number: int, max_retries: int | None) -> str:
    """Return the outcome of a retry that succeeds at this attempt.

    Args:
        number: Of the attempt, from 1.
        max_retries: As the retry has it.
    """
    last = _MOST_ATTEMPTS if max_retries is None else max_retries + 1
    if last >= _MOST_ATTEMPTS and number >= _MOST_ATTEMPTS // 2:
        return f"ok@{_MOST_ATTEMPTS // 2}+"
    return f"ok@{number}"


def undone_by(node: Node) -> dict[str, str]:
    """Return the label of the compensation for each step of a saga that has one."""
    return compensations_of(node.config)


def later_steps(saga: Node, step: Node) -> list[Node]:
    """Return the steps of a saga whose failure has a step undone."""
    undoing = set(undone_by(saga).values())
    begin = step.index + (not saga.config["compensate_failed"])
    return [one for one in saga.children[begin:] if one.label not in undoing]


def may_run(node: Node) -> bool:
    """Tell whether a node runs at all when the one above it does."""
    above = node.above
    if above is None:
        return True
    before = above.children[: node.index]
    if above.kind == "fallback":
        refuses = above.config["fallback_if_result"] is not None
        return refuses or all(one.fails for one in before)
    if above.kind == "timeout":
        return all(one.waits for one in before)
    if above.kind == "compensation" and before:
        return above.config["compensate_failed"] or _is_in_saga(above)
    if above.kind == "saga" and above.config["listed"]:
        step = next(
            (s for s, undo in undone_by(above).items() if undo == node.label), None
        )
        return step is None or _is_undone(above, above.by_label[step])
    return True


def _is_undone(saga: Node, step: Node) -> bool:
    later = later_steps(saga, step)
    return any(one.waits for one in later) or _is_in_saga(saga)


def _is_in_saga(node: Node) -> bool:
    above = node.above
    while above is not None and above.kind != "saga":
        above = above.above
    return above is not None


@_UNIVERSES.of("leaf")
def _leaf(node: Node) -> Iterator[str]:
    yield "ok"
    if node.config["call"]:
        yield from ("failed", "cancelled")


@_UNIVERSES.of("value")
def _value(_node: Node) -> Iterator[str]:
    yield "ok"


def _other(node: Node) -> Iterator[str]:
    yield "ok"
    if node.fails:
        yield "failed"
    yield from _cancelled(node)


def _cancelled(node: Node) -> Iterator[str]:
    if node.waits:
        yield "cancelled"


@_UNIVERSES.of("sequential")
def _sequential(node: Node) -> Iterator[str]:
    yield "complete"
    yield from (f"stops@{child.label}" for child in node.children if child.fails)
    yield from _cancelled(node)


@_UNIVERSES.of("parallel")
def _parallel(node: Node) -> Iterator[str]:
    yield "all ok"
    failing = [child.label for child in node.children if child.fails]
    yield from (f"fails@{label}" for label in failing)
    if len(failing) > 1:
        yield "several fail"
    yield from _cancelled(node)


@_UNIVERSES.of("conditional")
def _conditional(node: Node) -> Iterator[str]:
    yield from ("then", "else")
    if any(child.fails for child in node.children):
        yield "branch fails"
    yield from _cancelled(node)


@_UNIVERSES.of("router")
def _router(node: Node) -> Iterator[str]:
    yield from (f"route {name}" for name in node.config["routes"].split("\n"))
    if node.config["own_default"]:
        yield "default"
    if not node.config["default"]:
        yield "no route"
    if any(child.fails for child in node.children):
        yield "branch fails"
    yield from _cancelled(node)


@_UNIVERSES.of("map")
def _map(node: Node) -> Iterator[str]:
    yield from ("all ok", "empty")
    if node.children[0].fails:
        yield "item fails"
    yield from _cancelled(node)


@_UNIVERSES.of("retry")
def _retry(node: Node) -> Iterator[str]:
    config, child = node.config, node.children[0]
    refuses = config["retry_if_result"] is not None
    retries = config["max_retries"]
    yield "ok@1"
    if not (child.fails or refuses):
        yield from _cancelled_in_attempt(node)
        return
    for number in range(2, 1 + (_MOST_ATTEMPTS if retries is None else retries + 1)):
        yield attempt_name(number, retries)
    if retries is not None:
        yield "exhausted"
    if child.fails:
        yield "not retried"
    if refuses:
        yield "result refused"
    if retries != 0:
        yield from _retry_ends(node)
    yield from _cancelled_in_attempt(node)
    if retries != 0 and node.waits and config["initial_delay"]:
        yield "cancelled in backoff"


def _retry_ends(node: Node) -> Iterator[str]:
    config = node.config
    if config["budget"] is not None:
        yield "budget ends it"
    if config["max_elapsed"] is not None or _is_limited(node):
        yield "deadline ends it"
    if node.children[0].fails and config["respect_retry_after"]:
        yield "hint honoured"


def _cancelled_in_attempt(node: Node) -> Iterator[str]:
    if node.waits:
        yield "cancelled in attempt"


def _is_limited(node: Node) -> bool:
    """Tell whether something further outside sets a deadline."""
    inside, above = node, node.above
    while above is not None:
        if above.kind == "timeout" and inside.index == 0:
            return True
        if above.kind == "retry" and (
            above.config["max_elapsed"] is not None
            or above.config["attempt_timeout"] is not None
        ):
            return True
        inside, above = above, above.above
    return False


@_UNIVERSES.of("fallback")
def _fallback(node: Node) -> Iterator[str]:
    primary, *others = node.children
    yield "primary ok"
    refuses = node.config["fallback_if_result"] is not None
    can_go_on = primary.fails or refuses
    for other in others:
        if can_go_on:
            yield f"ok@{other.label}"
        can_go_on = can_go_on and (other.fails or refuses)
    if all(child.fails for child in node.children):
        yield "all failed"
    if node.config["fallback_on"] is not None and primary.fails:
        yield "not eligible"
    yield from _cancelled(node)


@_UNIVERSES.of("timeout")
def _timeout(node: Node) -> Iterator[str]:
    child = node.children[0]
    yield "in time"
    if child.waits:
        yield "fallback answers" if node.config["fallback"] else "fired"
    if node.config["fallback"] and node.children[1].fails:
        yield "fallback fails"
    if child.fails:
        yield from ("inner error", "inner TimeoutError")
    yield from _cancelled(node)


@_UNIVERSES.of("breaker")
def _breaker(node: Node) -> Iterator[str]:
    config = node.config
    yield "ok"
    if node.children[0].fails:
        if config["failure_threshold"] != 1:
            yield "error counted"
        if config["record_on"] != "Exception" or config["ignore"] != "":
            yield "error ignored"
        yield from ("opens", "open rejects", "probe closes", "probe reopens")
        if config["success_threshold"] > 1:
            yield "probe ok"
        if node.waits:
            yield from ("half-open rejects", "probe cancelled")
    yield from _cancelled(node)


@_UNIVERSES.of("cache")
def _cache(node: Node) -> Iterator[str]:
    config, child = node.config, node.children[0]
    yield from ("miss", "hit")
    if config["ttl"] not in {0, "inf"}:
        yield "expired"
    if child.fails:
        yield "load fails"
        if config["stale_if_error"]:
            yield "stale on error"
        if config["negative_ttl"]:
            yield "failure remembered"
    if config["stale_ttl"]:
        yield "stale"
    if config["stale_ttl"] or config["early_refresh"]:
        yield "refresh"
        if child.fails:
            yield "refresh fails"
    if config["single_flight"] and child.waits:
        yield "coalesced"
    if config["storage"] not in {None, "MemoryStorage"}:
        yield "storage fails"
    yield from _cancelled(node)


@_UNIVERSES.of("saga")
def _saga(node: Node) -> Iterator[str]:
    if not node.config["listed"]:
        yield from _saga_of_workflow(node)
        return
    undone, undoing = undone_by(node), set(undone_by(node).values())
    steps = [child for child in node.children if child.label not in undoing]
    yield "complete"
    yield from (f"fails@{step.label}" for step in steps if step.fails)
    for step in steps:
        undo = node.by_label.get(undone.get(step.label, ""))
        later = later_steps(node, step)
        if undo is not None and undo.fails and any(one.waits for one in later):
            yield f"compensation fails@{step.label}"
    yield from _cancelled(node)


def _saga_of_workflow(node: Node) -> Iterator[str]:
    below = [one for one in node.all() if one.kind == "compensation"]
    yield "complete"
    if node.fails:
        yield "fails"
    if below and node.fails:
        yield "compensated"
        if any(one.children[1].fails for one in below):
            yield "compensation fails"
    yield from _cancelled(node)


@_UNIVERSES.of("compensation")
def _compensation(node: Node) -> Iterator[str]:
    step, undo = node.children
    yield "done"
    if step.fails:
        yield "fails"
    if may_run(undo):
        yield "undone"
        if undo.fails:
            yield "undo fails"
    if step.waits:
        yield "cancelled"


@_UNIVERSES.of("bulkhead")
def _bulkhead(node: Node) -> Iterator[str]:
    config, child = node.config, node.children[0]
    yield "admitted"
    if child.waits:
        if config["max_queue"] != 0:
            yield "queued"
        if config["max_queue"] is not None:
            yield "rejected full"
        if config["max_wait"] is not None:
            yield "rejected max_wait"
        if config["max_queue"] != 0:
            yield "cancelled in queue"
    if child.fails:
        yield "released after error"
    yield from _cancelled(node)


@_UNIVERSES.of("rate limit")
def _rate_limit(node: Node) -> Iterator[str]:
    config = node.config
    yield "admitted"
    if config["max_wait"] != 0:
        yield "delayed"
    if config["max_wait"] is not None:
        yield "rejected"
    if node.children[0].fails and config["penalize_on"] != "":
        yield "penalized"
    if config["max_wait"] != 0:
        yield "cancelled in wait"
    yield from _cancelled(node)


@_UNIVERSES.of("hedge")
def _hedge(node: Node) -> Iterator[str]:
    config, child = node.config, node.children[0]
    if not config["idempotent"]:
        yield "not hedged"
        yield from _cancelled(node)
        return
    yield "primary alone"
    if child.waits:
        yield from ("hedge wins", "primary wins")
    if all(one.fails for one in node.children):
        yield "all fail"
    if config["hedge_if"] or config["budget"] or config["delay"] == "Quantile":
        yield "not hedged"
    yield from _cancelled(node)
