"""Cache: the cases, each with the probe that finds out who keeps it."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.comparison.cache_libraries import LIBRARIES
from tests.comparison.cases import Area, NoServerError, verdict
from tests.comparison.steps import Boom, many, outcome_of, settle
from tests.services import address_of, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.comparison.cache_libraries import Cache
    from tests.comparison.cases import Finding, Function

__all__ = ["CACHE"]

CACHE = Area("Cache", *LIBRARIES)


class Source:
    """Where values are loaded from: it answers, waits or fails as told.

    Attributes:
        value: What it answers; an error is raised.
        calls: How often it was asked.
        gate: What it waits for before it answers, if that is set.
        running: How many loads are under way.
    """

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self.running = 0

    def load(self) -> Function:
        """Return it as a plain async function."""

        async def load(value: object) -> object:
            self.calls += 1
            self.running += 1
            try:
                if self.gate is not None:
                    answer = self.value
                    await self.gate.wait()
                else:
                    answer = self.value
                if isinstance(self.value, BaseException):
                    raise self.value
                return answer
            finally:
                self.running -= 1

        return load

    def shut(self) -> asyncio.Event:
        """Let loads wait from now on, and return what lets them go on."""
        self.gate = asyncio.Event()
        return self.gate


async def ask_together(call: Function, count: int) -> list[asyncio.Task[object]]:
    """Let so many ask for the same at once, and return their tasks."""
    tasks = [asyncio.create_task(call("key")) for _ in range(count)]
    await settle(30)
    return tasks


@CACHE.case("50 ask at once: 1 load", 59)
async def one_load_for_all(library: type[Cache]) -> Finding:
    """Count the loads."""
    source = Source()
    gate = source.shut()
    tasks = await ask_together(library.together(source.load()), 50)
    gate.set()
    await asyncio.gather(*tasks)
    return verdict(source.calls == 1, f"{source.calls} loads")


@CACHE.case("The first of five is cancelled: 1 load, four values", 59)
async def leaders_may_leave(library: type[Cache]) -> Finding:
    """Cancel the first while all wait."""
    source = Source()
    gate = source.shut()
    tasks = await ask_together(library.together(source.load()), 5)
    tasks[0].cancel()
    await settle(30)
    gate.set()
    outcomes = await asyncio.gather(*map(outcome_of, tasks))
    values = outcomes.count("value")
    is_kept = source.calls == 1 and values == 4
    return verdict(is_kept, f"{many(source.calls, 'load')}, {values} values")


@CACHE.case("All are cancelled: the load ends too", 60)
async def nobody_waits_nothing_loads(library: type[Cache]) -> Finding:
    """Cancel all who wait, and look whether the load still runs."""
    source = Source()
    gate = source.shut()
    tasks = await ask_together(library.together(source.load()), 3)
    for task in tasks:
        task.cancel()
    await settle(30)
    running = source.running
    gate.set()
    await asyncio.gather(*map(outcome_of, tasks))
    return verdict(running == 0, "it goes on for nobody")


@CACHE.case("50 ask at once and the load fails: 1 load", 75)
async def one_failure_for_all(library: type[Cache]) -> Finding:
    """Count the loads."""
    source = Source(Boom())
    gate = source.shut()
    tasks = await ask_together(library.together(source.load()), 50)
    gate.set()
    await asyncio.gather(*map(outcome_of, tasks))
    return verdict(source.calls == 1, f"{source.calls} loads")


@CACHE.case("50 ask at once and the load takes longer than expected: 1 load", 59)
async def one_slow_load_for_all(library: type[Cache]) -> Finding:
    """Load for 0.15 s where 0.05 s are expected, and locks leased for that long."""
    calls = 0

    async def load(value: object) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.15)
        return "value"

    call = library.together(load, expected=0.05)
    await asyncio.gather(*[call("key") for _ in range(50)])
    return verdict(calls == 1, f"{calls} loads")


@CACHE.case("A failed load is not remembered, and locks nobody out", 75)
async def failures_are_forgotten(library: type[Cache]) -> Finding:
    """Fail once, and ask again."""
    source = Source(Boom())
    call = library.together(source.load())
    await outcome_of(call("key"))
    source.value = "value"
    outcome = await outcome_of(asyncio.wait_for(call("key"), 0.5))
    return verdict(outcome == "value", f"{outcome!r}")


@CACHE.case('None, False, 0, "" and [] are values like others', 62)
async def empty_values_are_values(library: type[Cache]) -> Finding:
    """Ask twice for each, and count the loads."""
    loaded = []
    for value in (None, False, 0, "", []):
        source = Source(value)
        call = library.cached(source.load())
        await call("key")
        await call("key")
        if source.calls != 1:
            loaded.append(repr(value))
    return verdict(not loaded, f"{', '.join(loaded)} is loaded each time")


@CACHE.case('The inputs 1, "1", True, 1.0, None and "" are six', 64)
async def inputs_are_told_apart(library: type[Cache]) -> Finding:
    """Let the value be the type of the input."""

    async def load(value: object) -> str:
        return f"{value!r}"

    call = library.typed(load)
    mixed = []
    for value in (1, "1", True, 1.0, None, ""):
        got = await call(value)
        if got != repr(value):
            mixed.append(f"{got} for {value!r}")
    return verdict(not mixed, ", ".join(mixed))


@CACHE.case("A method of another object has values of its own", 64)
async def objects_are_told_apart(library: type[Cache]) -> Finding:
    """Ask five objects, one after the other, with nothing said about keys."""
    ask = library.of_objects()
    got = [await ask(number) for number in range(5)]
    wrong = sum(value != number for number, value in enumerate(got))
    return verdict(wrong == 0, f"{wrong} of 4 get the value of another")


@CACHE.case("What is invalidated during its load is not kept", 66)
async def invalidated_loads_are_not_kept(library: type[Cache]) -> Finding:
    """Change the value and invalidate while the old one is on its way."""
    source = Source("old")
    gate = source.shut()
    call, forget = library.forgetting(source.load())
    [task] = await ask_together(call, 1)
    await forget("key")
    gate.set()
    await outcome_of(task)
    source.value, source.gate = "new", None
    outcome = await outcome_of(call("key"))
    return verdict(outcome == "new", f"the next one gets {outcome!r}")


@CACHE.case("Without being told, it does not grow for ever", 67)
async def sizes_are_bounded(library: type[Cache]) -> Finding:
    """Ask for 5000 keys, and count what is held."""

    async def load(value: object) -> object:
        return value

    call, count = library.held(load)
    before = count()
    for number in range(5000):
        await call(number)
    held = count() - before
    return verdict(held <= 2000, f"{held} of 5000 are held")


@CACHE.case("An old value comes at once while a new one is loaded", 68)
async def stale_values_come_at_once(library: type[Cache]) -> Finding:
    """Ask for a value that has become old, while loading takes for ever."""
    source = Source("old")
    call = library.stale(source.load(), 0.03)
    await call("key")
    await asyncio.sleep(0.05)
    gate = source.shut()
    source.value = "new"
    first = await outcome_of(asyncio.wait_for(call("key"), 0.2))
    gate.set()
    await settle(30)
    second = await outcome_of(call("key"))
    return verdict((first, second) == ("old", "new"), f"{first!r}, then {second!r}")


@CACHE.case("An old value is better than an error", 69)
async def stale_values_stand_in(library: type[Cache]) -> Finding:
    """Ask for a value that has become old, while loading fails."""
    source = Source("old")
    call = library.stale_if_error(source.load(), 0.03)
    await call("key")
    await asyncio.sleep(0.05)
    source.value = Boom()
    outcome = await outcome_of(call("key"))
    return verdict(outcome == "old", f"{outcome!r}")


@CACHE.case("What a caller does to a value does not reach the next", 74)
async def values_are_isolated(library: type[Cache]) -> Finding:
    """Change a list that was handed out."""

    async def load(value: object) -> list[str]:
        return ["a"]

    call = library.apart(load)
    (await call("key")).append("changed")
    again = await call("key")
    return verdict(again == ["a"], f"the next one gets {again}")


@CACHE.case("Redis is away: the value is loaded", 71)
async def outages_are_misses(library: type[Cache]) -> Finding:
    """Ask where nobody listens."""
    call = library.on_redis(Source().load(), "127.0.0.1", 1, uuid4().hex)
    outcome = await outcome_of(asyncio.wait_for(call("key"), 4))
    return verdict(outcome == "value", f"{type(outcome).__name__}")


@CACHE.case("Bytes of others in Redis are a miss", 71)
async def foreign_bytes_are_misses(library: type[Cache]) -> Finding:
    """Overwrite the entry with bytes that nobody understands."""
    source = Source("old")
    with _in_redis(library, source) as (call, overwrite):
        await call("key")
        overwrite(b'{"v": \x00\xff')
        source.value = "new"
        outcome = await outcome_of(call("key"))
    return verdict(outcome == "new", f"{outcome!r}")


class _Planted:
    """What tells, when it is unpickled, that it was."""

    executed = False

    def __reduce__(self):
        return _note_execution, ()


def _note_execution() -> str:
    _Planted.executed = True
    return "planted"


@CACHE.case("A pickle that somebody put into Redis is not executed", 72)
async def pickles_are_not_executed(library: type[Cache]) -> Finding:
    """Overwrite the entry with a pickle, which may call anything."""
    source = Source("old")
    with _in_redis(library, source) as (call, overwrite):
        await call("key")
        overwrite(pickle.dumps(_Planted()))
        await outcome_of(call("key"))
    return verdict(not _Planted.executed, "it is executed")


@contextmanager
def _in_redis(
    library: type[Cache], source: Source
) -> Iterator[tuple[Function, object]]:
    """Lend a cache on Redis, and what overwrites all its entries."""
    from redis import Redis

    host, port = address_of("redis")
    if not listens(host, port):
        raise NoServerError
    name = f"tta-comparison-{uuid4().hex}"
    with Redis(host=host, port=port) as clerk:

        def overwrite(payload: bytes) -> None:
            keys = list(clerk.scan_iter(f"*{name}*", count=1000))
            assert keys
            for key in keys:
                clerk.delete(key)
                clerk.set(key, payload, ex=60)

        try:
            yield library.on_redis(source.load(), host, port, name), overwrite
        finally:
            for key in clerk.scan_iter(f"*{name}*", count=1000):
                clerk.delete(key)
