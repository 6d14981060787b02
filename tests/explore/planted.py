"""Six bugs that the order asyncio takes by itself never shows, as systems of tasks.

They are the ones with which strategies were compared when this was designed: each is
hidden behind a staggered start and tasks that only make noise.
"""

from __future__ import annotations

from typing import Any


def noise(steps: int = 3) -> Any:
    """Do nothing, in several steps."""
    for _ in range(steps):
        yield "noise"


def late(steps: int, task: Any) -> Any:
    """Begin only after some steps."""
    yield from noise(steps)
    yield from task


def cache() -> Any:
    """Two callers look into an empty cache before either has filled it."""
    rows: dict[str, int] = {}
    loads: list[int] = []

    def get() -> Any:
        yield "cache.get"
        if "key" not in rows:
            yield "load"
            loads.append(1)
            rows["key"] = 1

    def check() -> None:
        assert len(loads) == 1, f"loaded {len(loads)} times"

    return [get(), late(3, get()), noise(), noise()], check


def lost_update() -> Any:
    """Two deposits read the same balance."""
    account = {"balance": 0}

    def deposit() -> Any:
        yield "read"
        balance = account["balance"]
        yield "write"
        account["balance"] = balance + 1

    def check() -> None:
        assert account["balance"] == 2, f"balance is {account['balance']}"

    return [deposit(), late(3, deposit()), noise(), noise()], check


def two_probes() -> Any:
    """A breaker lets a second probe through while the first is on its way."""
    breaker = {"state": "closed", "probes": 0, "most": 0}

    def trip() -> Any:
        yield "fail"
        breaker["state"] = "open"
        yield "recover"
        breaker["state"] = "half open"

    def call() -> Any:
        yield "admit"
        if breaker["state"] != "half open":
            return
        breaker["probes"] += 1
        breaker["most"] = max(breaker["most"], breaker["probes"])
        yield "probe"
        breaker["probes"] -= 1
        breaker["state"] = "closed"

    def check() -> None:
        assert breaker["most"] <= 1, "two probes at once"

    return [trip(), late(2, call()), late(5, call()), noise()], check


def leaked_permit() -> Any:
    """A limit runs out between taking a permit and the block that gives it back."""
    permits = {"free": 1}

    def work() -> Any:
        yield "connect"
        permits["free"] -= 1
        if (yield ("limit", 5)) == "late":
            return  # The bug: nobody gives it back.
        yield "query"
        permits["free"] += 1

    def check() -> None:
        assert permits["free"] == 1, "a permit is lost"

    return [work(), noise(), noise()], check


def starvation() -> Any:
    """One task gets all its steps in before the other has its first."""
    log: list[str] = []

    def fast() -> Any:
        for _ in range(8):
            yield "tick"
            log.append("fast")

    def slow() -> Any:
        yield "ask"
        log.append("slow")

    def check() -> None:
        assert log.index("slow") < 8, "the slow one was overtaken by all"

    return [slow(), fast(), noise()], check


def three_windows() -> Any:
    """Three times in a row the other task has to come in between."""
    marks = {"epoch": 0, "hits": 0}

    def reader() -> Any:
        for _ in range(3):
            yield "open"
            before = marks["epoch"]
            yield "close"
            marks["hits"] += marks["epoch"] == before + 1

    def writer() -> Any:
        for _ in range(3):
            yield "write"
            marks["epoch"] += 1
            yield "rest"

    def check() -> None:
        assert marks["hits"] < 3, "came in between three times"

    return [reader(), late(1, writer()), noise()], check


ALL = (cache, lost_update, two_probes, leaked_permit, starvation, three_windows)
