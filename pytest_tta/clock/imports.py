"""Call back after a module of a watched package has been imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["ImportWatcher", "watch_imports"]


class _TellingLoader:
    """Load a module as `inner` does, then tell `after` about it."""

    def __init__(self, inner: Any, after: Callable[[ModuleType], None]) -> None:  # noqa: ANN401 - loaders share no base
        self._inner = inner
        self._after = after

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any part of a loader
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        # Whoever asks later (inspect, pkgutil) shall find the true loader.
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        self._after(module)


class ImportWatcher:
    """Find modules as the finders after it do, and watch some packages."""

    def __init__(
        self, packages: Iterable[str], after: Callable[[ModuleType], None]
    ) -> None:
        """Tell `after` about each module of `packages`, top-level names."""
        self._packages = frozenset(packages)
        self._after = after

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return the spec of a watched module with a loader that tells."""
        if fullname.partition(".")[0] not in self._packages:
            return None
        spec = self._find(fullname, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _TellingLoader(spec.loader, self._after)  # type: ignore[assignment]
        return spec

    def _find(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


def watch_imports(
    packages: Iterable[str], after: Callable[[ModuleType], None]
) -> ImportWatcher:
    """Call `after(module)` when a module of `packages` has been imported.

    Args:
        packages: Top-level names.
        after: Called once the module's body has run.

    """
    watcher = ImportWatcher(packages, after)
    sys.meta_path.insert(0, watcher)
    return watcher
