"""What the repository holds, read without importing it."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGES = ("tta_primitives", "pytest_tta")


@dataclass(frozen=True)
class Module:
    """One Python file of a package: its dotted name, its path, its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_face(self) -> bool:
        """Whether this is the `__init__` of a package."""
        return self.path.name == "__init__.py"

    def lets_pass(self, node: ast.AST, code: str) -> bool:
        """Return whether the line of `node` says that rule `code...` is not for it."""
        line = self.path.read_text("utf-8").splitlines()[getattr(node, "lineno", 1) - 1]
        return f"noqa: {code}" in line

    def at(self, node: ast.AST) -> str:
        """Return where `node` stands, as `path:line`."""
        return f"{self.path.relative_to(ROOT).as_posix()}:{getattr(node, 'lineno', 1)}"


@cache
def files() -> tuple[Path, ...]:
    """Return every file that is tracked, or would be after `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(sorted({path for path in paths if path.is_file()}))


@cache
def modules(folder: str) -> tuple[Module, ...]:
    """Return the Python files below `folder`, parsed."""
    within = [
        p for p in files() if p.suffix == ".py" and p.is_relative_to(ROOT / folder)
    ]
    return tuple(
        Module(dotted_name(path), path, ast.parse(path.read_text("utf-8")))
        for path in within
    )


def dotted_name(path: Path) -> str:
    """Return the name under which the file at `path` is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: Module, *, inside_functions: bool = True) -> Iterator[str]:
    """Yield the dotted names that `module` imports when it runs.

    Imports for type checkers alone are left out: they never run. `from a import b`
    yields `a.b` where that is a module of ours, else `a`.
    """
    for node in _running(module.tree, inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if exists(name) else node.module for name in inner)


def exists(name: str) -> bool:
    """Return whether `name` is a module or a package of this repository."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _running(node: ast.AST, *, inside_functions: bool) -> Iterator[ast.AST]:
    """Yield the nodes below `node` that are not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from child.orelse
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and (
            not inside_functions
        ):
            continue
        yield child
        yield from _running(child, inside_functions=inside_functions)


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of `module`, methods and nested ones included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def every_test() -> Iterator[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every test function of the tests and the examples, with its file."""
    for module in (*modules("tests"), *modules("examples")):
        if not module.path.name.startswith("test_"):
            continue
        for function in collected(module.tree):
            yield module, function


def collected(
    tree: ast.Module | ast.ClassDef,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions that pytest collects from `tree`: no nested ones."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from collected(node)
        elif isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef
        ) and node.name.startswith("test"):
            yield node
