"""Tests to paste: one for each outcome that was not reached."""

# ruff: noqa: ANN401 - primitives and inputs of any class

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.coverage.errors import failure_for
from pytest_tta.coverage.recipes import Recipe, recipe_for, undo_runs
from pytest_tta.coverage.universe import undone_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

    from pytest_tta.clock.places import Spot
    from pytest_tta.coverage.births import Births
    from pytest_tta.coverage.collector import Collector, Tree
    from pytest_tta.coverage.data import CoverageData, WorkflowCoverage
    from pytest_tta.coverage.nodes import Node

__all__ = ["as_code", "suggest", "suggestions"]

_IMPORT = "# import "
_STATUSES = {
    "failed": 'in {"failed", "timed_out"}',
    "cancelled": '== "cancelled"',
    "ok": '== "ok"',
    "undone": '== "ok"',
}
# What proves an outcome, where its primitive tells of it.
_EVENTS = {
    "exhausted": "retry.exhausted",
    "not retried": "retry.gave_up",
    "deadline ends it": "retry.gave_up",
    "budget ends it": "retry.budget_exhausted",
    "hint honoured": "retry.scheduled",
    "cancelled in backoff": "retry.scheduled",
    "fired": "timeout.expired",
    "fallback answers": "fallback.used",
    "fallback fails": "fallback.used",
    "opens": "breaker.opened",
    "open rejects": "breaker.rejected",
    "half-open rejects": "breaker.rejected",
    "probe closes": "breaker.closed",
    "probe reopens": "breaker.opened",
    "probe ok": "breaker.half_opened",
    "probe cancelled": "breaker.half_opened",
    "hit": "cache.hit",
    "expired": "cache.miss",
    "stale": "cache.stale",
    "stale on error": "cache.stale",
    "refresh": "cache.refresh",
    "refresh fails": "cache.refresh_failed",
    "coalesced": "cache.coalesced",
    "failure remembered": "cache.hit",
    "compensated": "saga.compensated",
    "compensation fails": "saga.compensation_failed",
    "queued": "bulkhead.queued",
    "cancelled in queue": "bulkhead.queued",
    "rejected full": "bulkhead.rejected",
    "rejected max_wait": "bulkhead.rejected",
    "delayed": "rate_limit.delayed",
    "cancelled in wait": "rate_limit.delayed",
    "rejected": "rate_limit.rejected",
    "penalized": "rate_limit.penalized",
    "hedge wins": "hedge.won",
    "primary wins": "hedge.started",
    "all fail": "hedge.started",
}


class _Subject(NamedTuple):
    """How a test gets hold of a workflow.

    Attributes:
        name: What the test calls it.
        argument: The fixture that gives it; empty if there is none.
        line: The line that makes it; empty if none is needed.
        imports: What that and the input need.
        input_data: The input, as code.
        missing: What nobody can tell, so that there is no test; empty if all is known.
    """

    name: str
    argument: str = ""
    line: str = ""
    imports: frozenset[str] = frozenset()
    input_data: str = ""
    missing: str = ""


def suggest(collector: Collector, item: pytest.Item) -> None:
    """Write tests for all outcomes of the workflows that a test was the first to run.

    Args:
        collector: With the trees that it has kept.
        item: The test, which still has its arguments.
    """
    collector.flush()
    for tree in collector.trees:
        if tree.node_id == item.nodeid and tree.primitive is not None:
            subject = _subject(tree, item, collector.births)
            texts = tree.workflow.suggestions
            for node, primitive in _both(tree):
                found = texts.setdefault(node.path, {})
                for outcome in node.universe:
                    found[outcome] = _text(tree, node, primitive, outcome, subject)
            tree.primitive = None


def suggestions(data: CoverageData, *, sweep: bool) -> Iterator[str]:
    """Yield the tests for what is missing, each as one text.

    Args:
        data: What was collected.
        sweep: Whether what a sweep has reached is not missing.
    """
    for workflow in data.workflows:
        found = list(_missing(workflow, sweep=sweep))
        if found:
            where = f" ({workflow.place})" if workflow.place else ""
            yield f"# {workflow.name}{where}: a file of its own, beside your tests"
            yield from _imports(found)
            yield from (_without_imports(text) for text in found)


def _missing(workflow: WorkflowCoverage, *, sweep: bool) -> Iterator[str]:
    for path, node in workflow.nodes.items():
        for outcome in node.missing(sweep=sweep):
            text = workflow.suggestions.get(path, {}).get(outcome)
            if text is not None:
                yield text


def _imports(texts: Iterable[str]) -> list[str]:
    lines = {
        line.removeprefix(_IMPORT)
        for text in texts
        for line in text.splitlines()
        if line.startswith(_IMPORT)
    }
    return sorted(lines, key=lambda line: (line.startswith("from"), line))


def _without_imports(text: str) -> str:
    lines = text.splitlines()
    return "\n".join(line for line in lines if not line.startswith(_IMPORT))


def _both(tree: Tree) -> Iterator[tuple[Node, Any]]:
    """Yield the nodes of a tree, each with what stands there."""

    def all_of(primitive: Any) -> Iterator[Any]:
        yield primitive
        for child in primitive.children():
            yield from all_of(child)

    return zip(tree.root.all(), all_of(tree.primitive), strict=True)


def _text(
    tree: Tree, node: Node, primitive: Any, outcome: str, subject: _Subject
) -> str:
    """Return one test; or a comment that says what it would need."""
    recipe = recipe_for(node, outcome, primitive)
    title = f"{node.path}: {outcome}"
    if subject.missing:
        return f"# {title}: needs {subject.missing}"
    if recipe is None:
        return f"# {title}: needs an input or a constant that leads there"
    if outcome == "branch fails" and not recipe.faults:
        hits = tree.workflow.nodes
        ran = [child for child in node.children if hits[child.path].hits]
        recipe.fail(next(iter(ran), node.children[0]))
    needed = _lead_to(tree, node, recipe)
    if needed:
        return f"# {title}: needs {needed}"
    name = re.sub(r"\W+", "_", f"test {node.path} {outcome}").strip("_").lower()
    argument = f", {subject.argument}" if subject.argument else ""
    imports = {*recipe.imports, *subject.imports}
    body = [subject.line] if subject.line else []
    body += [*recipe.faults, *_run(recipe, subject, imports)]
    return "\n".join(
        [
            *(f"{_IMPORT}{line}" for line in sorted(imports)),
            "",
            "",
            f"def {name}(tta{argument}):",
            f'    """{title}."""',
            *(
                f"    {line}".rstrip()
                for line in [*body, *_proof(node, outcome, recipe)]
            ),
        ]
    )


def _run(recipe: Recipe, subject: _Subject, imports: set[str]) -> list[str]:
    """Return the lines that run the workflow."""
    given = recipe.input_data or subject.input_data
    if recipe.calls:
        imports.add("from tta_primitives import WorkflowContext")
        call = f"{subject.name}.execute(given, WorkflowContext())"
        lines = [line.replace("{call}", call) for line in recipe.calls]
        body = [f"    {line}" for line in lines]
        return ["", "async def calls(given):", *body, "", f"tta.run(calls, {given})"]
    run = f"tta.run({subject.name}, {given})"
    if recipe.ends == "ok":
        return [run]
    imports.add("from contextlib import suppress")
    ends = "Exception"
    if recipe.ends == "cancelled":
        imports.add("import asyncio")
        ends = "asyncio.CancelledError"
    return [f"with suppress({ends}):  # say here what the caller is told", f"    {run}"]


def _proof(node: Node, outcome: str, recipe: Recipe) -> list[str]:
    """Return the assertion that the outcome was reached, as the trace shows it."""
    path, check = _checked(node, outcome, recipe)
    spans = f'spans = tta.trace.spans_at("/{path}")'
    return [spans, f"assert any({check} for span in spans)"]


def _checked(node: Node, outcome: str, recipe: Recipe) -> tuple[str, str]:
    """Return where to look, and what must hold of one of the spans there."""
    kind, _, label = outcome.partition("@")
    event = _EVENTS.get(kind)
    if event is not None:
        return node.path, f'"{event}" in span.event_names'
    if node.kind == "retry" and kind == "ok":
        number, plus, _ = label.partition("+")
        return node.path, f"span.attempts {'>=' if plus else '=='} {number}"
    status = _STATUSES.get(outcome)
    if status is None:
        # Of several calls nobody can tell how each of them ends.
        status = '!= "unfinished"' if recipe.calls else _STATUSES[recipe.ends]
    seen_at = _seen_at(node, kind, label)
    return seen_at.path, f"span.status {status}"


def _seen_at(node: Node, kind: str, label: str) -> Node:
    """Return where an outcome shows: at one that is named, or was undone, or failed."""
    if kind in {"undone", "undo fails"} and node.kind == "compensation":
        return node.children[1]
    if kind == "several fail":
        # Some of them may be tolerated, so that the whole does not fail.
        return next(child for child in node.children if child.fails)
    return node.by_label.get(label, node)


def _lead_to(tree: Tree, node: Node, recipe: Recipe) -> str:
    """Script what makes the workflow come to a node; return what would be missing."""
    stands = dict(_both(tree))
    inside, above = node, node.above
    needed = ""
    while above is not None and not needed:
        needed = _lead_into(above, inside, stands[above], recipe, tree)
        inside, above = above, above.above
    return needed


def _lead_into(
    above: Node, inside: Node, primitive: Any, recipe: Recipe, tree: Tree
) -> str:
    if above.kind in {"conditional", "router"}:
        ran = tree.workflow.nodes[inside.path].hits
        return "" if ran else f"an input for which {above.path} goes to {inside.label}"
    if above.kind == "cache" and recipe.is_concurrent:
        return f"another input for each call, as {above.path} answers the same ones"
    if above.kind == "fallback":
        for other in above.children[: inside.index]:
            recipe.fail(other, failure_for(primitive))
    elif above.kind == "timeout" and inside.index:
        recipe.hang(above.children[0])
    elif above.kind == "hedge":
        for other in above.children[: inside.index]:
            # It may answer at last, should nobody else.
            recipe.slow(other, 3600)
    elif above.kind in {"saga", "compensation"} and _undoes(above, inside):
        is_led = undo_runs(inside, recipe)
        return "" if is_led else f"a failure that {inside.path} is to undo"
    return ""


def _undoes(above: Node, inside: Node) -> bool:
    if above.kind == "compensation":
        return inside.index == 1
    return inside.label in undone_by(above).values()


def _subject(tree: Tree, item: pytest.Item, births: Births) -> _Subject:
    """Find out how another file beside this one gets hold of a workflow."""
    primitive, module = tree.primitive, getattr(item, "module", None)
    name = re.sub(r"\W", "_", tree.root.label)
    given = as_code(tree.input_data)
    if given is None:
        kind = type(tree.input_data).__name__
        missing = f"an input as code, which the {kind} of {item.name} is not"
        return _Subject(name, missing=missing)
    input_data, imports = given
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    for argument, value in arguments.items():
        if value is primitive:
            made = (
                {f"from {module.__name__} import {argument}"}
                if (module is not None and hasattr(module, argument))
                else set()
            )
            return _Subject(
                argument, argument, imports=imports | made, input_data=input_data
            )
    found = _named_in_module(primitive, module)
    if found is not None:
        variable, imported = found
        return _Subject(variable, imports=imports | imported, input_data=input_data)
    factory = _factory(births.spot_of(primitive), module)
    if factory is not None:
        maker, imported = factory
        line = f"{name} = {maker}()"
        return _Subject(
            name, line=line, imports=imports | imported, input_data=input_data
        )
    missing = "a function without arguments that makes the workflow, in a module"
    return _Subject(name, missing=missing)


def _named_in_module(primitive: Any, module: Any) -> tuple[str, frozenset[str]] | None:
    """Return the name of a workflow in a module, and the import that it needs."""
    others = [one for one in list(sys.modules.values()) if one is not module]
    for other in [*others, module]:
        for name, value in list(getattr(other, "__dict__", {}).items()):
            if value is primitive and not name.startswith("_"):
                return name, frozenset({f"from {other.__name__} import {name}"})
    return None


def _factory(spot: Spot | None, module: Any) -> tuple[str, frozenset[str]] | None:
    """Return the function that made a workflow, if a test could call it as well."""
    if spot is None or not spot[0].co_qualname.isidentifier():
        return None
    name = spot[0].co_name
    for other in [*list(sys.modules.values()), module]:
        function: Any = getattr(other, "__dict__", {}).get(name)
        if getattr(function, "__code__", None) is spot[0]:
            if spot[0].co_argcount > len(function.__defaults__ or ()):
                return None
            line = f"from {function.__module__} import {name}"
            return name, frozenset({line})
    return None


def as_code(value: Any) -> tuple[str, frozenset[str]] | None:
    """Return a value as code with the imports that it needs.

    Args:
        value: An input.

    Returns:
        None if its `repr` is no code that makes it again.
    """
    text, kind = repr(value), type(value)
    imports: frozenset[str] = frozenset()
    names: dict[str, Any] = {}
    if kind.__module__ != "builtins" and kind.__qualname__.isidentifier():
        names = {kind.__name__: kind}
        imports = frozenset({f"from {kind.__module__} import {kind.__name__}"})
    try:
        tree = ast.parse(text, mode="eval")
        if not _makes_values(tree.body, names):
            return None
        made = eval(compile(tree, "<input>", "eval"), {"__builtins__": {}}, names)  # noqa: S307 - literals, and the input's own class
        return (text, imports) if made == value else None
    except Exception:  # noqa: BLE001 - whatever a class of the user's raises
        return None


def _makes_values(node: ast.AST, names: dict[str, Any]) -> bool:
    """Tell whether an expression has literals and calls of known classes alone."""
    allowed = (
        *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Load),
        *(ast.UnaryOp, ast.USub, ast.BinOp, ast.Add, ast.keyword),
    )
    for one in ast.walk(node):
        is_known = isinstance(one, ast.Name) and one.id in names
        is_call = isinstance(one, ast.Call) and isinstance(one.func, ast.Name)
        if not (is_known or is_call or isinstance(one, allowed)):
            return False
    return True
