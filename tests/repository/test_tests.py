"""Rules that the tests themselves keep."""

from __future__ import annotations

import ast

from tests.repository.source import every_test, modules

ENDS_WITHOUT_A_MESSAGE = {
    "CancelledError",
    "GeneratorExit",
    "KeyboardInterrupt",
    "StopAsyncIteration",
    "StopIteration",
    "SystemExit",
}


def is_raises(node: ast.AST) -> bool:
    """Return whether `node` calls `pytest.raises`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises"


def says_which(call: ast.Call) -> bool:
    """Return whether a `pytest.raises` looks at more than the type."""
    kind = ast.unparse(call.args[0]).split(".")[-1] if call.args else ""
    words = {keyword.arg for keyword in call.keywords}
    return kind in ENDS_WITHOUT_A_MESSAGE or not words.isdisjoint({"match", "check"})


def test_every_test_says_in_a_sentence_what_it_shows() -> None:
    """A failing test is understood from its docstring alone."""
    silent = [
        f"{m.at(t)} {t.name}" for m, t in every_test() if not ast.get_docstring(t)
    ]
    assert silent == []


def test_every_raises_looks_at_the_message() -> None:
    """The right type with the wrong message is a bug that a test must see."""
    found = [
        module.at(node)
        for module in (*modules("tests"), *modules("examples"))
        for node in ast.walk(module.tree)
        if is_raises(node) and not says_which(node)
    ]
    assert found == []


def test_no_test_waits_in_real_time() -> None:
    """`time.sleep` in a test file is slow or flaky; the few clock cases excepted."""
    found = [
        module.at(node)
        for module in modules("tests")
        if "tests/clock/" not in module.path.as_posix()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ]
    assert found == []
