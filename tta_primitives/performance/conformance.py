"""What a cache relies on in a storage, as checks that the tests of any storage can run.

    @pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
    async def test_my_storage(check):
        await check(MyStorage())

Each check takes a storage, uses keys of its own in it, and waits for a few tenths of a
second of the loop's time, which may be virtual. `LEASE_CHECKS` are for storages that
have leases besides.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from tta_primitives.chance import new_id
from tta_primitives.performance.records import Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tta_primitives.performance.storage import LeaseStorage, Storage

__all__ = ["LEASE_CHECKS", "STORAGE_CHECKS"]

MOMENT = 0.2
"""Seconds: long for a storage that is asked, short for who waits for a test."""


async def gives_back_what_it_was_given(storage: Storage) -> None:
    """Check that bytes come back unchanged, with tags and the rest of their time."""
    name = _namer()
    values = [b"", b"\x00\r\n\xff", "tag:ü".encode(), b"x" * 100_000, b"-1"]
    records = {
        name(number): Record(value, 50, 60, (name("a"), name("ü b")))
        for number, value in enumerate(values)
    }
    await storage.set_many(records)
    found = await _found(storage, list(records))
    _expect([record.value for record in found], values, "values")
    for record in found:
        _expect_range(record.fresh_for, 40, 50, "fresh_for of a record kept just now")
        _expect_range(record.kept_for, 50, 60, "kept_for of a record kept just now")
        _expect(set(record.tags), {name("a"), name("ü b")}, "tags")


async def answers_in_the_order_of_the_keys(storage: Storage) -> None:
    """Check that each key has an answer, also an unknown one and one named twice."""
    name = _namer()
    await storage.set_many({name(key): _record(key) for key in ("a", "b")})
    asked = [name(key) for key in ("b", "unknown", "a", "b")]
    found = await storage.get_many(asked)
    shown = [None if record is None else record[0] for record in found]
    _expect(shown, [b"b", None, b"a", b"b"], "answers to b, unknown, a, b")
    _expect(list(await storage.get_many([])), [], "answers to no keys")


async def keeps_the_last_of_a_key(storage: Storage) -> None:
    """Check that a record replaces the older one, its times and its tags as well."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"old", 1, 1, (name("old"),))})
    await storage.set_many({name("a"): Record(b"new", 50, 60, (name("new"),))})
    await storage.delete_tagged([name("old")])
    [record] = await _found(storage, [name("a")])
    _expect(record.value, b"new", "the value after it was replaced")
    _expect_range(record.fresh_for, 40, 50, "fresh_for after it was replaced")


async def tells_how_long_a_record_has_been_stale(storage: Storage) -> None:
    """Check that `fresh_for` goes down, below zero while the record is kept."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"a", MOMENT, 60)})
    await asyncio.sleep(2 * MOMENT)
    [record] = await _found(storage, [name("a")])
    _expect_range(record.fresh_for, -10, -MOMENT / 2, "fresh_for after its end")


async def forgets_when_the_time_is_over(storage: Storage) -> None:
    """Check that nothing is given back once its `kept_for` has passed."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"a", MOMENT / 2, MOMENT)})
    await storage.set_many({name("b"): Record(b"b", 0, 0)})
    await asyncio.sleep(2 * MOMENT)
    found = list(await storage.get_many([name("a"), name("b")]))
    _expect(found, [None, None], "records whose time is over")


async def keeps_for_ever_if_asked(storage: Storage) -> None:
    """Check that a time may be infinite, or at least longer than anybody waits."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"a", math.inf, math.inf)})
    [record] = await _found(storage, [name("a")])
    _expect_range(record.fresh_for, 10 * 365 * 86400, math.inf, "an infinite fresh_for")


async def forgets_keys(storage: Storage) -> None:
    """Check that `delete` takes its keys and no others; unknown ones are no error."""
    name = _namer()
    await storage.set_many({name(key): _record(key) for key in ("a", "b")})
    await storage.delete([name("a"), name("unknown")])
    await storage.delete([])
    await _expect_keys(storage, name, {"b"}, ("a", "b"), "deleting a")


async def forgets_tags(storage: Storage) -> None:
    """Check that `delete_tagged` takes what has a tag; later records are kept."""
    name = _namer()
    tags = {"a": ("x", "y"), "b": ("y",), "c": ("z",), "d": ()}
    await storage.set_many(
        {
            name(key): Record(key.encode(), 50, 60, tuple(map(name, some)))
            for key, some in tags.items()
        }
    )
    await storage.delete_tagged([name("x"), name("unknown")])
    await _expect_keys(storage, name, {"b", "c", "d"}, tags, "deleting tag x")
    await storage.delete_tagged([name("y"), name("z")])
    await _expect_keys(storage, name, {"d"}, tags, "deleting tags y and z")
    await storage.set_many({name("a"): Record(b"a", 50, 60, (name("x"),))})
    await _expect_keys(storage, name, {"a", "d"}, tags, "writing a again")


async def forgets_what_begins_alike(storage: Storage) -> None:
    """Check that `clear` takes a prefix as it is written, not as a pattern."""
    name = _namer()
    keys = ("a*[x]?:1", "a*[x]?:2", "a*[x]", "ax:1", "b")
    await storage.set_many({name(key): _record(key) for key in keys})
    await storage.clear(name("a*[x]?:"))
    await _expect_keys(storage, name, set(keys[2:]), keys, "clearing what begins alike")


async def does_many_at_once(storage: Storage) -> None:
    """Check that a thousand keys are read, written and deleted as few are."""
    name = _namer()
    records = {
        name(number): Record(b"%d" % number, 50, 60, (name(f"tag{number % 3}"),))
        for number in range(1000)
    }
    await storage.set_many(records)
    found = await _found(storage, list(records))
    values = [record.value for record in found]
    _expect(values, [record.value for record in records.values()], "a thousand values")
    await storage.delete_tagged([name("tag0")])
    await storage.delete([name(number) for number in range(1, 1000, 3)])
    left = [
        number
        for number, record in enumerate(await storage.get_many(list(records)))
        if record is not None
    ]
    _expect(left, list(range(2, 1000, 3)), "what is left of a thousand keys")


async def answers_the_others_if_one_leaves(storage: Storage) -> None:
    """Check that a caller who is cancelled takes nobody with him."""
    name = _namer()
    await storage.set_many({name("a"): _record("a")})
    tasks = [asyncio.ensure_future(_found(storage, [name("a")])) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    stayed = [type(got[number]).__name__ for number in (1, 2, 4)]
    _expect(stayed, ["list"] * 3, "what those got who stayed")


async def gives_a_lease_to_one(storage: LeaseStorage) -> None:
    """Check that a lease is held until it is given back, or for its time."""
    name = _namer()
    key = name("a")
    _expect(
        await storage.acquire(key, "first", 60), wanted=True, what="an unheld lease"
    )
    _expect(
        await storage.acquire(key, "second", 60),
        wanted=False,
        what="a lease that is held",
    )
    _expect(
        await storage.acquire(name("b"), "second", 60),
        wanted=True,
        what="another key's",
    )
    await storage.release(key, "second")
    _expect(
        await storage.acquire(key, "second", 60),
        wanted=False,
        what="one released by another",
    )
    await storage.release(key, "first")
    _expect(
        await storage.acquire(key, "second", MOMENT), wanted=True, what="one given back"
    )
    await asyncio.sleep(2 * MOMENT)
    _expect(
        await storage.acquire(key, "third", 60),
        wanted=True,
        what="one whose time is over",
    )


async def renews_a_lease_for_its_holder(storage: LeaseStorage) -> None:
    """Check that a lease lasts longer then, for nobody but its holder."""
    name = _namer()
    key = name("a")
    _expect(
        await storage.renew(key, "first", 60),
        wanted=False,
        what="renewing what nobody holds",
    )
    await storage.acquire(key, "first", MOMENT)
    _expect(
        await storage.renew(key, "second", 60),
        wanted=False,
        what="renewing another's lease",
    )
    _expect(
        await storage.renew(key, "first", 60), wanted=True, what="renewing one's own"
    )
    await asyncio.sleep(2 * MOMENT)
    _expect(
        await storage.acquire(key, "second", 60),
        wanted=False,
        what="a lease that was renewed",
    )


async def keeps_a_value_for_the_holder_of_a_lease(storage: LeaseStorage) -> None:
    """Check that who holds the lease keeps a value, and nobody else does."""
    name = _namer()
    key = name("a")
    record = Record(b"a", 50, 60, (name("tag"),))
    got = await storage.set_leased(key, record, "first")
    _expect(got, wanted=False, what="keeping without a lease")
    await storage.acquire(key, "first", 60)
    got = await storage.set_leased(key, _record("other"), "second")
    _expect(got, wanted=False, what="keeping with another's lease")
    _expect(list(await storage.get_many([key])), [None], "what was not kept")
    got = await storage.set_leased(key, record, "first")
    _expect(got, wanted=True, what="keeping with one's own lease")
    _expect((await _found(storage, [key]))[0].value, b"a", "what was kept")
    _expect(
        await storage.acquire(key, "second", 60),
        wanted=True,
        what="the lease after that",
    )


async def ends_the_lease_of_what_is_forgotten(storage: LeaseStorage) -> None:
    """Check that what was begun before a key was forgotten is not kept after it."""
    name = _namer()
    for key in ("deleted", "cleared:1", "tagged"):
        await storage.acquire(name(key), "first", 60)
    await storage.delete([name("deleted")])
    await storage.clear(name("cleared:"))
    await storage.delete_tagged([name("tag")])
    for key in ("deleted", "cleared:1", "tagged"):
        tags = (name("tag"),) if key == "tagged" else ()
        record = Record(b"old", 50, 60, tags)
        got = await storage.set_leased(name(key), record, "first")
        _expect(got, wanted=False, what=f"keeping what was {key} meanwhile")
        got = await storage.acquire(name(key), "second", 60)
        _expect(got, wanted=True, what=f"the lease of what was {key}")
        got = await storage.set_leased(name(key), record, "second")
        _expect(got, wanted=True, what=f"keeping what was begun after it was {key}")


STORAGE_CHECKS: Sequence[Callable[[Any], Awaitable[None]]] = (
    gives_back_what_it_was_given,
    answers_in_the_order_of_the_keys,
    keeps_the_last_of_a_key,
    tells_how_long_a_record_has_been_stale,
    forgets_when_the_time_is_over,
    keeps_for_ever_if_asked,
    forgets_keys,
    forgets_tags,
    forgets_what_begins_alike,
    does_many_at_once,
    answers_the_others_if_one_leaves,
)
"""What every storage must do."""

LEASE_CHECKS: Sequence[Callable[[Any], Awaitable[None]]] = (
    gives_a_lease_to_one,
    renews_a_lease_for_its_holder,
    keeps_a_value_for_the_holder_of_a_lease,
    ends_the_lease_of_what_is_forgotten,
)
"""What a storage with leases must do besides."""


def _namer() -> Callable[[object], str]:
    """Return a function that makes names which no other check has."""
    prefix = f"tta:check:{new_id()}:"
    return lambda name: f"{prefix}{name}"


def _record(value: str) -> Record:
    return Record(value.encode(), 50, 60)


async def _found(storage: Storage, keys: Sequence[str]) -> list[Record]:
    """Return the records of these keys, all of which must be there."""
    __tracebackhide__ = True
    found = await storage.get_many(keys)
    records = [record for record in found if isinstance(record, Record)]
    if len(records) != len(keys):
        msg = f"{len(keys)} records were kept, and these given back: {found!r:.200}"
        raise AssertionError(msg)
    return records


async def _expect_keys(
    storage: Storage,
    name: Callable[[object], str],
    wanted: set[str],
    among: Sequence[str] | dict[str, Any],
    what: str,
) -> None:
    __tracebackhide__ = True
    found = await storage.get_many([name(key) for key in among])
    got = {key for key, record in zip(among, found, strict=True) if record is not None}
    _expect(got, wanted, f"the keys after {what}")


def _expect(got: object, wanted: object, what: str) -> None:
    __tracebackhide__ = True
    if got != wanted:
        msg = f"{what}: got {got!r:.200} instead of {wanted!r:.200}"
        raise AssertionError(msg)


def _expect_range(got: float, least: float, most: float, what: str) -> None:
    __tracebackhide__ = True
    if not least <= got <= most:
        msg = f"{what}: got {got!r}, which is not between {least:g} and {most:g}"
        raise AssertionError(msg)
