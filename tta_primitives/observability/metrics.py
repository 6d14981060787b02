"""Metrics of all workflows in a process, for Prometheus."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from tta_primitives.door import add_observer, remove_observer
from tta_primitives.extras import needs
from tta_primitives.observability import families, scraping
from tta_primitives.observability.counting import CountingObserver
from tta_primitives.observability.families import BUCKETS
from tta_primitives.observability.group import (
    Group,
    Lock,
    can_share,
    private_directory,
)
from tta_primitives.observability.redaction import Redactor
from tta_primitives.observability.scraping import Endpoint
from tta_primitives.observability.sheets import FileSheet, MemorySheet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from tta_primitives.observability.sheets import Sheet

__all__ = ["Metrics", "metrics_asgi_app", "metrics_wsgi_app", "start"]

logger: logging.Logger = logging.getLogger("tta_primitives.observability")

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What a user has asked for."""

    service_name: str
    host: str
    port: int | None
    registry: CollectorRegistry | None
    buckets: tuple[float, ...]
    max_paths: int
    is_shared: bool
    retry_seconds: float

    def check(self) -> None:
        """Refuse what cannot be meant."""
        if self.port is not None and not 0 <= self.port <= _HIGHEST_PORT:
            msg = f"prometheus_port={self.port!r} must be from 0 to 65535, or None"
            raise ValueError(msg)
        bounds = self.buckets
        rises = all(a < b for a, b in pairwise(bounds))
        if not bounds or not rises or not all(map(math.isfinite, bounds)):
            msg = f"buckets={bounds!r} must be seconds in rising order, without inf"
            raise ValueError(msg)
        if self.max_paths < 1:
            msg = f"max_paths={self.max_paths!r} must be at least 1"
            raise ValueError(msg)


class Metrics:
    """The metrics of this process, until `shutdown`.

    Attributes:
        observer: Counts calls and events.
    """

    def __init__(self, options: _Options, redact: Redactor) -> None:
        self._options = options
        self._lock = RLock()
        self._temporary: str | None = None
        self._pid = os.getpid()
        self._is_running = True
        self._group = self._chosen_group()
        self._endpoint: Endpoint | None = None
        self.observer: CountingObserver = CountingObserver(
            self._sheet, options.max_paths, redact
        )
        self._registry, self._is_registered = self._chosen_registry()

    @property
    def port(self) -> int | None:
        """The port that this process serves; None where another one does, or none."""
        endpoint = self._endpoint
        return None if endpoint is None else endpoint.port

    @property
    def directory(self) -> Path | None:
        """Where processes share their numbers; None if this one is alone."""
        return None if self._group is None else self._group.directory

    def start(self) -> None:
        """Count from now on, and serve."""
        _ = self.observer.sheet
        self._serve()
        add_observer(self.observer)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type and the text of what is scraped.

        Args:
            accept: What the scraper takes, as its header says it.
        """
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        with self._lock:
            return kind, encode(self._registry)

    def spans_dropped(self, number: int) -> None:
        """Count spans that were not exported."""
        self.observer.count_apart(families.SPANS_DROPPED, amount=number)

    def shutdown(self, timeout: float = 2.0) -> None:
        """Stop counting and serving; no thread, no socket and no file is left.

        It never raises. What this process has counted stays for those that it was
        scraped with.

        Args:
            timeout: How many seconds to wait for those that are scraping.
        """
        global _current  # noqa: PLW0603 - one for the process
        # Not under the lock: who is scraping has it for as long as an answer takes.
        was_running, self._is_running = self._is_running, False
        if not was_running:
            return
        if _current is self:
            _current = None
        remove_observer(self.observer)
        try:
            self._stop_serving(timeout)
            self._leave()
        except Exception:
            logger.exception("Metrics did not shut down")

    def collect(self) -> Iterable[Metric]:
        """Return the numbers of all processes, for a registry."""
        group, sheet = self._group, self.observer._sheet
        if isinstance(sheet, MemorySheet):
            return sheet.metrics()
        if group is None:
            return []
        if isinstance(sheet, FileSheet):
            with suppress(OSError):
                group.sweep(sheet)
        is_whole = self._is_whole
        return _merged(group.files if is_whole else group.own_files)

    def describe(self) -> Iterable[Metric]:
        """Return which names are taken, for a registry."""
        from prometheus_client.metrics_core import Metric

        return [
            Metric(one.name.removesuffix("_total"), one.help, one.kind)
            for one in families.FAMILIES
        ]

    @property
    def _is_whole(self) -> bool:
        """Whether everything in the directory is told here, not only what is ours."""
        group = self._group
        return group is not None and (group.is_ours or self._options.registry is None)

    def _chosen_group(self) -> Group | None:
        """Return who shares numbers with this process, None if nobody can."""
        options = self._options
        if not (options.is_shared and can_share()):
            return None
        given = os.environ.get(_VARIABLE) or os.environ.get(_VARIABLE.lower())
        if given:
            return Group(Path(given), is_ours=False)
        try:
            if options.port == 0:
                # Nobody else serves that port: only forks of this process share it.
                self._temporary = tempfile.mkdtemp(prefix="tta-metrics-")
                return Group(Path(self._temporary), is_ours=True)
            where = "app" if options.port is None else str(options.port)
            name = "".join(c if c.isalnum() else "-" for c in options.service_name)
            return Group(private_directory(f"{name[:60]}-{where}"), is_ours=True)
        except OSError as error:
            self._warn_alone(error)
            return None

    def _chosen_registry(self) -> tuple[CollectorRegistry, bool]:
        """Return what is scraped, and whether our numbers were registered there."""
        from prometheus_client import REGISTRY, CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._options.registry
        is_users_directory = self._group is not None and not self._group.is_ours
        if registry is None:
            # With files of the user's the registry has but a part of what they say.
            registry = CollectorRegistry() if is_users_directory else REGISTRY
        elif is_users_directory and any(
            isinstance(one, MultiProcessCollector)
            for one in registry._collector_to_names
        ):
            return registry, False  # It reads our files, too.
        registry.register(self)
        return registry, True

    def _sheet(self) -> Sheet:
        """Return where this process counts, when it has something to count."""
        bounds, group = self._options.buckets, self._group
        sheet: Sheet
        if group is None:
            sheet = MemorySheet(bounds)
        else:
            try:
                sheet = group.join(bounds)
            except OSError as error:
                self._warn_alone(error)
                sheet, self._group = MemorySheet(bounds), None
        name = self.observer._clean(self._options.service_name)
        sheet.cell(families.PROCESSES, (name,)).set(1.0)
        if self._pid != os.getpid():
            # A fork that works: it will serve when the parent is gone.
            self._pid = os.getpid()
            self._serve()
        return sheet

    def _warn_alone(self, error: OSError) -> None:
        logger.warning(
            "Metrics of several processes can not be added up: %s. Each has its own.",
            error,
        )

    def _serve(self) -> None:
        options, group = self._options, self._group
        if options.port is None:
            return
        turn = None if group is None else Lock(group.directory / "tta-server.lock")
        self._endpoint = Endpoint(
            options.host, options.port, self.render, turn, options.retry_seconds
        )
        self._endpoint.start()

    def _stop_serving(self, timeout: float) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.stop(timeout)

    def _leave(self) -> None:
        if self._is_registered:
            self._registry.unregister(self)
        is_member = self.observer._sheet is not None
        if self._group is not None and is_member:
            self._group.leave()
        if self._temporary is not None and self._pid == os.getpid() and is_member:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _forked(self) -> None:
        """Let go, in a child, of what is the parent's."""
        self._lock = RLock()
        self._temporary = None
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.forked()
        if self._group is not None:
            self._group.forked()
        self.observer.forget()


def _merged(files: Callable[[], list[str]]) -> Iterable[Metric]:
    """Return the numbers in files; another process may just be removing some."""
    from prometheus_client.multiprocess import MultiProcessCollector

    merge: Any = MultiProcessCollector.merge
    for _ in range(5):
        with suppress(FileNotFoundError):
            found: Iterable[Metric] = merge(files())
            return found
    return []


_current: Metrics | None = None
_all: WeakSet[Metrics] = WeakSet()
_frozen: list[Metrics] = []


def start(
    service_name: str,
    *,
    host: str = "127.0.0.1",
    port: int | None = 9464,
    registry: CollectorRegistry | None = None,
    buckets: Iterable[float] = BUCKETS,
    max_paths: int = 300,
    share: bool = True,
    redact: Redactor | None = None,
    retry_seconds: float = 1.0,
) -> Metrics:
    """Count calls and events of all workflows in this process, and serve the numbers.

    Processes of one user with the same service name and port are scraped as one. They
    keep numbers in `PROMETHEUS_MULTIPROC_DIR` if that is set, else in a directory of
    their own; where none can be made, or with `share=False`, each has its own.

    Args:
        service_name: Of the service.
        host: The address to serve on.
        port: The port to serve on, 0 for any, None to serve nothing.
        registry: Where the metrics are registered, and what is served;
            prometheus_client's usual one unless given.
        buckets: Upper bounds of the histograms' buckets, in seconds.
        max_paths: How many paths of workflows are told apart.
        share: Whether processes are scraped as one.
        redact: Takes secrets out of labels.
        retry_seconds: How often a process that does not serve looks whether it can.

    Raises:
        ModuleNotFoundError: prometheus_client is not installed.
        ValueError: An argument is wrong, or the registry has such metrics already.
    """
    global _current  # noqa: PLW0603 - one for the process
    with needs("prometheus", "enable_prometheus=True", "prometheus_client"):
        import prometheus_client as _  # noqa: F401 - nothing else is asked of it here
    options = _Options(
        service_name=service_name,
        host=host,
        port=port,
        registry=registry,
        buckets=tuple(map(float, buckets)),
        max_paths=max_paths,
        is_shared=share,
        retry_seconds=retry_seconds,
    )
    options.check()
    found = Metrics(options, redact or Redactor())
    try:
        found.start()
    except BaseException:
        found.shutdown(0.0)
        raise
    _all.add(found)
    _current = found
    return found


def metrics_asgi_app() -> scraping.ASGIApp:
    """Return an ASGI app that answers with the numbers, to be mounted at `/metrics`.

    It may be made before `initialize_observability` is called.
    """
    return scraping.asgi_app_of(_render)


def metrics_wsgi_app() -> scraping.WSGIApp:
    """Return a WSGI app that answers with the numbers, to be mounted at `/metrics`.

    It may be made before `initialize_observability` is called.
    """
    return scraping.wsgi_app_of(_render)


def _render() -> Callable[[str], tuple[str, bytes]] | None:
    return None if _current is None else _current.render


def _before_fork() -> None:
    """Wait for who is scraping: the child would inherit the locks that they hold."""
    _frozen.extend(one for one in list(_all) if one._lock.acquire(timeout=1.0))


def _after_fork_in_parent() -> None:
    while _frozen:
        _frozen.pop()._lock.release()


def _after_fork_in_child() -> None:
    _frozen.clear()
    for one in list(_all):
        one._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
