"""What the tests of the cache share: a clock, a step, an ear and a storage."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import wraps
from typing import Any

from pytest_tta.clock.clock import VirtualClock
from tta_primitives.door import Observer, listening


def virtual(test):
    """Run an async test in virtual time."""

    @wraps(test)
    def run(*args, **kwargs):
        VirtualClock().run(test(*args, **kwargs))

    return run


def now() -> float:
    """Return the time of the running loop, in seconds."""
    return asyncio.get_running_loop().time()


class Loads:
    """A step that counts its calls, takes time, and does what it is told.

    Each call takes `seconds` and gives the next of `results`, the last for ever: an
    exception is raised, anything else returned. Without results it gives its number.
    """

    def __init__(self, *results: Any, seconds: float = 0.0) -> None:
        self.results = list(results)
        self.seconds = seconds
        self.inputs: list[Any] = []
        self.cancelled = 0

    @property
    def count(self) -> int:
        return len(self.inputs)

    async def load(self, data: Any) -> Any:
        self.inputs.append(data)
        result = self._next(self.count)
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(result, BaseException):
            raise result
        return result

    def _next(self, number: int) -> Any:
        if not self.results:
            return number
        return self.results[min(number, len(self.results)) - 1]


class Ear(Observer):
    """An observer that keeps the events it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def event(self, call, name, detail) -> None:
        self.heard.append((name, detail))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]


@contextmanager
def hearing():
    """Yield the events that are told inside."""
    ear = Ear()
    with listening(observers=(ear,)):
        yield ear


class SlowStorage:
    """A storage elsewhere: records in a dict, each operation takes a moment.

    Attributes:
        records: Key to record and the time at which it was written.
        seconds: How long an operation takes.
        failure: What every operation raises, if anything.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.records: dict[str, tuple[Any, float]] = {}
        self.seconds = seconds
        self.failure: Exception | None = None

    async def _work(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure

    def _aged(self, key):
        if key not in self.records:
            return None
        record, written = self.records[key]
        age = now() - written
        if age >= record.kept_for:
            return None
        kind = type(record)
        return kind(
            record.value, record.fresh_for - age, record.kept_for - age, record.tags
        )

    async def get_many(self, keys):
        await self._work()
        return [self._aged(key) for key in keys]

    async def set_many(self, records):
        await self._work()
        self.records.update({key: (record, now()) for key, record in records.items()})

    async def delete(self, keys):
        await self._work()
        for key in keys:
            self.records.pop(key, None)

    async def delete_tagged(self, tags):
        await self._work()
        for key, (record, _) in list(self.records.items()):
            if set(record.tags) & set(tags):
                del self.records[key]

    async def clear(self, prefix):
        await self._work()
        for key in [key for key in self.records if key.startswith(prefix)]:
            del self.records[key]
