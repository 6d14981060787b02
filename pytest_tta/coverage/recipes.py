"""How each outcome is brought about: faults, calls and pauses, as lines of a test."""

# ruff: noqa: ANN401 - primitives of any class

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_tta.coverage.errors import Written, failure_for, hint_for, permanent_for
from pytest_tta.coverage.kinds import ByKind
from pytest_tta.coverage.universe import later_steps, undone_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.coverage.nodes import Node

__all__ = ["Recipe", "recipe_for", "undo_runs"]

_FIRST = "first(1)"
_SOON = "0.0001"
_RECIPES: ByKind[Callable[[Node, str, Any], Recipe | None]] = ByKind()


@dataclass(slots=True)
class Recipe:
    """What a test does to reach one outcome.

    Attributes:
        faults: Lines that script faults.
        calls: Lines of the body that calls the workflow; none for one plain run.
        ends: How a plain run ends: "ok", "failed" or "cancelled".
        input_data: The input, as code; None for that of the test that ran.
        imports: What the lines need.
        is_concurrent: Whether several calls are to be under way at a time.
    """

    faults: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    ends: str = "ok"
    input_data: str | None = None
    imports: set[str] = field(default_factory=set)
    is_concurrent: bool = False

    def fault(self, node: Node, call: str, when: str = "") -> Recipe:
        """Script a fault at a node."""
        if when:
            maker = when.lstrip("~").partition("(")[0]
            self.imports.add(f"from pytest_tta.faults import {maker}")
            call = f"{call[:-1]}{'' if call.endswith('()') else ', '}when={when})"
        self.faults.append(f'tta.faults.at("/{node.path}").{call}')
        return self

    def fail(self, node: Node, error: Written | None = None, when: str = "") -> Recipe:
        """Let a node fail."""
        error = error or failure_for(None)
        self.imports |= error.imports
        return self.fault(node, f"fail({error.code})", when)

    def hang(self, node: Node, when: str = "") -> Recipe:
        """Let a node never answer."""
        return self.fault(node, "hang()", when)

    def slow(self, node: Node, seconds: float, when: str = "") -> Recipe:
        """Let a node answer late."""
        return self.fault(node, f"slow({seconds:.9g})", when)

    def ending(self, how: str) -> Recipe:
        """Say how a plain run ends."""
        self.ends = how
        return self

    def times(self, count: int) -> Recipe:
        """Call the workflow so many times, whatever comes of it."""
        self.imports |= {"from contextlib import suppress"}
        loop = [f"for _ in range({count}):", "    with suppress(Exception):"]
        self.calls += [*loop, "        await {call}"] if count > 1 else self._once()
        return self

    @staticmethod
    def _once() -> list[str]:
        return ["with suppress(Exception):", "    await {call}"]

    def pause(self, seconds: float | str) -> Recipe:
        """Let virtual time pass."""
        self.imports.add("import asyncio")
        self.calls.append(f"await asyncio.sleep({seconds})")
        return self

    def together(self, count: int) -> Recipe:
        """Call the workflow so many times at the same time."""
        self.imports.add("import asyncio")
        self.is_concurrent = True
        self.calls += [
            f"calls = [{{call}} for _ in range({count})]",
            "await asyncio.gather(*calls, return_exceptions=True)",
        ]
        return self

    def cancelled(self, count: int = 1) -> Recipe:
        """Cancel the last of so many simultaneous calls while they wait."""
        self.imports.add("import asyncio")
        task = "asyncio.ensure_future({call})"
        if count == 1:
            self.calls.append(f"task = {task}")
            self.pause(_SOON)
            self.calls += ["task.cancel()", "await asyncio.wait([task])"]
            return self
        self.is_concurrent = True
        self.calls.append(f"tasks = [{task} for _ in range({count})]")
        self.pause(_SOON)
        self.calls += [
            "for task in reversed(tasks):",
            "    task.cancel()",
            "await asyncio.wait(tasks)",
        ]
        return self


def recipe_for(node: Node, outcome: str, primitive: Any) -> Recipe | None:
    """Return how an outcome is reached; None if that depends on the input.

    Args:
        node: Where.
        outcome: One of the node's universe.
        primitive: What stands there.
    """
    if outcome == "cancelled" and node.kind not in _CANCELLED_FROM_OUTSIDE:
        target = next((one for one in node.children if one.waits), node)
        return Recipe().fault(target, "cancel()").ending("cancelled")
    if outcome == "cancelled":
        return Recipe().hang(node.children[0]).cancelled()
    make = _RECIPES.get(node.kind, _other)
    return make(node, outcome, primitive)


# Where a cancellation that begins inside stays inside.
_CANCELLED_FROM_OUTSIDE = frozenset({"parallel", "map", "hedge", "cache"})


def _named(node: Node, outcome: str) -> Node:
    return node.by_label[outcome.partition("@")[2]]


def _other(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    if outcome == "failed":
        return Recipe().fail(node).ending("failed")
    return Recipe() if outcome == "ok" else None


@_RECIPES.of("sequential")
def _sequential(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    if outcome == "complete":
        return Recipe()
    return Recipe().fail(_named(node, outcome)).ending("failed")


@_RECIPES.of("parallel")
def _parallel(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    if outcome == "all ok":
        return Recipe()
    recipe = Recipe().ending("failed")
    if outcome == "several fail":
        for child in [one for one in node.children if one.fails][:2]:
            recipe.fail(child)
        return recipe
    return recipe.fail(_named(node, outcome))


@_RECIPES.of("map")
def _map(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    if outcome == "all ok":
        return Recipe()
    if outcome == "empty":
        return Recipe(input_data="[]") if node.above is None else None
    return Recipe().fail(node.children[0], when=_FIRST).ending("failed")


@_RECIPES.of("conditional", "router")
def _choice(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    """Ways depend on the input; only that the one taken fails does not."""
    if outcome != "branch fails":
        return None
    recipe = Recipe().ending("failed")
    return recipe if len(node.children) != 1 else recipe.fail(node.children[0])


@_RECIPES.of("retry")
def _retry(node: Node, outcome: str, retry: Any) -> Recipe | None:
    child, failure = node.children[0], failure_for(retry)
    if outcome.startswith("ok@"):
        number = int(outcome.removeprefix("ok@").removesuffix("+"))
        recipe = Recipe()
        return (
            recipe.fail(child, failure, f"first({number - 1})")
            if number > 1
            else recipe
        )
    simple = {
        "exhausted": Recipe().fail(child, failure).ending("failed"),
        "cancelled in attempt": Recipe().fault(child, "cancel()").ending("cancelled"),
        "cancelled in backoff": Recipe().fail(child, failure, _FIRST).cancelled(),
        "budget ends it": Recipe().fail(child, failure).times(50),
    }
    return simple.get(outcome) or _retry_by_error(node, outcome, retry)


def _retry_by_error(node: Node, outcome: str, retry: Any) -> Recipe | None:
    child = node.children[0]
    if outcome == "not retried":
        return _failing_with(child, permanent_for(retry))
    if outcome == "hint honoured":
        error = hint_for(retry)
        return None if error is None else Recipe().fail(child, error, _FIRST)
    limit = _limit_of(node)
    if limit is None or outcome != "deadline ends it":
        return None
    if node.config["attempt_timeout"] is not None:
        return None
    recipe = Recipe().slow(child, limit - 0.0001)
    return recipe.fail(child, failure_for(retry)).ending("failed")


def _failing_with(node: Node, error: Written | None) -> Recipe | None:
    return None if error is None else Recipe().fail(node, error).ending("failed")


def _limit_of(node: Node) -> float | None:
    """Return the seconds that a retry has, from itself or the nearest limit outside."""
    found: list[Any] = [node.config["max_elapsed"]]
    inside, above = node, node.above
    while above is not None:
        if above.kind == "timeout" and inside.index == 0:
            found.append(above.config["timeout_seconds"])
        elif above.kind == "retry":
            found += [above.config["max_elapsed"], above.config["attempt_timeout"]]
        inside, above = above, above.above
    limits = [limit for limit in found if limit is not None]
    return min(limits) if limits else None


@_RECIPES.of("fallback")
def _fallback(node: Node, outcome: str, fallback: Any) -> Recipe | None:
    recipe, failure = Recipe(), failure_for(fallback)
    if outcome == "primary ok":
        return recipe
    if outcome == "not eligible":
        return _failing_with(node.children[0], permanent_for(fallback))
    is_all = outcome == "all failed"
    last = None if is_all else _named(node, outcome).index
    for child in node.children[:last]:
        recipe.fail(child, failure)
    return recipe.ending("failed" if is_all else "ok")


@_RECIPES.of("timeout")
def _timeout(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    child = node.children[0]
    if outcome == "in time":
        return Recipe()
    if outcome == "inner error":
        return Recipe().fail(child).ending("failed")
    if outcome == "inner TimeoutError":
        return Recipe().fail(child, Written('TimeoutError("inner")')).ending("failed")
    recipe = Recipe().hang(child)
    if outcome == "fallback fails":
        return recipe.fail(node.children[1]).ending("failed")
    return recipe.ending("failed" if outcome == "fired" else "ok")


@_RECIPES.of("breaker")
def _breaker(node: Node, outcome: str, breaker: Any) -> Recipe | None:
    child, policy = node.children[0], breaker._policy
    count = policy.threshold or policy.minimum_calls
    failure, pause = failure_for(breaker), policy.first_break
    if outcome == "error ignored":
        return _failing_with(child, permanent_for(breaker))

    def opened() -> Recipe:
        return Recipe().fail(child, failure, f"first({count})").times(count)

    def reopening() -> Recipe:
        return Recipe().fail(child, failure).times(count)

    probes = policy.success_threshold
    simple = {
        "ok": Recipe(),
        "error counted": Recipe().fail(child, failure, _FIRST).ending("failed"),
        "opens": reopening(),
        "open rejects": Recipe().fail(child, failure).times(count + 1),
        "probe ok": opened().pause(pause).times(1),
        "probe closes": opened().pause(pause).times(probes),
        "probe reopens": reopening().pause(pause).times(1),
        "probe cancelled": opened()
        .hang(child, f"nth({count + 1})")
        .pause(pause)
        .cancelled(),
        "half-open rejects": opened()
        .slow(child, 0.01, f"~first({count})")
        .pause(pause)
        .together(policy.half_open_max_calls + 1),
    }
    return simple.get(outcome)


@_RECIPES.of("cache")
def _cache(node: Node, outcome: str, cache: Any) -> Recipe | None:
    child, policy = node.children[0], cache._policy
    simple = {
        "miss": Recipe(),
        "load fails": Recipe().fail(child).ending("failed"),
        "hit": Recipe().times(2),
        "coalesced": Recipe().slow(child, 0.01).together(2),
    }
    if outcome in simple:
        return simple[outcome]
    if outcome == "failure remembered":
        return Recipe().fail(child, failure_for(cache), _FIRST).times(2)
    if callable(policy.ttl) or outcome == "storage fails":
        return None
    return _expired_cache(child, outcome, policy)


def _expired_cache(child: Node, outcome: str, policy: Any) -> Recipe:
    later, recipe = policy.ttl, Recipe()
    if outcome == "expired":
        return recipe.times(1).pause(later + policy.stale_window).times(1)
    if outcome in {"stale on error", "refresh fails"}:
        recipe.fail(child, when="nth(2)")
    if outcome == "stale on error":
        later += policy.stale_ttl
    elif policy.early_refresh and outcome.startswith("refresh"):
        later -= policy.early_refresh / 2
    return recipe.times(1).pause(later).times(1).pause(_SOON)


@_RECIPES.of("saga")
def _saga(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    if outcome == "complete":
        return Recipe()
    if not node.config["listed"]:
        return _saga_of_workflow(node, outcome)
    if outcome.startswith("fails@"):
        return Recipe().fail(_named(node, outcome)).ending("failed")
    undo = node.by_label[undone_by(node)[_named(node, outcome).label]]
    recipe = Recipe().fail(undo).ending("failed")
    return recipe if undo_runs(undo, recipe) else None


def undo_runs(undo: Node, recipe: Recipe) -> bool:
    """Script the failure after which a compensation runs; tell whether there is one."""
    owner = undo.above
    failing: Node | None = None
    if owner is not None and owner.kind == "saga":
        labels = {undone: step for step, undone in undone_by(owner).items()}
        later = later_steps(owner, owner.by_label[labels[undo.label]])
        failing = next((one for one in later if one.waits), None)
    elif owner is not None:
        saga = owner.above
        while saga is not None and saga.kind != "saga":
            saga = saga.above
        last = None if saga is None else _last_call(saga)
        failing = None if last in set(owner.all()) else last
    if failing is None:
        return False
    recipe.fail(failing).ending("failed")
    return True


def _saga_of_workflow(node: Node, outcome: str) -> Recipe | None:
    steps = [one for one in node.all() if one.kind == "compensation"]
    if outcome == "fails":
        return Recipe().fail(node.children[0]).ending("failed")
    if not steps:
        return None
    last = _last_call(node)
    if last is None:
        return None
    undone = next((step for step in steps if last not in set(step.all())), None)
    if undone is None:
        return None
    recipe = Recipe().fail(last).ending("failed")
    return (
        recipe.fail(undone.children[1]) if "compensation fails" in outcome else recipe
    )


def _last_call(node: Node) -> Node | None:
    """Return the last leaf that may fail, compensations left out."""
    found = None
    if node.kind == "leaf" and node.fails:
        return node
    for child in node.children:
        if not (node.kind == "compensation" and child.index == 1):
            found = _last_call(child) or found
    return found


@_RECIPES.of("compensation")
def _compensation(node: Node, outcome: str, _primitive: Any) -> Recipe | None:
    step, undo = node.children
    if outcome == "done":
        return Recipe()
    if outcome == "fails":
        return Recipe().fail(step).ending("failed")
    recipe = Recipe()
    if outcome == "undo fails":
        recipe.fail(undo)
    return recipe if undo_runs(undo, recipe) else None


@_RECIPES.of("bulkhead")
def _bulkhead(node: Node, outcome: str, bulkhead: Any) -> Recipe | None:
    child, places = node.children[0], bulkhead.max_concurrency
    if outcome == "admitted":
        return Recipe()
    if outcome == "released after error":
        return Recipe().fail(child).ending("failed")
    if outcome == "queued":
        return Recipe().slow(child, 0.01).together(places + 1)
    if outcome == "cancelled in queue":
        return Recipe().hang(child).cancelled(places + 1)
    if outcome == "rejected max_wait":
        return Recipe().slow(child, bulkhead.max_wait + 1).together(places + 1)
    return Recipe().slow(child, 0.01).together(places + bulkhead.max_queue + 1)


@_RECIPES.of("rate limit")
def _rate_limit(node: Node, outcome: str, limit: Any) -> Recipe | None:
    if outcome == "admitted":
        return Recipe()
    if limit._units != 1:
        return None
    capacity = 1 if limit.algorithm == "leaky_bucket" else limit.burst or limit.rate
    count = math.floor(max(1, capacity)) + 1
    if outcome == "delayed":
        return Recipe().together(count)
    if outcome == "rejected":
        waits = math.ceil(limit.max_wait * limit.rate / limit.period)
        return Recipe().together(count + waits + 1)
    if outcome == "cancelled in wait":
        return Recipe().cancelled(count)
    busy = 'type("Busy", (Exception,), {"status_code": 429, "retry_after": 1})'
    error = Written(busy) if limit.penalize_on is None else failure_for(limit)
    return Recipe().fail(node.children[0], error, _FIRST).ending("failed")


@_RECIPES.of("hedge")
def _hedge(node: Node, outcome: str, hedge: Any) -> Recipe | None:
    primary, *others = node.children
    if outcome == "primary alone":
        return Recipe()
    if outcome == "hedge wins":
        return Recipe().hang(primary, "" if others else _FIRST)
    if outcome == "all fail":
        recipe = Recipe().ending("failed")
        for child in node.children:
            recipe.fail(child)
        return recipe
    if outcome == "not hedged":
        return None if hedge.idempotent else Recipe()
    if not isinstance(hedge.delay, (int, float)):
        return None
    recipe = Recipe().slow(primary, hedge.delay + 0.01, "" if others else _FIRST)
    return recipe.hang(others[0]) if others else recipe.hang(primary, "nth(2)")
