"""The public names of both packages and how they are called, as text.

`python -m tests.repository.api` writes them to `api.txt`, for a reviewer to read: what
is new there is a promise, and what is gone is one that is broken. What counts as public
is what the pages of the reference name; options, markers and fixtures count as well.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, ForwardRef, get_origin, get_overloads

from tests.repository.source import ROOT, modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

COMMAND = "python -m tests.repository.api"
FILE = ROOT / "tests" / "repository" / "api.txt"
OURS = ("tta_primitives", "pytest_tta")
_WHOLE = re.compile(r"^\.\. automodule:: ([\w.]+)", re.MULTILINE)
_SINGLE = re.compile(r"^\.\. auto(?:class|function|data):: ([\w.]+)", re.MULTILINE)
_SPECIAL = {
    *("__aenter__", "__aexit__", "__aiter__", "__anext__", "__call__", "__contains__"),
    *("__enter__", "__eq__", "__exit__", "__getitem__", "__init__", "__iter__"),
    *("__len__", "__or__", "__ror__", "__rrshift__", "__rshift__"),
}


def api() -> str:
    """Return one line for each public name, module by module."""
    parts = [_title(name, _module(name)) for name in _public_modules()]
    return "\n\n".join([*parts, _plugin()]) + "\n"


def _public_modules() -> list[str]:
    whole = set(_WHOLE.findall(_reference()))
    single = {path.rpartition(".")[0] for path in _SINGLE.findall(_reference())}
    return sorted(whole | single, key=lambda name: (not name.startswith(OURS[0]), name))


@cache
def _reference() -> str:
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return "\n".join(page.read_text("utf-8") for page in pages)


def _names_of(module_name: str) -> list[str]:
    """Return the names that the reference shows of one module."""
    is_whole = module_name in _WHOLE.findall(_reference())
    names = set(import_module(module_name).__all__) if is_whole else set()
    for path in _SINGLE.findall(_reference()):
        home, _, name = path.rpartition(".")
        names |= {name} if home == module_name else set()
    return sorted(names)


def _module(module_name: str) -> list[str]:
    module = import_module(module_name)
    return [line for name in _names_of(module_name) for line in _lines(module, name)]


def _title(title: str, lines: list[str]) -> str:
    return "\n".join([f"[{title}]", *lines])


def _lines(module: ModuleType, name: str) -> Iterator[str]:
    value = getattr(module, name)
    home = _public_classes().get(value) if inspect.isclass(value) else None
    if home is not None and home != module.__name__:
        yield f"class {name}: the one of {home}"
    elif inspect.isclass(value) or inspect.isfunction(value):
        yield from lines_of(name, value)
    else:
        written = _written(module.__name__, name)
        yield f"{name}{written or f': {type(value).__name__}'}"


def lines_of(name: str, value: type | Callable[..., object]) -> list[str]:
    """Return the lines of one class, or of one function with its overloads."""
    if not inspect.isclass(value):
        return _functions(name, value)
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    members = [f"    {line}" for line in sorted(set(_members(value)))]
    return [f"class {name}({bases})" if bases else f"class {name}", *members]


def _members(kind: type) -> Iterator[str]:
    """Yield what is public in a class, and in the private ones that it is made of."""
    seen: set[str] = set()
    for owner in kind.__mro__:
        is_listed = owner is not kind and owner in _public_classes()
        if is_listed or not owner.__module__.startswith(OURS):
            continue
        fields = inspect.get_annotations(owner)
        for name, value in {**dict.fromkeys(fields), **vars(owner)}.items():
            if name in seen or not _is_public(name):
                continue
            seen.add(name)
            yield from _member(name, value, fields.get(name))


@cache
def _public_classes() -> dict[object, str]:
    """Return the classes that the reference shows, and the module that shows each."""
    found: dict[object, str] = {}
    for module_name in _public_modules():
        for name in _names_of(module_name):
            value = getattr(import_module(module_name), name)
            if inspect.isclass(value):
                found.setdefault(value, module_name)
    return found


def _is_public(name: str) -> bool:
    return name in _SPECIAL or not name.startswith("_")


def _member(name: str, value: object, annotation: object) -> Iterator[str]:
    if isinstance(value, property):
        returned = inspect.get_annotations(value.fget).get("return")
        yield f"{name}: {_type(returned)} (property)"
    elif isinstance(value, classmethod | staticmethod):
        for line in _functions(name, value.__func__):
            yield f"{type(value).__name__} {line}"
    elif inspect.isfunction(value):
        yield from _functions(name, value)
    elif annotation is not None:
        yield f"{name}: {_type(annotation)}"
    elif inspect.ismemberdescriptor(value):
        yield f"{name}: an attribute"
    else:
        yield f"{name} = {_value(value)}"


def _functions(name: str, function: Callable[..., object]) -> list[str]:
    """Return one line for a function, or one for each of its overloads."""
    return [_function(name, one) for one in get_overloads(function) or [function]]


def _function(name: str, function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
    words = "async def" if is_async else "def"
    return f"{words} {name}({', '.join(_parameters(signature))}){_result(signature)}"


def _result(signature: inspect.Signature) -> str:
    returned = signature.return_annotation
    return "" if returned is signature.empty else f" -> {_type(returned)}"


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    """Yield the parameters as they are written, with `/` and `*` between them."""
    kinds = inspect.Parameter
    before = None
    for one in signature.parameters.values():
        if before == kinds.POSITIONAL_ONLY != one.kind:
            yield "/"
        marked = before in {kinds.VAR_POSITIONAL, kinds.KEYWORD_ONLY}
        if one.kind == kinds.KEYWORD_ONLY and not marked:
            yield "*"
        before = one.kind
        yield _parameter(one)
    if before == kinds.POSITIONAL_ONLY:
        yield "/"


def _parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    written = f"{stars}{one.name}"
    if one.annotation is not one.empty:
        written += f": {_type(one.annotation)}"
    if one.default is not one.empty:
        written += f" = {_value(one.default)}"
    return written


def _type(annotation: object) -> str:
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation)


def _value(value: object) -> str:
    """Return a default as text that no run and no version of Python changes."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__name__
    if isinstance(value, str | int | float | bytes | None):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, list | dict) and not value:
        return repr(value)
    return "..."


def _written(module_name: str, name: str) -> str | None:
    """Return what is assigned to a name, as the source says it; None if nothing is."""
    for node in _nodes(module_name):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module:
                    return _written(node.module, alias.name)
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            return f" = {ast.unparse(node.value)}"
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            assigned = "" if node.value is None else f" = {ast.unparse(node.value)}"
            return f": {ast.unparse(node.annotation)}{assigned}"
    return None


def _nodes(module_name: str) -> Iterator[ast.AST]:
    for package in OURS:
        for module in modules(package):
            if module.name == module_name:
                yield from ast.walk(module.tree)


class _Parser:
    """Stands for pytest's parser, and keeps what the plugin adds to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def getgroup(self, *_: object) -> _Parser:
        return self

    def addoption(self, name: str, **told: object) -> None:
        takes = told.get("action") in {"store_const", "store_true"}
        value = "" if takes else f"={told.get('metavar') or _choices(told)}"
        self.lines.append(f"option {name}{value}")

    def addini(self, name: str, *_: object, **told: object) -> None:
        kind = told.get("type", "string")
        self.lines.append(f"ini {name}: {kind} = {_value(told.get('default'))}")


def _choices(told: dict[str, object]) -> str:
    choices = told.get("choices")
    return "|".join(map(str, choices)) if isinstance(choices, list) else "VALUE"


def _plugin() -> str:
    """Return what `pytest --tta` adds to pytest."""
    plugin = import_module("pytest_tta.plugin")
    parser = _Parser()
    plugin.pytest_addoption(parser)
    markers = [f"marker {line.partition(': ')[0]}" for line in plugin._MARKERS]
    names = import_module("pytest_tta.names").FIXTURES
    fixtures = [f"fixture {name}" for name in sorted(names)]
    return _title("pytest", [*sorted(parser.lines), *sorted(markers), *fixtures])


if __name__ == "__main__":
    FILE.write_text(api(), "utf-8")
