"""The checks of leases fail for a storage that breaks one thing about them."""

from __future__ import annotations

import math

import pytest

from tests.performance.tools import now, virtual
from tests.performance.toy_storages import ToyLeases, expect_failure


class NeverGiven(ToyLeases):
    async def acquire(self, key, token, seconds):
        return False


class GivenToAll(ToyLeases):
    async def acquire(self, key, token, seconds):
        return True


class OneForAllKeys(ToyLeases):
    async def acquire(self, key, token, seconds):
        return await super().acquire("all", token, seconds)


class ReleasedByAnybody(ToyLeases):
    async def release(self, key, token):
        await super().release(key, self.holder(key))


class NeverReleased(ToyLeases):
    async def release(self, key, token):
        await self._work()


class NeverOver(ToyLeases):
    def hold(self, key, token, seconds, began):
        super().hold(key, token, math.inf, began)


class RenewsTheUnheld(ToyLeases):
    async def renew(self, key, token, seconds):
        return await super().renew(key, token, seconds) or key not in self.leases


class RenewsForAnybody(ToyLeases):
    async def renew(self, key, token, seconds):
        return await super().renew(key, self.holder(key) or token, seconds)


class NeverRenews(ToyLeases):
    async def renew(self, key, token, seconds):
        return False


class OnlySaysThatItRenews(ToyLeases):
    async def renew(self, key, token, seconds):
        await self._work()
        return self.holder(key) == token


class KeepsWithoutLease(ToyLeases):
    async def set_leased(self, key, record, token):
        if key not in self.leases:
            self.hold(key, token, math.inf, self.count)
        return await super().set_leased(key, record, token)


class KeepsForAnybody(ToyLeases):
    async def set_leased(self, key, record, token):
        return await super().set_leased(key, record, self.holder(key) or token)


class OnlySaysThatItDoesNotKeep(ToyLeases):
    async def set_leased(self, key, record, token):
        is_kept = await super().set_leased(key, record, token)
        self.records[key] = (record, now())
        return is_kept


class NeverKeeps(ToyLeases):
    async def set_leased(self, key, record, token):
        await self._work()
        return False


class OnlySaysThatItKeeps(ToyLeases):
    async def set_leased(self, key, record, token):
        is_kept = await super().set_leased(key, record, token)
        self.records.pop(key, None)
        return is_kept


class KeepsAltered(ToyLeases):
    def altered(self, record):
        return record._replace(value=b"")

    async def set_leased(self, key, record, token):
        return await super().set_leased(key, self.altered(record), token)


class KeepsWithoutTags(KeepsAltered):
    def altered(self, record):
        return record._replace(tags=())


class KeepsShortly(KeepsAltered):
    def altered(self, record):
        return record._replace(fresh_for=1)


class HeldAfterKeeping(ToyLeases):
    async def set_leased(self, key, record, token):
        lease = self.leases.get(key)
        is_kept = await super().set_leased(key, record, token)
        if is_kept:
            self.leases[key] = lease
        return is_kept


class LeasesOutliveDelete(ToyLeases):
    async def delete(self, keys):
        leases = dict(self.leases)
        await super().delete(keys)
        self.leases = leases


class LeasesOutliveClear(ToyLeases):
    async def clear(self, prefix):
        leases = dict(self.leases)
        await super().clear(prefix)
        self.leases = leases


class LeasesOutliveTags(ToyLeases):
    def is_void(self, key, record):
        return False


class Stuck(ToyLeases):
    """Ends a lease that was begun before, and nobody ever gets it again."""

    def __init__(self):
        super().__init__()
        self.stuck = set()

    def holder(self, key):
        return "nobody" if key in self.stuck else super().holder(key)


class StuckWhenDeleted(Stuck):
    async def delete(self, keys):
        await super().delete(keys)
        self.stuck.update(keys)


class StuckWhenCleared(Stuck):
    async def clear(self, prefix):
        self.stuck.update(key for key in self.leases if key.startswith(prefix))
        await super().clear(prefix)


class StuckWhenTagged(Stuck):
    def is_void(self, key, record):
        is_void = super().is_void(key, record)
        if is_void:
            self.stuck.add(key)
        return is_void


class Tombstones(ToyLeases):
    """What was forgotten once is never kept again."""

    def __init__(self):
        super().__init__()
        self.dead = set()

    def is_void(self, key, record):
        return key in self.dead or super().is_void(key, record)


class TombstonesOfKeys(Tombstones):
    async def delete(self, keys):
        await super().delete(keys)
        self.dead.update(keys)


class TombstonesOfPrefixes(Tombstones):
    async def clear(self, prefix):
        self.dead.update(key for key in self.leases if key.startswith(prefix))
        await super().clear(prefix)


class TombstonesOfTags(Tombstones):
    def is_void(self, key, record):
        return any(tag in self.voided for tag in record.tags)


ONE = "gives_a_lease_to_one"
RENEWS = "renews_a_lease_for_its_holder"
KEEPS = "keeps_a_value_for_the_holder_of_a_lease"
ENDS = "ends_the_lease_of_what_is_forgotten"

BROKEN = [
    (NeverGiven, ONE, "an unheld lease: got False instead of True"),
    (GivenToAll, ONE, "a lease that is held: got True instead of False"),
    (OneForAllKeys, ONE, "another key's: got False instead of True"),
    (ReleasedByAnybody, ONE, "one released by another: got True instead of False"),
    (NeverReleased, ONE, "one given back: got False instead of True"),
    (NeverOver, ONE, "one whose time is over: got False instead of True"),
    (RenewsTheUnheld, RENEWS, "renewing what nobody holds: got True instead of False"),
    (RenewsForAnybody, RENEWS, "renewing another's lease: got True instead of False"),
    (NeverRenews, RENEWS, "renewing one's own: got False instead of True"),
    (OnlySaysThatItRenews, RENEWS, "a lease that was renewed: got True instead of F"),
    (KeepsWithoutLease, KEEPS, "keeping without a lease: got True instead of False"),
    (KeepsForAnybody, KEEPS, "keeping with another's lease: got True instead of False"),
    (OnlySaysThatItDoesNotKeep, KEEPS, "what was not kept: got [Record(value=b'a'"),
    (NeverKeeps, KEEPS, "keeping with one's own lease: got False instead of True"),
    (OnlySaysThatItKeeps, KEEPS, "1 records were kept, and these given back: [None]"),
    (KeepsAltered, KEEPS, "the value of what was kept: got b'' instead of b'a'"),
    (KeepsShortly, KEEPS, "fresh_for of what was kept: got 0.99"),
    (KeepsWithoutTags, KEEPS, "the tags of what was kept: got set() instead of {'"),
    (HeldAfterKeeping, KEEPS, "the lease after that: got False instead of True"),
    (LeasesOutliveDelete, ENDS, "keeping what was deleted meanwhile: got True"),
    (LeasesOutliveClear, ENDS, "keeping what was cleared:1 meanwhile: got True"),
    (LeasesOutliveTags, ENDS, "keeping what was tagged meanwhile: got True"),
    (StuckWhenDeleted, ENDS, "the lease of what was deleted: got False"),
    (StuckWhenCleared, ENDS, "the lease of what was cleared:1: got False"),
    (StuckWhenTagged, ENDS, "the lease of what was tagged: got False"),
    (TombstonesOfKeys, ENDS, "keeping what was begun after it was deleted: got False"),
    (TombstonesOfPrefixes, ENDS, "keeping what was begun after it was cleared:1: got"),
    (TombstonesOfTags, ENDS, "keeping what was begun after it was tagged: got False"),
]


@pytest.mark.parametrize(("kind", "name", "message"), BROKEN)
@virtual
async def test_a_broken_storage_is_told_what_is_wrong(kind, name, message) -> None:
    """Each check fails where it should, with a sentence that says what it saw."""
    await expect_failure(name, kind(), message)
