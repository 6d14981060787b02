"""The shape of both packages: what they show, and that all of it is documented."""

from __future__ import annotations

import ast
import difflib
import importlib
import types
from typing import TYPE_CHECKING

import pytest

from tests.repository import api
from tests.repository.source import PACKAGES, Module, functions, modules

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_MODULE = [module for package in PACKAGES for module in modules(package)]
FACES = [module.name for module in EVERY_MODULE if module.is_face]
LONGEST_FUNCTION = 60

every_module = pytest.mark.parametrize(
    "module", EVERY_MODULE, ids=[module.name for module in EVERY_MODULE]
)


def visible(face: types.ModuleType) -> set[str]:
    """Return the public names that `dir()` shows in `face`, modules left out."""
    names = {name for name in dir(face) if not name.startswith("_")}
    names -= {"TYPE_CHECKING", "annotations"}
    return {n for n in names if not isinstance(getattr(face, n), types.ModuleType)}


def order(name: str) -> tuple[int, str]:
    """Return the place of `name` in `__all__`: constants, classes, functions."""
    if len(name) > 1 and name.isupper():
        return 0, name
    return (1 if name[0].isupper() else 2), name


def public_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the public classes and functions of `tree`, methods included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node
            yield from public_nodes(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") and not excused(node):
                yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from public_nodes(node)


def excused(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether another definition carries the docstring of `node`."""
    marks = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return not marks.isdisjoint({"overload", "override", "setter", "deleter"})


@pytest.mark.parametrize("name", FACES)
def test_all_is_what_is_visible(name: str) -> None:
    """What `__all__` lists and what a reader sees in `dir()` are the same."""
    face = importlib.import_module(name)
    assert set(getattr(face, "__all__", ())) == visible(face)


@pytest.mark.parametrize("name", FACES)
def test_all_is_sorted(name: str) -> None:
    """A name is found where it is looked for, and stands there once."""
    listed = list(getattr(importlib.import_module(name), "__all__", ()))
    assert listed == sorted(set(listed), key=order)


@every_module
def test_every_public_object_has_a_docstring(module: Module) -> None:
    """Modules, classes, functions and methods say what they are for."""
    nodes = [module.tree, *public_nodes(module.tree)]
    silent = [node for node in nodes if not ast.get_docstring(node)]
    assert [module.at(n) for n in silent if not module.lets_pass(n, "D10")] == []


@every_module
def test_packages_hold_no_bare_assert(module: Module) -> None:
    """An assert vanishes under `-O` and is rewritten by pytest: raise instead."""
    found = [n for n in ast.walk(module.tree) if isinstance(n, ast.Assert)]
    assert [module.at(node) for node in found] == []


@every_module
def test_no_function_is_longer_than_a_screen(module: Module) -> None:
    """A function that needs scrolling is two functions."""
    long = {
        f"{module.at(f)} {f.name}": lines
        for f in functions(module)
        if (lines := (f.end_lineno or f.lineno) - f.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize(
    "module", [m for m in EVERY_MODULE if m.name == "tta_primitives"]
)
def test_pytest_leaves_the_runtime_as_it_is(module: Module) -> None:
    """One word keeps a wheel's runtime from being rewritten in users' tests."""
    assert "PYTEST_DONT_REWRITE" in (ast.get_docstring(module.tree) or "")


def test_names_and_signatures_are_those_that_were_reviewed() -> None:
    """What users may call changes on purpose, in a file that a reviewer reads."""
    reviewed = api.FILE.read_text("utf-8").splitlines()
    now = api.api().splitlines()
    changed = list(difflib.unified_diff(reviewed, now, "reviewed", "now", "", "", 0))
    assert changed == [], f"if this is on purpose: {api.COMMAND}"


class Base:
    """Stands for a private base class."""

    def inherited(self, value: str = "a") -> None:
        """Do nothing."""


class Toy(Base):
    """Stands for a public class."""

    size: int = 3

    async def run(self, first: int, /, *rest: str, limit: float | None = None) -> str:
        """Return nothing of worth."""
        return f"{first}{rest}{limit}"

    @property
    def name(self) -> str:
        """The name."""
        return ""

    def _private(self) -> None:
        """Is not shown."""


def toy(function: object = repr, *, types: tuple[type, ...] = (int, str)) -> None:
    """Do nothing."""


def test_line_of_a_function_has_its_defaults() -> None:
    """A default is written so that no run and no interpreter changes it."""
    assert api.lines_of("toy", toy) == [
        (
            "def toy(function: object = repr, *, types: tuple[type, ...] = (int, str))"
            " -> None"
        )
    ]


def test_lines_of_a_class_have_what_is_inherited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What private bases bring is shown, what is private is not."""
    monkeypatch.setattr(api, "OURS", (__name__,))
    assert api.lines_of("Toy", Toy) == [
        "class Toy(Base)",
        (
            "    async def run(self, first: int, /, *rest: str, "
            "limit: float | None = None) -> str"
        ),
        "    def inherited(self, value: str = 'a') -> None",
        "    name: str (property)",
        "    size: int",
    ]
