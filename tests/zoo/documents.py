"""A bug of the zoo as the file of a user, and what a session says of it.

`python -m tests.zoo --outputs` writes what sessions say into `tests/zoo/outputs`. They
are read by people who know nothing of the bug: from the output alone they should tell
which call failed, why that breaks the test, and how to bring it back.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.zoo.bug import bounded_op
from tests.zoo.catalogue import ZOO

if TYPE_CHECKING:
    from tests.zoo.bug import Bug

__all__ = [
    "DOCUMENTS",
    "OPTIONS",
    "OUTPUTS",
    "bug_named",
    "environment",
    "normalised",
    "said_of",
    "source_of",
    "write_all",
]

OUTPUTS = Path(__file__).with_name("outputs")

DOCUMENTS = (
    "stampede",
    "lock-order",
    "leaked-permit",
    "lost-slot",
    "leaked-task",
    "swallowed-cancellation",
    "double-charge",
    "crashing-handler",
    "unbounded-primary",
    "nested-retries",
)
"""The bugs whose outputs are kept: one of each kind of finding that people meet."""

OPTIONS = (
    *("-p", "pytest_tta.plugin", "-p", "no:cacheprovider"),
    *("--tta", "--tta-explore", "--tta-failures=none", "--color=no"),
)
_WIDTH = 88
# What tells of the machine, and not of the test.
_MACHINE = ("platform ", "cachedir: ", "rootdir: ", "plugins: ", "asyncio: ")
_TABLE = re.compile(r"=== tta ===\n.*?(?====)", re.DOTALL)
_NO_USERS = {"__future__", "tests.zoo.bug"}


def bug_named(name: str) -> Bug:
    """Return a bug of the zoo.

    Args:
        name: Its name.
    """
    return next(bug for bug in ZOO if bug.name == name)


def source_of(bug: Bug) -> str:
    """Return a file of tests with the bug alone, as somebody would have written it.

    Args:
        bug: Which one.
    """
    name = bug.body.__name__
    text = Path(bug.body.__code__.co_filename).read_text("utf-8")
    tree = ast.parse(text)
    version = _version(tree, name)
    body = "\n\n\n".join(_definitions(tree, text, {name, *version.split(".")}))
    if "bounded_op(" in body:
        body = f"{inspect.getsource(bounded_op)}\n\n{body}"
    written = re.sub(
        rf"def {name}\(tta, build\):", f"def test_{name}(tta, build={version}):", body
    )
    return f"{_imports(tree, body)}\n\n\n{written}\n"


def _version(tree: ast.Module, name: str) -> str:
    """Return the code of the version with the bug, as the list of bugs has it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Bug":
            _, _, _, body, buggy, *_ = node.args
            if ast.unparse(body) == name:
                return ast.unparse(buggy)
    raise LookupError(name)


def _imports(tree: ast.Module, body: str) -> str:
    """Return the imports that a text needs."""
    lines = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            used = [one for one in node.names if re.search(rf"\b{one.name}\b", body)]
            node.names = used
            if used and getattr(node, "module", "") not in _NO_USERS:
                lines.append(ast.unparse(node))
    return "\n".join(lines)


def _definitions(tree: ast.Module, text: str, names: set[str]) -> list[str]:
    """Return what some names stand for, and all that this needs, in its order."""
    defined = {name: node for node in tree.body for name in _defines(node)}
    wanted: set[ast.stmt] = set()
    waiting = [defined[name] for name in names if name in defined]
    while waiting:
        node = waiting.pop()
        if node not in wanted:
            wanted.add(node)
            used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            waiting += [defined[name] for name in used if name in defined]
    return [_text_of(node, text) for node in tree.body if node in wanted]


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [one.id for one in node.targets if isinstance(one, ast.Name)]
    return []


def _text_of(node: ast.stmt, text: str) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(one.lineno for one in decorators)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def said_of(bug: Bug) -> str:
    """Run a session on a bug as a user would, and return what it prints.

    Args:
        bug: Which one.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_shop.py").write_text(source_of(bug), "utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, "test_shop.py"],
            cwd=folder,
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    return normalised(done.stdout)


def environment() -> dict[str, str]:
    """Return the variables that make what is printed the same everywhere."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    root = str(Path(__file__).parents[2])
    return {
        **kept,
        "COLUMNS": str(_WIDTH),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": root,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def normalised(text: str) -> str:
    """Return what a session printed without what differs from machine to machine.

    Args:
        text: The output.
    """
    lines = text.rstrip().splitlines()
    kept = [line.rstrip() for line in lines if not line.startswith(_MACHINE)]
    joined = "\n".join(kept)
    joined = re.sub(r" in \d+\.\d+s", " in 0.00s", joined)
    # The last column of the table of workflows is the time on the wall.
    joined = re.sub(r"(?m)\d+\.\d\d s$", "0.00 s", joined)
    joined = re.sub(r" at 0x[0-9a-f]+", " at 0x0", joined)
    joined = re.sub(r"(?m)^=+ (.*?) =+$", r"=== \1 ===", joined) + "\n"
    return _TABLE.sub(_without_real_time, joined)


def _without_real_time(table: re.Match[str]) -> str:
    return re.sub(r"(?m) +(real|\S+ s)$", "", table[0])


def write_all() -> None:
    """Write the outputs of all documents."""
    OUTPUTS.mkdir(exist_ok=True)
    for name in DOCUMENTS:
        path = OUTPUTS / f"{name}.txt"
        path.write_text(said_of(bug_named(name)), "utf-8")
