"""Sound storages for the tests of the checks, from which others break one thing."""

from __future__ import annotations

import re

import pytest

from tests.performance.tools import SlowStorage, now
from tests.shown import shown_name
from tta_primitives.performance.conformance import LEASE_CHECKS, STORAGE_CHECKS

MOMENT = 0.001
"""Seconds: what an operation takes, so that others get between."""


async def expect_failure(name, storage, message) -> None:
    """Expect a check to fail for a storage, with a message that begins so."""
    every = (*STORAGE_CHECKS, *LEASE_CHECKS)
    [check] = [check for check in every if check.__name__ == name]
    with pytest.raises(AssertionError, match=f"^{re.escape(message)}") as caught:
        await check(storage)
    assert shown_name(caught) == name


class ToyStorage(SlowStorage):
    """A dict elsewhere, which may alter a record as it is given back."""

    def __init__(self, alter=None, *, seconds=MOMENT):
        super().__init__(seconds)
        self.alter = alter

    def _aged(self, key):
        record = super()._aged(key)
        return record if record is None or self.alter is None else self.alter(record)


class ToyLeases(ToyStorage):
    """The same with leases: of each its holder, its end, and the tags void by then.

    Attributes:
        leases: Key to token, end, and the number of invalidations before it began.
        voided: Tag to the number of its last invalidation.
    """

    def __init__(self, *, seconds=MOMENT):
        super().__init__(seconds=seconds)
        self.leases = {}
        self.voided = {}
        self.count = 0

    def holder(self, key):
        token, end, _ = self.leases.get(key, (None, 0, 0))
        return token if now() < end else None

    def hold(self, key, token, seconds, began):
        self.leases[key] = (token, now() + seconds, began)

    def is_void(self, key, record):
        began = self.leases[key][2]
        return any(self.voided.get(tag, 0) > began for tag in record.tags)

    async def acquire(self, key, token, seconds):
        await self._work()
        if self.holder(key) is not None:
            return False
        self.hold(key, token, seconds, self.count)
        return True

    async def renew(self, key, token, seconds):
        await self._work()
        if self.holder(key) != token:
            return False
        self.hold(key, token, seconds, self.leases[key][2])
        return True

    async def release(self, key, token):
        await self._work()
        if self.holder(key) == token:
            del self.leases[key]

    async def set_leased(self, key, record, token):
        await self._work()
        if self.holder(key) != token:
            return False
        is_void = self.is_void(key, record)
        del self.leases[key]
        if not is_void:
            self.records[key] = (record, now())
        return not is_void

    async def delete(self, keys):
        await super().delete(keys)
        for key in keys:
            self.leases.pop(key, None)

    async def delete_tagged(self, tags):
        await super().delete_tagged(tags)
        self.count += 1
        self.voided.update(dict.fromkeys(tags, self.count))

    async def clear(self, prefix):
        await super().clear(prefix)
        for key in [key for key in self.leases if key.startswith(prefix)]:
            del self.leases[key]
