"""Where numbers of metrics are kept: in memory, or in files that processes share.

Files have the format of prometheus_client, so that whoever reads those of a directory,
its `MultiProcessCollector` or an exporter that the application already has, reads ours
too. They are written here because prometheus_client decides when it is imported
whether there are any, and because to write one of its values takes ten times as long.

A number is changed by `cell.values[cell.place] += 1`. CPython does not change threads
or run finalizers between reading an item and writing it back, so there is no lock: one
would be held when a finalizer, which may end a call, wants it too.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import struct
from contextlib import suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from tta_primitives.observability.families import Family

__all__ = ["Cell", "FileSheet", "Histogram", "MemorySheet", "Sheet", "kinds_of"]

logger: logging.Logger = logging.getLogger("tta_primitives.observability")

Values: TypeAlias = "list[float] | memoryview[float]"
# How files of a kind begin; numbers of gauges of living processes are added up.
kinds_of: dict[str, str] = {
    "counter": "counter",
    "histogram": "histogram",
    "gauge": "gauge_livesum",
}
_FIRST_SIZE = 1 << 16
_HEADER = 8


class Cell(NamedTuple):
    """A number that is counted.

    Attributes:
        values: Where it lies, with others.
        place: Which one it is.
    """

    values: Values
    place: int

    def add(self, amount: float) -> None:
        """Add to it."""
        self.values[self.place] += amount

    def set(self, value: float) -> None:
        """Replace it."""
        self.values[self.place] = value


class Histogram(NamedTuple):
    """Numbers of one histogram.

    Attributes:
        values: Where they lie.
        buckets: Which ones are the counts, from the lowest bound to infinity.
        total: Which one is the sum.
    """

    values: Values
    buckets: list[int]
    total: int


# The name of a series, of its labels, and their values.
Series: TypeAlias = "tuple[str, tuple[str, ...], tuple[str, ...]]"


class Sheet:
    """What both kinds of sheets do; they differ in where a number lies.

    Args:
        bounds: Upper bounds of histograms' buckets, in seconds, without infinity.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        from prometheus_client import utils

        self.bounds: tuple[float, ...] = tuple(bounds)
        written: Any = utils.floatToGoString
        self._bounds = [written(bound) for bound in (*bounds, float("inf"))]

    def cell(self, family: Family, labels: Sequence[str]) -> Cell:
        """Return the number of a counter or a gauge; a new one is 0."""
        (cell,) = self._cells(family, [(family.name, family.labels, tuple(labels))])
        return cell

    def histogram(self, family: Family, labels: Sequence[str]) -> Histogram:
        """Return the numbers of a histogram."""
        names, values = family.labels, tuple(labels)
        wanted: list[Series] = [
            (f"{family.name}_bucket", (*names, "le"), (*values, bound))
            for bound in self._bounds
        ]
        wanted.append((f"{family.name}_sum", names, values))
        cells = self._cells(family, wanted)
        return Histogram(
            cells[0].values, [cell.place for cell in cells[:-1]], cells[-1].place
        )

    def _cells(self, family: Family, wanted: list[Series]) -> list[Cell]:
        """Return several numbers that lie beside each other."""
        raise NotImplementedError


class MemorySheet(Sheet):
    """Numbers of this process alone."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__(bounds)
        self._values: list[float] = []
        self._places: dict[tuple[Family, str, tuple[str, ...]], int] = {}
        self._names: dict[tuple[Family, str], tuple[str, ...]] = {}
        self._lock = RLock()

    def _cells(self, family: Family, wanted: list[Series]) -> list[Cell]:
        found = []
        with self._lock:
            for name, labels, values in wanted:
                self._names[family, name] = labels
                place = self._places.setdefault(
                    (family, name, values), len(self._values)
                )
                if place == len(self._values):
                    self._values.append(0.0)
                found.append(Cell(self._values, place))
        return found

    def metrics(self) -> Iterable[Metric]:
        """Return all numbers as prometheus_client exports them."""
        from prometheus_client.metrics_core import Metric

        with self._lock:
            places = list(self._places.items())
        found: dict[Family, Metric] = {}
        running: dict[tuple[str, ...], float] = {}
        for (family, name, values), place in places:
            metric = found.get(family)
            if metric is None:
                base = family.name.removesuffix("_total")
                metric = found[family] = Metric(base, family.help, family.kind)
            value = self._values[place]
            if name.endswith("_bucket") and family.kind == "histogram":
                # They follow each other from the lowest bound to infinity.
                value = running[values[:-1]] = running.get(values[:-1], 0.0) + value
                if values[-1] == self._bounds[-1]:
                    pairs = zip(family.labels, values, strict=False)
                    metric.add_sample(f"{family.name}_count", dict(pairs), value)
                    del running[values[:-1]]
            labels = self._names[family, name]
            metric.add_sample(name, dict(zip(labels, values, strict=True)), value)
        return found.values()


class FileSheet(Sheet):
    """Numbers of this process in files that others read.

    Args:
        directory: Where the files are.
        name: Tells the files of this process from those of all others.
        bounds: As of any sheet.
    """

    def __init__(self, directory: Path, name: str, bounds: Sequence[float]) -> None:
        super().__init__(bounds)
        self._files = {
            kind: _File(directory / f"{prefix}_tta-{name}.db")
            for kind, prefix in kinds_of.items()
        }

    def _cells(self, family: Family, wanted: list[Series]) -> list[Cell]:
        from prometheus_client.mmap_dict import mmap_key

        base = family.name.removesuffix("_total")
        keys = [
            mmap_key(base, name, list(labels), list(values), family.help)
            for name, labels, values in wanted
        ]
        return self._files[family.kind].cells(keys)

    def inherit(self, kind: str, file: Path) -> None:
        """Add the numbers in a file to those of this process."""
        for key, value in entries_of(file):
            # Zeros as well: a histogram has all of its buckets.
            self._files[kind].cells([key])[0].add(value)


class _File:
    """One file of numbers; it is made when there is one to be kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self._used = _HEADER
        self._map: Any = None
        self._values: Any = None
        self._places: dict[str, int] = {}
        self._is_full = False
        self._lock = RLock()

    def cells(self, keys: list[str]) -> list[Cell]:
        """Return the numbers with these keys, all in one mapping."""
        with self._lock:
            new = [key for key in keys if key not in self._places]
            try:
                self._append(new)
            except OSError as error:
                # A full disk must not break a request: this is counted in vain.
                self._warn(error)
                lost = [0.0] * len(keys)
                return [Cell(lost, place) for place in range(len(keys))]
            return [Cell(self._values, self._places[key]) for key in keys]

    def _append(self, keys: list[str]) -> None:
        records = [_record(key) for key in keys]
        self._reserve(sum(map(len, records)))
        for key, record in zip(keys, records, strict=True):
            end = self._used + len(record)
            self._map[self._used : end] = record
            # Whoever reads meanwhile goes as far as this says.
            self._map[0:4] = struct.pack("i", end)
            self._used = end
            self._places[key] = end // 8 - 2

    def _reserve(self, more: int) -> None:
        """Make the file large enough; numbers in an earlier mapping are still in it."""
        size = self._size or _FIRST_SIZE
        while self._used + more > size:
            size *= 2
        if size == self._size:
            return
        path = self._path if self._size else self._path.with_suffix(".new")
        with path.open("r+b" if self._size else "x+b") as file:
            _allocate(file.fileno(), size)
            self._map = mmap.mmap(file.fileno(), size)
        if not self._size:
            self._map[0:4] = struct.pack("i", self._used)
            path.rename(self._path)
        self._values = memoryview(self._map).cast("d")
        self._size = size

    def _warn(self, error: OSError) -> None:
        if not self._is_full:
            self._is_full = True
            logger.warning(
                "Metrics can not be kept in %s: %s. Some are not exported.",
                self._path,
                error.strerror or error,
            )


def _allocate(file: int, size: int) -> None:
    """Give a file its size on the disk: a hole in a mapping kills when it is full."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None:
        os.ftruncate(file, size)
    else:
        allocate(file, 0, size)


def _record(key: str) -> bytes:
    """Return what stands in a file for a number that is 0."""
    encoded = key.encode()
    padding = b" " * (8 - (len(encoded) + 4) % 8)
    return struct.pack("i", len(encoded)) + encoded + padding + bytes(16)


def entries_of(file: Path) -> Iterator[tuple[str, float]]:
    """Yield keys and numbers of a file; of a broken one those that can be read."""
    from prometheus_client.mmap_dict import MmapedDict

    with suppress(OSError, RuntimeError, struct.error, UnicodeDecodeError):
        read: Any = MmapedDict.read_all_values_from_file
        for key, value, _timestamp, _place in read(str(file)):
            if _is_sound(key, value):
                yield key, value


def _is_sound(key: str, value: float) -> bool:
    """Tell whether an entry is one: a wrong key would break each scrape from now on."""
    try:
        name, series, labels, _help = json.loads(key)
    except (ValueError, TypeError):
        return False
    texts = isinstance(name, str) and isinstance(series, str)
    return texts and isinstance(labels, dict) and math.isfinite(value)
