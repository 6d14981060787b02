"""Put the trampolines in place of the functions of `time`, once per process."""

from __future__ import annotations

import os
import sys
import time
import types
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_tta.clock import active, frozen
from pytest_tta.clock.functions import (
    KEPT_REAL,
    REAL,
    REAL_TIME,
    TRAMPOLINES,
    WALL_TRAMPOLINES,
    Trampoline,
    is_kept_real,
)
from pytest_tta.clock.imports import watch_imports
from pytest_tta.clock.threads import adopt_started_threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Installed", "install", "install_wall", "keep_real", "replace_references"]


class Installed(NamedTuple):
    """Tell what the installation did.

    Attributes:
        replaced: How many references in loaded modules now hold a trampoline.
        refused: Dotted names of references that could not be replaced; they
            show real time.

    """

    replaced: int = 0
    refused: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """Say in one sentence which references keep real time, if any do."""
        if not self.refused:
            return None
        names = ", ".join(self.refused)
        return f"these references cannot be replaced and show real time: {names}"


_REALS: dict[int, object] = {
    id(each): each.real for each in (*TRAMPOLINES.values(), *WALL_TRAMPOLINES.values())
}
_REALS[id(time)] = REAL_TIME
# What classes are full of and no reference hides in.
_PLAIN = frozenset(
    {
        bool,
        dict,
        int,
        property,
        str,
        tuple,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.NoneType,
    }
)

_NAMESPACE: Any = vars(types.ModuleType)["__dict__"]

# This package knows the two kinds of functions apart and needs both.
_OURS = "pytest_tta.clock"

_installed: Installed | None = None
_wall_installed = False


def install() -> Installed:
    """Make `time.monotonic`, `perf_counter` and `sleep` follow an active clock.

    The first call replaces the functions in the module `time`, in the modules
    that took them before (`from time import monotonic`), and in the defaults
    and class attributes of modules that use `time`. It wraps `Thread.start`,
    prepares freezegun, and lets the packages of `KEPT_REAL` keep real time,
    those imported later too. Further calls do nothing.
    """
    global _installed  # noqa: PLW0603 - once per process
    if _installed is None:
        _installed = _put(TRAMPOLINES)
        adopt_started_threads()
        watch_imports(KEPT_REAL | {"freezegun"}, _after_import)
        frozen.prepare(_replace_again)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_leave_in_child)
    return _installed


def install_wall() -> None:
    """Make `time.time` and `time.time_ns` follow too; for want of time-machine."""
    global _wall_installed  # noqa: PLW0603 - once per process
    if not _wall_installed:
        _wall_installed = True
        _put(WALL_TRAMPOLINES)


def replace_references(
    modules: Mapping[str, object], trampolines: Mapping[str, Trampoline]
) -> Installed:
    """Replace references to real functions in `modules` by `trampolines`.

    Only what lies in a module's own dictionary is compared, by identity: lazy
    modules are not made to load anything.

    Args:
        modules: What `sys.modules` holds, by name.
        trampolines: The replacements, by the name of what they replace.

    """
    change = _Change({id(each.real): each for each in trampolines.values()})
    for name, module in modules.items():
        namespace = _namespace(module)
        if namespace is None or module is time or name.startswith(_OURS):
            continue
        if is_kept_real(name):
            keep_real(namespace)
        else:
            change.in_module(name, namespace)
    return Installed(change.replaced, tuple(change.refused))


def keep_real(namespace: dict[str, Any]) -> None:
    """Give the module with this namespace the real functions back."""
    _Change(_REALS).in_module(str(namespace.get("__name__", "")), namespace)


class _Change:
    """Replace objects, known by identity, wherever a module refers to them."""

    def __init__(self, replacements: Mapping[int, object]) -> None:
        self._new = replacements
        self._telling = {*replacements, id(time), id(REAL_TIME)}
        self._seen: set[int] = set()
        self.replaced = 0
        self.refused: list[str] = []

    def in_module(self, name: str, namespace: dict[str, Any]) -> None:
        """Replace in the namespace of the module `name`."""
        values = list(namespace.values())
        if self._telling.isdisjoint(map(id, values)):
            # Who never names the module `time` has no default taken from it.
            return
        for key, value in list(namespace.items()):
            if id(value) in self._new:
                namespace[key] = self._replacement(value)
            else:
                self._inside(name, value)

    def _inside(self, module: str, value: object) -> None:
        # Not `isinstance(value, …)`, which asks a lazy proxy for its `__class__`.
        kind = type(value)
        if kind is types.FunctionType:
            function = cast("types.FunctionType", value)
            if function.__defaults__ or function.__kwdefaults__ or function.__closure__:
                self._in_function(function)
        elif issubclass(kind, type) and vars(value).get("__module__") == module:
            self._in_class(module, cast("type", value))

    def _in_class(self, module: str, cls: type) -> None:
        if id(cls) in self._seen:
            return
        self._seen.add(id(cls))
        for key, value in list(vars(cls).items()):
            if id(value) in self._new:
                self._in_attribute(cls, key, value)
            elif type(value) not in _PLAIN:
                self._inside(module, _function_of(value))

    def _in_attribute(self, cls: type, key: str, value: object) -> None:
        try:
            setattr(cls, key, self._replacement(value))
        except (AttributeError, TypeError):
            self.replaced -= 1
            self.refused.append(f"{cls.__module__}.{cls.__qualname__}.{key}")

    def _in_function(self, function: types.FunctionType) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        if function.__defaults__ and self._any_of(function.__defaults__):
            function.__defaults__ = tuple(map(self._replacement, function.__defaults__))
        keywords = function.__kwdefaults__
        if keywords and self._any_of(keywords.values()):
            keywords.update({k: self._replacement(v) for k, v in keywords.items()})
        for cell in _filled(function.__closure__ or ()):
            if id(cell.cell_contents) in self._new:
                cell.cell_contents = self._replacement(cell.cell_contents)

    def _any_of(self, values: Iterable[object]) -> bool:
        return any(id(value) in self._new for value in values)

    def _replacement(self, value: object) -> object:
        if id(value) not in self._new:
            return value
        self.replaced += 1
        return self._new[id(value)]


def _function_of(value: object) -> object:
    if type(value) in {classmethod, staticmethod}:
        return cast("staticmethod[..., Any]", value).__func__
    return value


def _filled(cells: tuple[types.CellType, ...]) -> Iterator[types.CellType]:
    for cell in cells:
        try:
            cell.cell_contents  # noqa: B018 - the question is whether it has any
        except ValueError:
            continue
        yield cell


def _namespace(module: object) -> dict[str, Any] | None:
    try:
        if issubclass(type(module), types.ModuleType):
            # Some lazy modules have a property of this name that loads everything.
            return cast("dict[str, Any]", _NAMESPACE.__get__(module))
        found = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def _put(trampolines: Mapping[str, Trampoline]) -> Installed:
    refused = [name for name, each in trampolines.items() if not _put_one(name, each)]
    done = replace_references(dict(sys.modules), trampolines)
    names = (f"time.{name}" for name in refused)
    return done._replace(refused=(*names, *done.refused))


def _put_one(name: str, trampoline: Trampoline) -> bool:
    """Set one function of `time`, unless freezegun sits there now."""
    if getattr(time, name) is not REAL[name]:
        return True
    try:
        setattr(time, name, trampoline)
    except (AttributeError, TypeError):
        return False
    return True


def _replace_again() -> None:
    """Replace what freezegun has put back from the time before `install`."""
    _put(TRAMPOLINES)
    if _wall_installed:
        _put(WALL_TRAMPOLINES)


def _after_import(module: types.ModuleType) -> None:
    if module.__name__ == "freezegun.api":
        frozen.prepare(_replace_again)
    elif is_kept_real(module.__name__) and not module.__name__.startswith(_OURS):
        keep_real(vars(module))


def _leave_in_child() -> None:
    """Give a forked child real time: it has the clock but not its loop."""
    if active.clock is not None:
        active.deactivate(active.clock)
