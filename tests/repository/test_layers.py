"""Imports fall downward, and the runtime stands on the standard library alone."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.repository.source import PACKAGES, ROOT, Module, imports, modules

# An integration is imported by those who have its library, and by nobody else.
INTEGRATIONS = "tta_primitives.integrations."
STANDARD_LIBRARY = sys.stdlib_module_names | {"__main__", "__mp_main__"}


def graph_of(package: str) -> dict[str, set[str]]:
    """Return which modules of `package` each of its modules imports."""
    names = {module.name for module in modules(package)}
    return {
        module.name: {name for name in imports(module) if name in names} - {module.name}
        for module in modules(package)
    }


def circle_in(graph: dict[str, set[str]]) -> str:
    """Return one circle of `graph`, as in `a <- b <- a`; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def room_of(name: str) -> str:
    """Return the file or folder directly below the package that holds `name`."""
    return ".".join(name.split(".")[:2])


def rooms_of(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return `graph` with each folder drawn as one point."""
    rooms: dict[str, set[str]] = {}
    for name, imported in graph.items():
        room = rooms.setdefault(room_of(name), set())
        room.update(room_of(other) for other in imported)
    return {room: imported - {room} for room, imported in rooms.items()}


def run(code: str, *options: str) -> list[str]:
    """Return the JSON list that `code` prints in a fresh interpreter."""
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_in_no_circle(package: str) -> None:
    """No module imports itself through others, not even inside a function."""
    assert circle_in(graph_of(package)) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_in_no_circle(package: str) -> None:
    """Folders stand in an order too: none imports one that imports it."""
    assert circle_in(rooms_of(graph_of(package))) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_inside_a_package_imports_its_face(package: str) -> None:
    """A face gathers what is below it; nothing below looks up at it."""
    upward = {
        module.name: name
        for module in modules(package)
        for name in imports(module)
        if module.name.startswith(f"{name}.")
    }
    assert upward == {}


def test_the_runtime_imports_neither_pytest_nor_the_plugin() -> None:
    """Not even inside a function does the runtime know about tests."""
    roots = {"pytest", "_pytest", "pytest_tta"}
    found = {
        (module.name, name)
        for module in modules("tta_primitives")
        for name in imports(module)
        if name.split(".")[0] in roots
    }
    assert found == set()


RUNTIME = modules("tta_primitives")
CORE = [m for m in RUNTIME if not m.name.startswith(INTEGRATIONS)]
THIN = [m for m in RUNTIME if m.name.startswith(INTEGRATIONS)]


@pytest.mark.parametrize("module", CORE, ids=[m.name for m in CORE])
def test_the_runtime_imports_only_the_standard_library(module: Module) -> None:
    """Third-party packages are imported where they are used, never at the top."""
    outermost = {n.split(".")[0] for n in imports(module, inside_functions=False)}
    assert outermost - STANDARD_LIBRARY - {"tta_primitives"} == set()


def test_nothing_below_an_integration_imports_one() -> None:
    """The runtime does not know which hosts it runs in."""
    found = {
        (module.name, name)
        for module in CORE
        for name in imports(module)
        if name.startswith(INTEGRATIONS)
    }
    assert found == set()


def test_the_whole_runtime_loads_without_site_packages() -> None:
    """Every module loads in an interpreter that has only the standard library."""
    names = [module.name for module in CORE]
    code = f"""
import importlib, json, sys
sys.path.insert(0, {str(ROOT)!r})
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
    loaded = set(run(code, "-I", "-S"))
    assert loaded - STANDARD_LIBRARY == {"tta_primitives"}


@pytest.mark.parametrize("module", THIN, ids=[m.name for m in THIN])
def test_an_integration_without_its_library_says_what_to_install(
    module: Module,
) -> None:
    """One sentence names the module and the command, instead of a bare traceback."""
    code = f"""
import importlib, json, sys
sys.path.insert(0, {str(ROOT)!r})
try:
    importlib.import_module({module.name!r})
except ModuleNotFoundError as error:
    print(json.dumps([str(error)]))
else:
    print(json.dumps([]))
"""
    for sentence in run(code, "-I", "-S"):
        assert sentence.startswith(f"{module.name} needs "), sentence
        assert "pip install 'tta-dev-primitives[" in sentence


@pytest.mark.parametrize(
    "module", [m for m in modules("pytest_tta") if m.name == "pytest_tta.plugin"]
)
def test_the_plugin_imports_only_pytest_and_the_standard_library(
    module: Module,
) -> None:
    """A session that does not use the plugin pays for nothing else.

    The names of our fixtures stand in a file of their own that imports nothing.
    """
    outermost = {n.split(".")[0] for n in imports(module, inside_functions=False)}
    assert outermost - STANDARD_LIBRARY == {"pytest", "pytest_tta"}
    ours = {n for n in imports(module, inside_functions=False) if "pytest_tta." in n}
    assert ours == {"pytest_tta.names"}


@pytest.mark.parametrize(
    "name", [m.name for m in modules("pytest_tta") if m.name == "pytest_tta.plugin"]
)
def test_loading_the_plugin_loads_nothing_else(name: str) -> None:
    """Beside an imported pytest, the plugin adds itself and its package alone."""
    code = f"""
import json, sys
import pytest
before = set(sys.modules)
import {name}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    added = {n for n in run(code) if n.split(".")[0] not in STANDARD_LIBRARY}
    assert added == {"pytest_tta", "pytest_tta.names", name}


def test_a_circle_would_be_found() -> None:
    """The search itself works: two modules that import each other are a circle."""
    assert circle_in({"a": {"b"}, "b": {"a"}}) in {"a <- b <- a", "b <- a <- b"}


def test_a_circle_between_folders_would_be_found() -> None:
    """Two folders import each other although no two modules do."""
    graph = {"p.a.x": {"p.b.y"}, "p.b.y": set(), "p.b.z": {"p.a.w"}, "p.a.w": set()}
    assert circle_in(graph) == ""
    assert circle_in(rooms_of(graph)) in {"p.a <- p.b <- p.a", "p.b <- p.a <- p.b"}
