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
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from tta_primitives.performance.records import UnreadableRecord
    from tta_primitives.performance.storage import LeaseStorage, Storage

__all__ = ["LEASE_CHECKS", "STORAGE_CHECKS"]

MOMENT = 0.2
"""Seconds: long for a storage that is asked, short for who waits for a test."""

OVER = 1.5 * MOMENT
"""Seconds: after them a moment is over, and two moments are not."""

FRESH, KEPT, HELD = 50, 100, 60
"""Seconds of records and leases: more than a check takes, and well apart."""

PATIENCE = 10
"""Seconds that a slow storage may take over a check."""

TICK = 0.05
"""Seconds: a storage's clock may be as coarse."""

TEN_YEARS = 315_360_000
"""Seconds: longer than anybody waits."""

BIG = 100_000
"""Bytes: more than one packet, page or short text holds."""

MANY = 1000
"""Keys: more than one command, answer or statement takes in some storages."""


async def gives_back_what_it_was_given(storage: Storage) -> None:
    """Check that bytes come back unchanged, with tags and the rest of their time."""
    name = _namer()
    tags = (name("a"), name("ü b"))
    values = [b"", b"\x00\r\n\xff", "tag:ü".encode(), b"x" * BIG, b"-1"]
    records = {
        name(number): Record(value, FRESH, KEPT, tags)
        for number, value in enumerate(values)
    }
    await storage.set_many(records)
    await _expect_kept(storage, records, "a record kept just now")


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
    key, new = name("a"), _record("new", name("new"))
    await storage.set_many({key: Record(b"old", 1, 1, (name("old"),))})
    await storage.set_many({key: new})
    await storage.delete_tagged([name("old")])
    await _expect_kept(storage, {key: new}, "what replaced an older record")


async def tells_how_long_a_record_has_been_stale(storage: Storage) -> None:
    """Check that `fresh_for` goes down, below zero while the record is kept."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"a", MOMENT, KEPT)})
    await asyncio.sleep(2 * MOMENT)
    [record] = await _found(storage, [name("a")])
    _expect_left(record.fresh_for, -MOMENT, "fresh_for after its end")


async def forgets_when_the_time_is_over(storage: Storage) -> None:
    """Check that nothing is given back once its `kept_for` has passed."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"a", MOMENT, MOMENT)})
    await storage.set_many({name("b"): Record(b"b", 0, 0)})
    await asyncio.sleep(OVER)
    found = list(await storage.get_many([name("a"), name("b")]))
    _expect(found, [None, None], "records whose time is over")


async def keeps_for_ever_if_asked(storage: Storage) -> None:
    """Check that a time may be infinite, or at least longer than anybody waits."""
    name = _namer()
    await storage.set_many({name("a"): Record(b"a", math.inf, math.inf)})
    [record] = await _found(storage, [name("a")])
    _expect_range(record.fresh_for, TEN_YEARS, math.inf, "an infinite fresh_for")
    _expect_range(record.kept_for, TEN_YEARS, math.inf, "an infinite kept_for")


async def forgets_keys(storage: Storage) -> None:
    """Check that `delete` takes its keys and no others; unknown ones are no error."""
    name = _namer()
    await storage.set_many({name(key): _record(key) for key in ("a", "b")})
    await storage.delete([name("unknown"), name("a")])
    await _expect_keys(storage, name, {"b"}, ("a", "b"), "deleting a")
    await storage.delete([])
    await _expect_keys(storage, name, {"b"}, ("a", "b"), "deleting nothing")


async def forgets_tags(storage: Storage) -> None:
    """Check that `delete_tagged` takes what has a tag; later records are kept."""
    name = _namer()
    # One record is found by the first of its tags, one by the last.
    tags = {"a": ("y", "x"), "b": ("y", "w"), "c": ("z",), "d": ()}
    await storage.set_many(
        {name(key): _record(key, *map(name, some)) for key, some in tags.items()}
    )
    await storage.delete_tagged([name("unknown"), name("x")])
    await _expect_keys(storage, name, {"b", "c", "d"}, tags, "deleting tag x")
    await storage.delete_tagged([name("y"), name("z")])
    await _expect_keys(storage, name, {"d"}, tags, "deleting tags y and z")
    await storage.set_many({name("a"): _record("a", name("x"))})
    await _expect_keys(storage, name, {"a", "d"}, tags, "writing a again")


async def forgets_what_begins_alike(storage: Storage) -> None:
    """Check that `clear` takes a prefix as it is written, not as a pattern."""
    name = _namer()
    prefix = "a*[x]?_%.:"
    gone = (f"{prefix}1", f"{prefix}2")
    others = (
        prefix.removesuffix(":"),
        f"{prefix.upper()}1",
        "abx-_%.:1",  # As a pattern of files or of Redis,
        "a*[x]?--.:1",  # of SQL,
        "ax_%-:1",  # and as a regular expression.
    )
    await storage.set_many({name(key): _record(key) for key in (*gone, *others)})
    await storage.clear(name(prefix))
    among = (*gone, *others)
    await _expect_keys(storage, name, set(others), among, "clearing what begins alike")


async def does_many_at_once(storage: Storage) -> None:
    """Check that a thousand keys are read, written and deleted as few are."""
    name = _namer()
    records = {
        name(number): _record(str(number), name(f"tag{number % 3}"))
        for number in range(MANY)
    }
    keys = list(records)
    await storage.set_many(records)
    await _expect_kept(storage, records, "one of a thousand")
    await storage.delete_tagged([name("tag0")])
    await storage.delete(keys[1::3])
    found = await _answers(storage, keys)
    left = [number for number, record in enumerate(found) if record is not None]
    _expect(left, list(range(2, MANY, 3)), "what is left of a thousand keys")


async def answers_the_others_if_one_leaves(storage: Storage) -> None:
    """Check that a caller who is cancelled takes nobody with him."""
    name = _namer()
    await storage.set_many({name(key): _record(key) for key in ("a", "b")})
    # Some ask for the same, and who gets the answer to another shall be seen.
    asked = ("a", "a", "b", "b", "a")
    tasks = [asyncio.ensure_future(_value_in_time(storage, name(key))) for key in asked]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    stayed = [got[number] for number in (1, 2, 4)]
    _expect(stayed, [b"a", b"b", b"a"], "what those got who stayed")


async def gives_a_lease_to_one(storage: LeaseStorage) -> None:
    """Check that a lease is held until it is given back, or for its time."""
    name = _namer()
    key, acquire = name("a"), storage.acquire
    _expect_yes(await acquire(key, "first", HELD), "an unheld lease")
    _expect_no(await acquire(key, "second", HELD), "a lease that is held")
    _expect_yes(await acquire(name("b"), "second", HELD), "another key's")
    await storage.release(key, "second")
    _expect_no(await acquire(key, "second", HELD), "one released by another")
    await storage.release(key, "first")
    _expect_yes(await acquire(key, "second", MOMENT), "one given back")
    await asyncio.sleep(OVER)
    _expect_yes(await acquire(key, "third", HELD), "one whose time is over")


async def renews_a_lease_for_its_holder(storage: LeaseStorage) -> None:
    """Check that a lease lasts longer then, for nobody but its holder."""
    name = _namer()
    key, renew = name("a"), storage.renew
    _expect_no(await renew(key, "first", HELD), "renewing what nobody holds")
    await storage.acquire(key, "first", MOMENT)
    _expect_no(await renew(key, "second", HELD), "renewing another's lease")
    _expect_yes(await renew(key, "first", HELD), "renewing one's own")
    await asyncio.sleep(OVER)
    got = await storage.acquire(key, "second", HELD)
    _expect_no(got, "a lease that was renewed")


async def keeps_a_value_for_the_holder_of_a_lease(storage: LeaseStorage) -> None:
    """Check that who holds the lease keeps a value, and nobody else does."""
    name = _namer()
    key, keep = name("a"), storage.set_leased
    record = _record("a", name("tag"))
    _expect_no(await keep(key, record, "first"), "keeping without a lease")
    await storage.acquire(key, "first", HELD)
    _expect_no(await keep(key, record, "second"), "keeping with another's lease")
    _expect(list(await storage.get_many([key])), [None], "what was not kept")
    _expect_yes(await keep(key, record, "first"), "keeping with one's own lease")
    await _expect_kept(storage, {key: record}, "what was kept")
    _expect_yes(await storage.acquire(key, "second", HELD), "the lease after that")


async def ends_the_lease_of_what_is_forgotten(storage: LeaseStorage) -> None:
    """Check that what was begun before a key was forgotten is not kept after it."""
    name = _namer()
    records = {
        "deleted": _record("old"),
        "cleared:1": _record("old"),
        "tagged": _record("old", name("tag")),
    }
    for key in records:
        await storage.acquire(name(key), "first", HELD)
    await storage.delete([name("deleted")])
    await storage.clear(name("cleared:"))
    await storage.delete_tagged([name("tag")])
    for key, record in records.items():
        got = await storage.set_leased(name(key), record, "first")
        _expect_no(got, f"keeping what was {key} meanwhile")
        got = await storage.acquire(name(key), "second", HELD)
        _expect_yes(got, f"the lease of what was {key}")
        got = await storage.set_leased(name(key), record, "second")
        _expect_yes(got, f"keeping what was begun after it was {key}")


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


def _record(value: str, *tags: str) -> Record:
    return Record(value.encode(), FRESH, KEPT, tags)


async def _answers(
    storage: Storage, keys: Sequence[str]
) -> list[Record | UnreadableRecord | None]:
    """Return what is at these keys, one answer for each."""
    __tracebackhide__ = True
    found = list(await storage.get_many(keys))
    _expect(len(found), len(keys), f"the number of answers to {len(keys)} keys")
    return found


async def _found(storage: Storage, keys: Sequence[str]) -> list[Record]:
    """Return the records of these keys, all of which must be there."""
    __tracebackhide__ = True
    found = await _answers(storage, keys)
    records = [record for record in found if isinstance(record, Record)]
    if len(records) < len(keys):
        msg = f"{len(keys)} records were kept, and these given back: {found!r:.200}"
        raise AssertionError(msg)
    return records


async def _value_in_time(storage: Storage, key: str) -> object:
    async with asyncio.timeout(PATIENCE):
        [record] = await _found(storage, [key])
    return record.value


async def _expect_kept(
    storage: Storage, records: Mapping[str, Record], what: str
) -> None:
    """Expect these records as they were given to the storage just now."""
    __tracebackhide__ = True
    found = await _found(storage, list(records))
    for got, given in zip(found, records.values(), strict=True):
        _expect(got.value, given.value, f"the value of {what}")
        _expect_left(got.fresh_for, given.fresh_for, f"fresh_for of {what}")
        _expect_left(got.kept_for, given.kept_for, f"kept_for of {what}")
        _expect(set(got.tags), set(given.tags), f"the tags of {what}")


async def _expect_keys(
    storage: Storage,
    name: Callable[[object], str],
    wanted: set[str],
    among: Collection[str],
    what: str,
) -> None:
    __tracebackhide__ = True
    found = await _answers(storage, [name(key) for key in among])
    got = {key for key, record in zip(among, found, strict=True) if record is not None}
    _expect(got, wanted, f"the keys after {what}")


def _expect_yes(got: object, what: str) -> None:
    __tracebackhide__ = True
    _expect(got, wanted=True, what=what)


def _expect_no(got: object, what: str) -> None:
    __tracebackhide__ = True
    _expect(got, wanted=False, what=what)


def _expect(got: object, wanted: object, what: str) -> None:
    __tracebackhide__ = True
    if got != wanted:
        msg = f"{what}: got {got!r:.200} instead of {wanted!r:.200}"
        raise AssertionError(msg)


def _expect_left(got: float, given: float, what: str) -> None:
    """Expect what is left of a duration, after what a slow storage may take."""
    __tracebackhide__ = True
    _expect_range(got, given - PATIENCE, given + TICK, what)


def _expect_range(got: float, least: float, most: float, what: str) -> None:
    __tracebackhide__ = True
    if not least <= got <= most:
        msg = f"{what}: got {got!r}, which is not between {least:g} and {most:g}"
        raise AssertionError(msg)
