"""Remember what a primitive returned, and load it once for all who ask."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, overload

from tta_primitives.context import WorkflowContext
from tta_primitives.door import emit, is_listening
from tta_primitives.errors import CacheStorageError
from tta_primitives.keys import memory_key
from tta_primitives.namespace import namespace_of
from tta_primitives.performance import freshness
from tta_primitives.performance.copying import twin_of_error
from tta_primitives.performance.freshness import Slip
from tta_primitives.performance.leases import Lease, turn
from tta_primitives.performance.memory import Entry, MemoryStorage
from tta_primitives.performance.policy import check_options
from tta_primitives.performance.records import CacheStats, Counts, Record
from tta_primitives.performance.shelves import (
    CorruptRecordError,
    Found,
    MemoryShelf,
    Shelf,
    StorageShelf,
    copied,
)
from tta_primitives.performance.single_flight import Flight, Flights, Load
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from datetime import timedelta
    from typing import Unpack

    from redis.asyncio import Redis

    from tta_primitives.loops import LoopClock
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.performance.policy import KeyFunction, TagFunction
    from tta_primitives.performance.serializers import Serializer
    from tta_primitives.performance.storage import Storage
    from tta_primitives.primitive import A, B, WorkflowPrimitive
    from tta_primitives.recovery.classify import ErrorFilter

__all__ = ["CacheOptions", "CachePrimitive"]

logger: logging.Logger = logging.getLogger("tta_primitives")


class CacheOptions(TypedDict, total=False):
    """The options of a cache, as `CachePrimitive` documents them."""

    ttl: Required[float | timedelta | Callable[[Any], float | timedelta]]
    storage: Storage | MemoryStorage | Redis | None
    max_size: int
    key_fn: KeyFunction | None
    namespace: str | None
    version: int | str
    stale_ttl: float | timedelta
    stale_if_error: float | timedelta
    early_refresh: float | timedelta
    negative_ttl: float | timedelta
    negative_on: ErrorFilter
    ttl_jitter: float
    cache_if: Callable[[Any], object] | None
    single_flight: bool
    copy: Literal["auto", "deep", "none"]
    serializer: Literal["json", "msgpack"] | Serializer
    fail_open: bool
    tags: Iterable[str] | TagFunction | None
    lease: float | timedelta


_DEFAULTS: dict[str, Any] = {
    "storage": None,
    "max_size": 1024,
    "key_fn": None,
    "namespace": None,
    "version": 1,
    "stale_ttl": 0,
    "stale_if_error": 0,
    "early_refresh": 0,
    "negative_ttl": 0,
    "negative_on": (),
    "ttl_jitter": 0,
    "cache_if": None,
    "single_flight": True,
    "copy": "auto",
    "serializer": "json",
    "fail_open": True,
    "tags": None,
    "lease": 5.0,
}


class CachePrimitive(Wrapper[In, Out]):
    """Remember what a primitive returned, for a while, by its input.

    Inputs are told apart by value and type, and the order of a dict does not count.
    Calls that want the same at the same time share one load. It runs in a task of its
    own, with the context (and so the deadline) of the call that began it: a caller that
    is cancelled leaves alone, with the last one the load is cancelled, and a load that
    failed under a short deadline is repeated for callers who had much more time. A
    failed load is remembered only if `negative_on` says so, a cancelled one never.

    Unless it is given a storage, a cache has memory of its own; open caches get theirs
    when they are bound. Time is the event loop's.

    Args:
        primitive: What is executed on a miss; None for an open cache.
        ttl: Seconds for which a value is fresh, or a function of the value that
            returns them; 0 keeps nothing, `math.inf` keeps for ever.
        storage: Where entries are kept: a `redis.asyncio.Redis`, a `MemoryStorage`, or
            an object with the methods of `Storage`. None for memory of its own.
        max_size: The number of entries in memory; the least recently used goes first. A
            storage that is given has its own limit.
        key_fn: A function of the input, or of the input and the context, that returns
            what tells one input from another.
        namespace: What tells this cache's entries from those of others in the same
            storage. None derives it from the wrapped primitives: their classes, names,
            options and functions.
        version: Raise it when the meaning of values changes: older entries in a storage
            are no longer found.
        stale_ttl: Seconds after expiry in which the stale value is returned at once and
            a fresh one is loaded in the background.
        stale_if_error: Seconds after expiry in which the stale value is returned if
            loading a fresh one fails.
        early_refresh: Seconds before expiry in which a hit loads a fresh value in the
            background.
        negative_ttl: Seconds for which failures are remembered, always in memory.
        negative_on: Which: an exception type, several, or a function of the error.
        ttl_jitter: The largest part of the ttl, between 0 and 1, by which an entry's
            life is shortened at random, so that entries do not expire together.
        cache_if: A function of the value that tells whether it is to be kept.
        single_flight: Whether simultaneous misses of one key share a load. If not, a
            load runs in its caller's own task.
        copy: "auto" hands out immutable values as they are and copies of all others,
            "deep" copies always, "none" never. Values of a storage outside of this
            process are read anew for each caller.
        serializer: Makes bytes of values for such a storage: "json", "msgpack", or an
            object with `dumps` and `loads`.
        fail_open: Whether a failing storage is a miss and an event, rather than a
            CacheStorageError.
        tags: Texts by which `invalidate_tags` finds entries, or a function of the input
            and the value that returns them.
        lease: Seconds after which other processes no longer wait for one that loads a
            key and has died; 0 lets each of them load for itself. Only a storage with
            the methods of `LeaseStorage` has leases, as Redis does.

    Around another cache, with nothing between them but retries, timeouts and the like,
    a value is kept no longer than it is fresh there, and what is forgotten here is
    forgotten there as well.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a value that is not allowed; or a shared storage is
            used around a lambda or a local function without a `namespace`.
        ImportError: `serializer="msgpack"` without the package.
    """

    # What `execute` reads; an open cache, and one that must look closer, finds nothing.
    _entries: Mapping[Hashable, Entry] = {}
    _is_keyed_by_input: bool = False
    # Whether a cache around this one asks how fresh its answers are.
    _has_outer: bool = False

    @overload
    def __init__(
        self: CachePrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[CacheOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CachePrimitive[A, B],
        primitive: AsyncOperand[A, B],
        **options: Unpack[CacheOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CachePrimitive[A, B],
        primitive: SyncOperand[A, B],
        **options: Unpack[CacheOptions],
    ) -> None: ...
    def __init__(self, primitive: Any = None, **options: Any) -> None:
        given = _check_names(options)
        self._policy = check_options(**{**_DEFAULTS, **given})
        self._options = {
            key: value
            for key, value in given.items()
            if key == "ttl" or value != _DEFAULTS[key]
        }
        if primitive is not None:
            self._wrap(as_operand(primitive))

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        return dict(self._options)

    @property
    def stats(self) -> CacheStats:
        """What this cache has done so far."""
        self._wrapped()
        memory = self._memory
        return self._counts.snapshot(
            evictions=0 if memory is None else memory.evictions,
            size=None if memory is None else len(memory),
        )

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        """Take the primitive, and make the state of one binding."""
        policy = self._policy
        shelf, self._memory = self._make_shelf(primitive)
        super()._wrap(primitive)
        self._inner = _cache_below(primitive)
        if self._inner is not None:
            self._inner._be_below()
        self._leases = policy.leases
        self._shelf: Shelf = shelf
        self._counts = Counts()
        self._flights = Flights()
        self._failures = MemoryStorage(policy.max_size) if policy.negative_ttl else None
        # Keys whose background refresh has failed since it last succeeded.
        self._failing: set[Hashable] = set()
        self._logged: set[type] = set()
        self._needs_position = primitive._needs_position or policy.stale_window > 0
        # Who waits for another process waits only while there is time to load.
        self._reads_deadline = primitive._reads_deadline or policy.leases is not None
        self._is_keyed_by_input = policy.key_fn is None and policy.storage is None
        if self._memory is not None and policy.storage is None:
            self._clock: LoopClock = self._memory.clock
            self._touch = self._memory.entries.move_to_end
            self._entries = {} if policy.early_refresh else self._memory.entries

    def _be_below(self) -> None:
        """Tell a cache around this one how fresh its answers are, from now on."""
        self._has_outer = True
        self._entries = {}

    def _make_shelf(
        self, primitive: WorkflowPrimitive[Any, Any]
    ) -> tuple[Shelf, MemoryStorage | None]:
        policy = self._policy
        storage = policy.storage
        if storage is None:
            memory = MemoryStorage(policy.max_size)
            return MemoryShelf(memory, None, policy.copy), memory
        namespace = policy.namespace or namespace_of(primitive)
        prefix = f"tta:cache:{namespace}:{policy.version}:"
        if isinstance(storage, MemoryStorage):
            return MemoryShelf(storage, prefix, policy.copy), storage
        return StorageShelf(storage, prefix, policy.serializer), None

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Return the remembered value, or execute the wrapped primitive for it."""
        # A text is its own key in memory. Whatever is not an immutable, fresh value in
        # the cache's own memory is looked at more closely.
        if self._is_keyed_by_input:
            key = input_data if type(input_data) is str else memory_key(input_data)
        else:
            key = self._key(input_data, context)
        entry = self._entries.get(key)
        if entry is not None and type(entry) is Entry and not is_listening():
            clock = self._clock
            # Asking the loop whether it runs is quicker than asking which one does.
            if clock.loop.is_running() and clock.read() < entry.fresh_until:
                try:  # noqa: SIM105 - `suppress` costs as much as all the rest
                    self._touch(key)
                except KeyError:
                    pass  # Another thread removed it just now; the value is still good.
                self._counts.hits += 1
                value: Out = entry.value
                return value
        answer: Out = await self._look_up(key, input_data, context)
        return answer

    def _key(self, input_data: object, context: WorkflowContext) -> Hashable:
        self._wrapped()
        key_fn = self._policy.key_fn
        return self._shelf.key(
            input_data if key_fn is None else key_fn(input_data, context)
        )

    async def _look_up(
        self, key: Hashable, input_data: object, context: WorkflowContext
    ) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        policy = self._policy
        was_read = True
        try:
            found = await self._shelf.find(key)
        except CacheStorageError as error:
            self._fail_open(error, context)
            found, was_read = None, isinstance(error, CorruptRecordError)
        if found is not None and found.fresh_for > 0:
            self._counts.hits += 1
            if is_listening():
                emit(context, "cache.hit", fresh_for=found.fresh_for)
            if found.fresh_for <= policy.early_refresh:
                self._refresh(key, input_data, context)
            return self._taken(found)
        if found is not None and found.age < policy.stale_ttl:
            self._refresh(key, input_data, context)
            return self._stale(found, context, None)
        try:
            return await self._miss(key, input_data, context, was_read)
        except Exception as error:
            if not policy.stale_if_error:
                raise
            # Asked again: the entry has aged, and may have been invalidated.
            found = await self._find(key, context)
            if found is None or found.age >= policy.stale_if_error:
                raise
            if found.fresh_for > 0:  # Another caller has loaded it meanwhile.
                return self._taken(found)
            return self._stale(found, context, error)

    async def _find(self, key: Hashable, context: WorkflowContext) -> Found | None:
        try:
            return await self._shelf.find(key)
        except CacheStorageError as error:
            self._fail_open(error, context)
            return None

    def _taken(self, found: Found) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        value = found.take() if found.is_original else found.value
        if self._has_outer:
            self._tell_outer(value, found.fresh_for, found.tags)
        return value

    def _tell_outer(
        self, value: object, fresh_for: float, tags: tuple[str, ...]
    ) -> None:
        slip = freshness.slip_for(self)
        if slip is not None:
            slip.fill(value, fresh_for, tags)

    def _stale(
        self, found: Found, context: WorkflowContext, error: Exception | None
    ) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        self._counts.stale += 1
        context.outcomes[context.position_of(self).path] = "stale"
        emit(context, "cache.stale", age=found.age, error=error)
        return self._taken(found)

    async def _miss(
        self,
        key: Hashable,
        input_data: object,
        context: WorkflowContext,
        was_read: bool,  # noqa: FBT001 - of one call above
    ) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        self._raise_remembered(key, context)
        self._counts.misses += 1
        emit(context, "cache.miss")
        if not self._policy.single_flight:
            load = self._flights.enter(key)
            value = await self._load(load, input_data, context)
            return self._loaded(value, load)
        may_be_older = True
        while True:
            flight, is_older = self._board(key, input_data, context, was_read)
            try:
                await flight.landed()
                if flight.has_failed:
                    if flight.was_short_for(context.deadline):
                        continue
                    raise flight.error()
                if flight.is_outdated and is_older and may_be_older:
                    # Another process may have invalidated it before this call.
                    may_be_older = False
                    continue
                value = flight.task.result()
                is_mine, flight.is_taken = not flight.is_taken, True
                return self._loaded(value if is_mine else self._copied(value), flight)
            finally:
                # The error's traceback holds this frame, and must not hold itself.
                del flight

    def _loaded(self, value: Any, load: Load) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        if self._has_outer:
            if load.is_void:
                self._tell_outer(value, 0.0, load.tags)
            elif load.fresh_for is not None:
                self._tell_outer(value, load.fresh_for, load.tags)
        return value

    def _board(
        self,
        key: Hashable,
        input_data: object,
        context: WorkflowContext,
        was_read: bool,  # noqa: FBT001 - of the only caller
    ) -> tuple[Flight, bool]:
        """Return the load of this key, and whether other processes might outdate it."""
        flight = self._flights.find(key)
        if flight is not None:
            self._counts.coalesced += 1
            emit(context, "cache.coalesced")
            lease = flight.lease
            # As long as the storage cannot be asked, nobody invalidates anything.
            is_told = lease is not None and (was_read or lease.token is not None)
            return flight, is_told and flight.has_begun
        run = self._load if self._leases is None else self._lead
        flight = self._flights.begin(
            key,
            lambda load: run(load, input_data, context),
            f"load for {self.name}",
            deadline=context.deadline if self._reads_deadline else None,
        )
        return flight, False

    def _copied(self, value: Any) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        """Return what the second caller of a load gets."""
        try:
            return copied(value, self._policy.copy)
        except CacheStorageError:
            return value  # What cannot be copied was reported when it was to be kept.

    async def _lead(
        self,
        load: Load,
        input_data: object,
        context: WorkflowContext,
        fresh_for: float = 0.0,
    ) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        """Load, or wait until another process has loaded what is fresh for longer."""
        storage: Any = self._leases
        lease = load.lease = Lease(storage, str(load.key), self._policy.lease)
        try:
            found = await self._await_turn(lease, load, context, fresh_for)
            if found is None:
                return await self._load(load, input_data, context)
            load.fresh_for, load.tags = found.fresh_for, found.tags
            load.is_closed = True
            return found.value
        finally:
            self._flights.leave(load)
            await lease.end()
            del load  # A flight holds its task, and the task this frame by its error.

    async def _await_turn(
        self, lease: Lease, load: Load, context: WorkflowContext, fresh_for: float
    ) -> Found | None:
        async def look() -> Found | None:
            try:
                found = await self._shelf.find(load.key)
            except CorruptRecordError:
                return None  # It is being loaded anew because that was told before.
            return None if found is None or found.fresh_for <= fresh_for else found

        clock = get_running_loop().time
        began = clock()
        try:
            found = await turn(lease, look, context.deadline)
        except Exception as error:  # noqa: BLE001 - whatever a storage raises
            self._fail_open(_as_storage_error(error), context)
            return None
        waited = clock() - began
        if lease.has_waited:
            self._counts.lease_waits += 1
            emit(context, "cache.lease_waited", seconds=waited, loads=found is None)
        return found

    async def _load(
        self, load: Load, input_data: object, context: WorkflowContext
    ) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        """Execute the wrapped primitive and keep what it returns."""
        child: Any = self.primitive
        label = self._child_label
        view = context if label is None else context.below(self, child, label)
        self._counts.loads += 1
        load.has_begun = True
        inner = self._inner
        slip = before = None
        if inner is not None:
            before, slip = freshness.SLIP.get(), Slip(inner)
            freshness.SLIP.set(slip)
        try:
            try:
                value = await child.execute(input_data, view)
            except Exception as error:
                self._counts.load_errors += 1
                self._remember(load, error)
                raise
            finally:
                if slip is not None:
                    freshness.SLIP.set(before)
            await self._keep(load, input_data, value, context, slip)
            return value
        finally:
            self._flights.leave(load)
            del load  # A flight holds its task, and the task this frame by its error.

    async def _keep(
        self,
        load: Load,
        input_data: object,
        value: object,
        context: WorkflowContext,
        slip: Slip | None,
    ) -> None:
        record = None if load.is_void else self._record(load, input_data, value, slip)
        lease = load.lease
        token = None if lease is None else lease.token
        # Whoever comes now might come after an invalidation that this does not see.
        load.is_closed = lease is not None
        if lease is not None and token is None:
            load.is_outdated = True  # Nothing would have told it of an invalidation.
        elif record is not None:
            load.fresh_for, load.tags = record.fresh_for, record.tags
            await self._put(load, record, context, token)
        elif lease is not None:
            load.is_outdated = not await lease.is_held()

    def _record(
        self, load: Load, input_data: object, value: object, slip: Slip | None
    ) -> Record | None:
        """Return what is to be kept of a value, if anything."""
        policy = self._policy
        self._failing.discard(load.key)
        if self._failures is not None:
            self._failures.remove(load.key)
        if not policy.admits(value):
            return None
        ttl = policy.lifetime(value)
        tags = policy.tags_of(input_data, value) if ttl > 0 else ()
        if slip is not None and slip.tells_of(value):
            ttl = min(ttl, slip.fresh_for)
            tags = tuple(dict.fromkeys((*tags, *slip.tags)))
        return Record(value, ttl, ttl + policy.stale_window, tags) if ttl > 0 else None

    async def _put(
        self, load: Load, record: Record, context: WorkflowContext, token: str | None
    ) -> None:
        """Keep a value, unless its key has been invalidated meanwhile."""
        try:
            evicted = await self._shelf.put(load.key, record, token)
            if load.lease is not None and token is not None:
                load.lease.spend()
            if load.is_void:  # Invalidated while a storage was writing.
                await self._shelf.drop(load.key)
        except CacheStorageError as error:
            load.is_outdated = token is not None
            self._fail_open(error, context)
            return
        if evicted is None:
            load.is_void = load.is_outdated = True
            emit(context, "cache.lease_lost")
        elif evicted:
            emit(context, "cache.evict", count=evicted)

    def _refresh(
        self, key: Hashable, input_data: object, context: WorkflowContext
    ) -> None:
        """Load in the background, unless somebody is loading already."""
        if self._flights.find(key) is not None:
            return
        self._counts.refreshes += 1
        emit(context, "cache.refresh")
        # The call that asked for it is over long before; so may be its deadline.
        view = context.child()
        view.deadline = None
        self._flights.begin(
            key,
            lambda load: self._load_in_background(load, input_data, view),
            f"refresh for {self.name}",
            in_background=True,
        )

    async def _load_in_background(
        self, load: Load, input_data: object, context: WorkflowContext
    ) -> Any:  # noqa: ANN401 - the wrapped primitive's output
        key = load.key
        try:
            if self._leases is None:
                return await self._load(load, input_data, context)
            # What is fresh, but not for long, is what is to be refreshed.
            fresh_for = self._policy.early_refresh
            return await self._lead(load, input_data, context, fresh_for)
        except Exception as error:
            emit(context, "cache.refresh_failed", error=error)
            if key not in self._failing:
                if len(self._failing) >= self._policy.max_size:
                    self._failing.clear()
                self._failing.add(key)
                logger.warning(
                    "%s keeps a value whose refresh failed",
                    context.position_of(self).path,
                    exc_info=error,
                )
            raise
        finally:
            del load

    def _remember(self, load: Load, error: Exception) -> None:
        if self._failures is None or load.is_void or not self._policy.remembers(error):
            return
        ttl = self._policy.negative_ttl
        self._failures.write(load.key, twin_of_error(error), ttl, ttl)

    def _raise_remembered(self, key: Hashable, context: WorkflowContext) -> None:
        entry = None if self._failures is None else self._failures.read(key)
        if entry is None:
            return
        kept: Any = entry.value
        error = twin_of_error(kept)
        self._counts.hits += 1
        emit(context, "cache.hit", error=error)
        try:
            raise error.with_traceback(None)
        finally:
            del error, kept, entry

    def _fail_open(self, error: CacheStorageError, context: WorkflowContext) -> None:
        """Tell of a failing storage, and raise the error if that was asked for."""
        self._counts.errors += 1
        is_corrupt = isinstance(error, CorruptRecordError)
        emit(context, "cache.corrupt" if is_corrupt else "cache.error", error=error)
        if not self._policy.fail_open:
            raise error
        cause = type(error) if is_corrupt else type(error.__cause__)
        if cause not in self._logged:
            self._logged.add(cause)
            path = context.position_of(self).path
            what = "loads anew" if is_corrupt else "goes on without its storage"
            logger.warning("%s %s: %s", path, what, error)

    async def invalidate(
        self, input_data: In, context: WorkflowContext | None = None
    ) -> None:
        """Forget what is remembered for an input.

        A load of it that is under way still answers those who wait for it, but is not
        kept, and later callers load anew. In a storage that has leases, that goes for
        the loads of other processes, too.

        Args:
            input_data: The input.
            context: What `key_fn` is given besides; a new context unless given.

        Raises:
            CacheKeyError: The input has no key.
            CacheStorageError: The storage failed, whatever `fail_open` says: the entry
                may still be there.
        """
        self._wrapped()
        context = WorkflowContext() if context is None else context
        key = self._key(input_data, context)
        self._forget(key)
        try:
            if self._inner is not None:
                await self._inner.invalidate(input_data, context)
                self._forget(key)  # What was loaded from there meanwhile.
        finally:
            await self._shelf.drop(key)
        emit(context, "cache.invalidated")

    def _forget(self, key: Hashable) -> None:
        self._flights.void(key)
        self._failing.discard(key)
        if self._failures is not None:
            self._failures.remove(key)

    async def invalidate_tags(self, *tags: str) -> None:
        """Forget every entry that has one of these tags.

        In a storage that several caches share, that means the entries of all of them.
        Loads that are under way and may get such a tag are not kept: those of this
        cache, and those that hold the lease of their key in a storage that has leases.

        Args:
            tags: One or more tags.

        Raises:
            TypeError: There is none, or one is not a text.
            CacheStorageError: The storage failed, whatever `fail_open` says.
        """
        self._wrapped()
        if not tags or not all(isinstance(tag, str) for tag in tags):
            msg = f"invalidate_tags{tags!r} needs one or more texts"
            raise TypeError(msg)
        self._void_tagged(tags)
        try:
            if self._inner is not None:
                await self._inner.invalidate_tags(*tags)
                self._void_tagged(tags)  # What was loaded from there meanwhile.
        finally:
            await self._shelf.drop_tagged(tags)

    def _void_tagged(self, tags: tuple[str, ...]) -> None:
        # The tags of a cache below are known only when it has answered.
        if self._inner is not None or self._policy.may_tag(tags):
            self._flights.void_all()

    async def clear(self) -> None:
        """Forget everything that this cache remembers.

        Raises:
            CacheStorageError: The storage failed, whatever `fail_open` says.
        """
        self._wrapped()
        self._forget_all()
        try:
            if self._inner is not None:
                await self._inner.clear()
                self._forget_all()
        finally:
            await self._shelf.drop_all()

    def _forget_all(self) -> None:
        self._flights.void_all()
        self._failing.clear()
        if self._failures is not None:
            self._failures.remove_all()


def _as_storage_error(error: Exception) -> CacheStorageError:
    if isinstance(error, CacheStorageError):
        return error
    failure = CacheStorageError(f"the storage could not lease: {error!r}")
    failure.__cause__ = error
    return failure


def _cache_below(
    primitive: WorkflowPrimitive[Any, Any],
) -> CachePrimitive[Any, Any] | None:
    """Return the cache that a primitive is, or wraps in what passes its answers on.

    Whether something between the two changes an answer is seen when there is one.
    """
    below: Any = primitive
    while isinstance(below, Wrapper) and not isinstance(below, CachePrimitive):
        below = below.primitive
    return below if isinstance(below, CachePrimitive) else None


def _check_names(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options if all are known and `ttl` is among them."""
    unknown = options.keys() - _DEFAULTS.keys() - {"ttl"}
    if unknown:
        msg = (
            f"CachePrimitive has no option {min(unknown)!r}; it has "
            f"{', '.join(['ttl', *_DEFAULTS])}"
        )
        raise TypeError(msg)
    if "ttl" not in options:
        msg = "CachePrimitive needs ttl=, the seconds for which a value is fresh"
        raise TypeError(msg)
    return options
