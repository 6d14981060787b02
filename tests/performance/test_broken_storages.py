"""The checks fail for a storage whose operations do something else than they should."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from fnmatch import fnmatchcase

import pytest

from tests.performance.test_altered_records import ALTERED
from tests.performance.tools import virtual
from tests.performance.toy_storages import ToyStorage, expect_failure
from tta_primitives.performance.conformance import STORAGE_CHECKS

DAY = 86400


class Forgetful(ToyStorage):
    async def set_many(self, records):
        await super().set_many(dict(list(records.items())[:1]))


class Swapped(ToyStorage):
    async def get_many(self, keys):
        return (await super().get_many(keys))[::-1]


class Sparse(ToyStorage):
    """Says nothing of what it has not."""

    async def get_many(self, keys):
        return [one for one in await super().get_many(keys) if one is not None]


class Deduplicating(ToyStorage):
    async def get_many(self, keys):
        return await super().get_many(list(dict.fromkeys(keys)))


class NeverSilent(ToyStorage):
    async def get_many(self, keys):
        return await super().get_many(keys or ["nothing"])


class FirstWins(ToyStorage):
    def merged(self, old, new):
        return old

    async def set_many(self, records):
        merged = {
            key: self.merged(self.records[key][0], new) if key in self.records else new
            for key, new in records.items()
        }
        await super().set_many(merged)


class OldTagsToo(FirstWins):
    def merged(self, old, new):
        return new._replace(tags=old.tags + new.tags)


class OldFreshness(FirstWins):
    def merged(self, old, new):
        return new._replace(fresh_for=old.fresh_for)


class OldEnd(FirstWins):
    def merged(self, old, new):
        return new._replace(kept_for=old.kept_for)


class NoNewTags(FirstWins):
    def merged(self, old, new):
        return new._replace(tags=())


class Timeless(ToyStorage):
    def _aged(self, key):
        return self.records[key][0] if key in self.records else None


class ZeroIsForEver(ToyStorage):
    async def set_many(self, records):
        records = {
            key: record if record.kept_for else record._replace(kept_for=DAY)
            for key, record in records.items()
        }
        await super().set_many(records)


class KeptAfterFresh(ToyStorage):
    """Takes `kept_for` for what comes after `fresh_for`."""

    async def set_many(self, records):
        records = {
            key: record._replace(kept_for=record.fresh_for + record.kept_for)
            for key, record in records.items()
        }
        await super().set_many(records)


class Sticky(ToyStorage):
    async def delete(self, keys):
        await self._work()


class Sweeping(ToyStorage):
    async def delete(self, keys):
        await self.clear("")


class NoneIsAll(ToyStorage):
    async def delete(self, keys):
        await super().delete(keys or list(self.records))


class StopsAtUnknown(ToyStorage):
    async def delete(self, keys):
        for key in keys:
            if key not in self.records:
                return
            await super().delete([key])


class Tagless(ToyStorage):
    async def delete_tagged(self, tags):
        await self._work()


class AnyTag(ToyStorage):
    async def delete_tagged(self, tags):
        tagged = [key for key, (record, _) in self.records.items() if record.tags]
        await self.delete(tagged)


class UntaggedToo(ToyStorage):
    async def delete_tagged(self, tags):
        await super().delete_tagged(tags)
        await self.delete([k for k, (r, _) in self.records.items() if not r.tags])


class OneTagOnly(ToyStorage):
    """Finds a record by some of its tags."""

    which = slice(0, 1)

    async def delete_tagged(self, tags):
        for key, (record, _) in list(self.records.items()):
            if set(record.tags[self.which]) & set(tags):
                await self.delete([key])


class LastTagOnly(OneTagOnly):
    which = slice(-1, None)


class FirstAsked(ToyStorage):
    async def delete_tagged(self, tags):
        await super().delete_tagged(tags[:1])


class LastAsked(ToyStorage):
    async def delete_tagged(self, tags):
        await super().delete_tagged(tags[-1:])


class Tombstones(ToyStorage):
    """A tag that was deleted is dead for ever."""

    dead = frozenset()

    async def delete_tagged(self, tags):
        await super().delete_tagged(tags)
        self.dead |= set(tags)

    def _aged(self, key):
        record = super()._aged(key)
        return None if record and self.dead & set(record.tags) else record


class Grasping(ToyStorage):
    async def clear(self, prefix):
        self.records.clear()


class Clinging(ToyStorage):
    async def clear(self, prefix):
        await self._work()


class Literal(ToyStorage):
    """Takes the prefix for a key."""

    async def clear(self, prefix):
        await self.delete([prefix])


class Patterns(ToyStorage):
    """Takes the prefix for a pattern, and clears what fits as well."""

    def fits(self, key, prefix):
        return fnmatchcase(key, f"{prefix}*")

    async def clear(self, prefix):
        await super().clear(prefix)
        await self.delete([key for key in self.records if self.fits(key, prefix)])


class LikePatterns(Patterns):
    def fits(self, key, prefix):
        like = re.escape(prefix).replace("%", ".*").replace("_", ".")
        return re.match(like, key)


class RegularExpressions(Patterns):
    def fits(self, key, prefix):
        return re.match(prefix, key)


class AnyCase(Patterns):
    def fits(self, key, prefix):
        return key.lower().startswith(prefix.lower())


class LacksTheEnd(Patterns):
    def fits(self, key, prefix):
        return key.startswith(prefix[:-1])


class NineHundredNinetyNine(ToyStorage):
    """Has room for one record less than a thousand."""

    async def set_many(self, records):
        await super().set_many(dict(list(records.items())[:999]))


class ReadsAHundred(ToyStorage):
    async def get_many(self, keys):
        return await super().get_many(keys[:100])


class SortedByKey(ToyStorage):
    async def get_many(self, keys):
        return await super().get_many(sorted(keys))


class DeletesAHundred(ToyStorage):
    async def delete(self, keys):
        await super().delete(keys[:100])


class DeletesAHundredTagged(ToyStorage):
    async def delete_tagged(self, tags):
        tagged = [k for k, (r, _) in self.records.items() if set(r.tags) & set(tags)]
        await self.delete(tagged[:100])


class Shared(ToyStorage):
    """One read for all who ask for the same, which the first takes along."""

    def __init__(self):
        super().__init__()
        self.reading = {}

    async def get_many(self, keys):
        asked = tuple(keys)
        reading = self.reading.get(asked)
        if reading is None or reading.done():
            reading = asyncio.ensure_future(super().get_many(keys))
            self.reading[asked] = reading
        return await reading


class Piped(ToyStorage):
    """Answers come in the order of the questions, and nobody takes that of who left."""

    def __init__(self):
        super().__init__()
        self.answers = deque()

    async def get_many(self, keys):
        self.answers.append([self._aged(key) for key in keys])
        await self._work()
        return self.answers.popleft()


class Locked(ToyStorage):
    """One operation at a time; who leaves meanwhile leaves it locked."""

    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def get_many(self, keys):
        await self.lock.acquire()
        found = await super().get_many(keys)
        self.lock.release()
        return found


GIVES = "gives_back_what_it_was_given"
ORDER = "answers_in_the_order_of_the_keys"
LAST = "keeps_the_last_of_a_key"
STALE = "tells_how_long_a_record_has_been_stale"
OVER = "forgets_when_the_time_is_over"
KEYS = "forgets_keys"
TAGS = "forgets_tags"
ALIKE = "forgets_what_begins_alike"
MANY = "does_many_at_once"
LEAVES = "answers_the_others_if_one_leaves"

A, B = "b'a'", "b'b'"

BROKEN = [
    (Forgetful, GIVES, "5 records were kept, and these given back: [Record("),
    (Sparse, KEYS, "the number of answers to 2 keys: got 1 instead of 2"),
    (Swapped, ORDER, f"answers to b, unknown, a, b: got [{B}, {A}, None, {B}]"),
    (Sparse, ORDER, f"answers to b, unknown, a, b: got [{B}, {A}, {B}]"),
    (Deduplicating, ORDER, f"answers to b, unknown, a, b: got [{B}, None, {A}]"),
    (NeverSilent, ORDER, "answers to no keys: got [None] instead of []"),
    (FirstWins, LAST, "1 records were kept, and these given back: [None]"),
    (OldTagsToo, LAST, "1 records were kept, and these given back: [None]"),
    (OldFreshness, LAST, "fresh_for of what replaced an older record: got 0.99"),
    (OldEnd, LAST, "kept_for of what replaced an older record: got 0.99"),
    (NoNewTags, LAST, "the tags of what replaced an older record: got set()"),
    (Timeless, STALE, "fresh_for after its end: got 0.2, which is not between -10.2"),
    (Timeless, OVER, "records whose time is over: got [Record(value=b'a'"),
    (ZeroIsForEver, OVER, "records whose time is over: got [None, Record(value=b'b'"),
    (KeptAfterFresh, OVER, "records whose time is over: got [Record(value=b'a'"),
    (Sticky, KEYS, "the keys after deleting a: got {'"),
    (Sweeping, KEYS, "the keys after deleting a: got set() instead of {'b'}"),
    (StopsAtUnknown, KEYS, "the keys after deleting a: got {'"),
    (NoneIsAll, KEYS, "the keys after deleting nothing: got set() instead of {'b'}"),
    (Tagless, TAGS, "the keys after deleting tag x: got {"),
    (AnyTag, TAGS, "the keys after deleting tag x: got {'d'}"),
    (UntaggedToo, TAGS, "the keys after deleting tag x: got {"),
    (OneTagOnly, TAGS, "the keys after deleting tag x: got {"),
    (LastTagOnly, TAGS, "the keys after deleting tags y and z: got {"),
    (FirstAsked, TAGS, "the keys after deleting tag x: got {"),
    (LastAsked, TAGS, "the keys after deleting tags y and z: got {"),
    (Tombstones, TAGS, "the keys after writing a again: got {'d'} instead of {"),
    (Grasping, ALIKE, "the keys after clearing what begins alike: got set()"),
    (Clinging, ALIKE, "the keys after clearing what begins alike: got {"),
    (Literal, ALIKE, "the keys after clearing what begins alike: got {"),
    (Patterns, ALIKE, "the keys after clearing what begins alike: got {"),
    (LikePatterns, ALIKE, "the keys after clearing what begins alike: got {"),
    (RegularExpressions, ALIKE, "the keys after clearing what begins alike: got {"),
    (AnyCase, ALIKE, "the keys after clearing what begins alike: got {"),
    (LacksTheEnd, ALIKE, "the keys after clearing what begins alike: got {"),
    (NineHundredNinetyNine, MANY, "1000 records were kept, and these given back: ["),
    (ReadsAHundred, MANY, "the number of answers to 1000 keys: got 100 instead"),
    (SortedByKey, MANY, "the value of one of a thousand: got b'10' instead of b'2'"),
    (DeletesAHundred, MANY, "what is left of a thousand keys: got [2, 5,"),
    (DeletesAHundredTagged, MANY, "what is left of a thousand keys: got [2, 5,"),
    (Tagless, MANY, "what is left of a thousand keys: got [0, 2, 3,"),
    (Shared, LEAVES, "what those got who stayed: got [CancelledError("),
    (Piped, LEAVES, f"what those got who stayed: got [{A}, {A}, {B}] instead"),
    (Locked, LEAVES, "what those got who stayed: got [TimeoutError("),
]


@pytest.mark.parametrize(("kind", "name", "message"), BROKEN)
@virtual
async def test_a_broken_storage_is_told_what_is_wrong(kind, name, message) -> None:
    """Each check fails where it should, with a sentence that says what it saw."""
    await expect_failure(name, kind(), message)


def test_each_check_fails_for_some_storage() -> None:
    """A check that nothing breaks would be of no use."""
    failed = {name for _, name, _ in (*ALTERED, *BROKEN)}
    assert failed == {check.__name__ for check in STORAGE_CHECKS}
