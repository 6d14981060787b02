"""The interceptor that records each step of a run, and replays what is recorded.

What is recorded where:

- The outcome of every leaf, result or error, under its path.
- An error where it begins: that of a time limit, of an open circuit, of a group. What
  the workflow does about an error is then the same after a resume.
- The outcome of a primitive that has gone on although a step below it failed or was
  given up, for instance a retry: what is settled is not repeated, nor waited for.

A saga learns what to undo from the steps that complete inside it. So what has such
steps inside is never skipped as a whole, and a step that was given up there is given up
again. One that is done and is being recorded when the run is cancelled counts as done:
the cancellation waits until the saga has learned of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.cancellation import requests
from tta_primitives.chance import new_id, seeded
from tta_primitives.context import KeyScope
from tta_primitives.door import Interceptor
from tta_primitives.durable.errors import Halted, JournalError
from tta_primitives.durable.values import from_plain, plain_value, to_json
from tta_primitives.recovery.compensation import (
    CompensationPrimitive,
    SagaPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tta_primitives.context import WorkflowContext
    from tta_primitives.door import Call
    from tta_primitives.durable.journal import Journal
    from tta_primitives.primitive import WorkflowPrimitive

    AnyPrimitive: TypeAlias = WorkflowPrimitive[Any, Any]

__all__ = ["Recorder"]

_LONGEST_KEY = 200
_MISSING = object()
_OUTCOMES = frozenset({"output", "error", "given_up"})


class _Place:
    """One call in a run: its key, and what has become of the calls below it.

    Attributes:
        key: Its path, with `@2` for the second execution at one place.
        parent: The place of the call that it was made in.
        is_step: Whether it is recorded as one; what is below it is not recorded.
        is_inside: Whether it is below such a one.
        can_undo: Whether a saga may have to undo something that is inside of it.
        is_frozen: Whether it was given up between two steps, and no further one begins.
        undone_in: The place inside of which a saga learns that this was done.
        is_open: Whether a step below it failed or was given up, and nothing that has
            gone on since then was recorded as a whole.
        gave_up: Whether a step below it was given up, likewise.
        errors: The errors that were recorded below it and are passing through.
    """

    __slots__ = (
        "_counts",
        "can_undo",
        "errors",
        "gave_up",
        "is_frozen",
        "is_inside",
        "is_open",
        "is_step",
        "key",
        "parent",
        "undone_in",
    )

    def __init__(
        self, key: str, parent: _Place | None, *, is_step: bool, can_undo: bool
    ) -> None:
        self.key = key
        self.parent = parent
        self.is_step = is_step
        self.is_inside: bool = False
        if parent is not None:
            self.is_inside = parent.is_step or parent.is_inside
        self.can_undo = can_undo
        self.undone_in: _Place | None = None
        self.is_frozen = False
        self.is_open = False
        self.gave_up = False
        self.errors: list[BaseException] = []
        self._counts: dict[str, int] = {}

    @property
    def was_begun(self) -> bool:
        """Whether anything below it was called."""
        return bool(self._counts)

    @property
    def is_below_frozen(self) -> bool:
        """Whether what it is in was given up before this was begun."""
        above = self.parent
        while above is not None and not above.is_frozen:
            above = above.parent
        return above is not None

    def number(self, label: str) -> int:
        """Count the calls below that have this label."""
        number = self._counts[label] = self._counts.get(label, 0) + 1
        return number


def _is_step(primitive: AnyPrimitive) -> bool:
    """Tell whether a primitive is recorded as one: a leaf, or what asks for it."""
    if getattr(primitive, "runs_as_one_step", False) or _is_elsewhere(primitive):
        return True
    return not primitive.children()


def _is_elsewhere(primitive: AnyPrimitive) -> bool:
    """Tell whether what is below a primitive is executed by a worker."""
    return bool(getattr(primitive, "runs_elsewhere", False))


def _undone_as_part_of(place: _Place, call: Call) -> _Place | None:
    """Return the place inside of which a saga learns that this was done.

    None for what has no compensation, and for the last of a list: when that is done,
    the saga is.
    """
    if isinstance(call.primitive, CompensationPrimitive):
        return place
    above = call.parent_call
    if above is None or not isinstance(above.primitive, SagaPrimitive):
        return None
    listed = above.primitive._listed()
    if listed is None or call.label not in listed.undone_by:
        return None
    return None if call.label == listed._places[-1][1] else place.parent


def _can_undo(primitive: AnyPrimitive) -> bool:
    """Tell whether something inside of a primitive would have to be undone."""
    if isinstance(primitive, (CompensationPrimitive, SagaPrimitive)):
        return True
    return any(_can_undo(child) for child in primitive.children())


def _key(parent: _Place | None, label: str) -> str:
    key = label
    if parent is not None:
        number = parent.number(label)
        key = (
            f"{parent.key}/{label}" if number == 1 else f"{parent.key}/{label}@{number}"
        )
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"{key[: _LONGEST_KEY - 33]}~{digest}"


class _Late:
    """A cancellation of the current task that waits for a moment."""

    __slots__ = ("_requests", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._requests = requests()

    def strike(self) -> None:
        """Raise it, if it is for this task and nobody has taken it back meanwhile."""
        is_ours = self._task is asyncio.current_task()
        if is_ours and 0 < self._requests <= requests():
            raise asyncio.CancelledError


# The innermost place of each recorder: a call with a context of its own has no parent.
_places: ContextVar[dict[Recorder, _Place]] = ContextVar("tta_durable_places")


class Recorder(Interceptor):
    """Records the steps of one execution of a run, and replays what is recorded.

    Args:
        journal: Where they are recorded.
        records: What it already has.
        root_key: The idempotency key of the run, which those of the steps are derived
            from. So is chance, so that what is executed once more draws the same.

    Attributes:
        replayed: How many recorded outcomes were taken instead of an execution.
        halted: What has ended this execution before its time.
    """

    def __init__(
        self, journal: Journal, records: Mapping[str, str], *, root_key: str
    ) -> None:
        self._journal = journal
        self._records = records
        self._root_key = root_key
        self._execution = new_id()
        self._kinds: dict[int, tuple[AnyPrimitive, bool, bool]] = {}
        self._late: dict[_Place, _Late] = {}
        self.replayed: int = 0
        self.halted: Halted | None = None

    def halt(self, why: Halted) -> None:
        """End this execution: nothing is executed or recorded from now on."""
        if self.halted is None:
            self.halted = why

    async def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any primitive's output
        """Execute a call and record it, or take what is recorded."""
        above = call.parent_call
        parent = None if above is None else above.store.get(self)
        self._check()
        around = _places.get({})
        if parent is None:
            parent = around.get(self)
            if parent is not None and (parent.is_step or parent.is_inside):
                # A worker in this process, or a run of the step's own: its business.
                return await proceed()
        place = call.store[self] = self._place(call, parent)
        if place.is_inside:
            self._give_key(place, call)
            return await proceed()
        if self._late:
            await self._strike_late(place)
        token = _places.set({**around, self: place})
        try:
            with seeded(self._seed(place, call)):
                return await self._at(place, call, proceed)
        except asyncio.CancelledError:
            self._check()
            raise
        finally:
            _places.reset(token)
            place.errors.clear()

    def _seed(self, place: _Place, call: Call) -> str:
        seed = f"{self._root_key}/{place.key}"
        if _is_elsewhere(call.primitive):
            # An execution that was given up has revoked its calls by their ids.
            return f"{seed}/{self._execution}"
        return seed

    def _place(self, call: Call, parent: _Place | None) -> _Place:
        primitive = call.primitive
        kinds = self._kinds.get(id(primitive))
        if kinds is None:
            step = _is_step(primitive)
            # With the primitive itself, so that its id stays its own.
            kinds = primitive, step, not step and _can_undo(primitive)
            self._kinds[id(primitive)] = kinds
        _, is_step, can_undo = kinds
        key = _key(parent, call.label)
        place = _Place(key, parent, is_step=is_step, can_undo=can_undo)
        place.undone_in = _undone_as_part_of(place, call)
        return place

    def _check(self) -> None:
        if self.halted is not None:
            raise self.halted

    async def _at(
        self, place: _Place, call: Call, proceed: Callable[[], Awaitable[Any]]
    ) -> Any:  # noqa: ANN401 - any primitive's output
        recorded = self._records.get(place.key)
        if recorded is not None:
            place.is_frozen = place.can_undo and "given_up" in _read(place, recorded)
            if not place.is_frozen:
                return await self._replay(place, call, recorded)
        if place.is_step:
            if place.is_below_frozen:
                await _given_up_again()
            return await self._step(place, call, proceed)
        return await self._composite(place, call, proceed)

    async def _replay(self, place: _Place, call: Call, recorded: str) -> Any:  # noqa: ANN401 - any primitive's output
        record = _read(place, recorded)
        self.replayed += 1
        _put_changes(call.context, record)
        if record.get("given_up"):
            _leave_open(place, gave_up=True)
            await _given_up_again()
        if "error" not in record:
            return from_plain(record["output"])
        error = from_plain(record["error"])
        self._pass_on(place, error)
        try:
            raise error
        finally:
            # The traceback holds this frame, which must not hold the error.
            del error

    async def _step(
        self, place: _Place, call: Call, proceed: Callable[[], Awaitable[Any]]
    ) -> Any:  # noqa: ANN401 - any primitive's output
        self._give_key(place, call)
        before = _Before(call)
        try:
            output = await proceed()
            plain = plain_value(output, f"the output of {place.key}")
        except asyncio.CancelledError:
            await self._record_given_up(place)
            raise
        except Exception as error:
            await self._record(place, before, error=error)
            self._pass_on(place, error)
            raise
        # What comes out of the journal after a resume is not the same object either.
        await self._record_output(place, before, plain)
        return from_plain(json.loads(json.dumps(plain)))

    async def _composite(
        self, place: _Place, call: Call, proceed: Callable[[], Awaitable[Any]]
    ) -> Any:  # noqa: ANN401 - any primitive's output
        before = _Before(call)
        try:
            output = await proceed()
            if place in self._late:
                self._late[place].strike()
            if place.is_frozen:
                await _given_up_again()
        except asyncio.CancelledError:
            await self._composite_cancelled(place)
            raise
        except Exception as error:
            await self._composite_failed(place, before, error)
            raise
        finally:
            self._late.pop(place, None)
        if not place.is_open:
            return output
        plain = _MISSING if place.can_undo else _plain_or_missing(output)
        if plain is _MISSING:
            _leave_open(place, gave_up=place.gave_up)
        else:
            await self._record_output(place, before, plain)
        return output

    async def _record_output(
        self,
        place: _Place,
        before: _Before,
        plain: Any,  # noqa: ANN401 - JSON
    ) -> None:
        """Record an output, to the end where a saga has to learn of it.

        What is done must be undone if the run is cancelled now: the cancellation waits
        until the step with its compensation has returned.
        """
        undoable: _Place | None = place
        while undoable is not None and undoable.undone_in is None:
            undoable = undoable.parent
        if undoable is None or undoable.undone_in is None:
            await self._record(place, before, plain=plain)
            return
        writing = asyncio.ensure_future(self._record(place, before, plain=plain))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait((writing,))
            writing.result()
            self._late[undoable.undone_in] = _Late()

    async def _strike_late(self, place: _Place) -> None:
        """Raise the cancellation that has waited for what is around a new place."""
        around = place.parent
        while around is not None:
            if around in self._late:
                try:
                    self._late[around].strike()
                except asyncio.CancelledError:
                    await self._record_given_up(place)
                    raise
            around = around.parent

    async def _composite_cancelled(self, place: _Place) -> None:
        """Note that a place is given up, unless a step below it is noted as that."""
        is_noted, place.is_frozen = place.gave_up or place.is_frozen, False
        if is_noted:
            _leave_open(place, gave_up=True)
        else:
            await self._record_given_up(place)

    async def _composite_failed(
        self, place: _Place, before: _Before, error: Exception
    ) -> None:
        is_new = all(error is not known for known in place.errors)
        # A saga further outside finds what to undo only by what is called below.
        can_skip = not (place.can_undo and place.was_begun)
        if can_skip and (is_new or place.gave_up):
            await self._record(place, before, error=error)
            place.gave_up = False
        self._pass_on(place, error)

    def _give_key(self, place: _Place, call: Call) -> None:
        """Give a step outside of retries an idempotency key of its own."""
        key = call.context._key
        is_whole = place.is_step and not call.primitive._is_plain_leaf
        if is_whole and (key is None or isinstance(key, str)):
            view = call.context.child()
            text = f"{self._root_key}\n{place.key}"
            view._key = hashlib.sha256(text.encode()).hexdigest()[:32]
            if _is_elsewhere(call.primitive):
                # Not one key for all steps on the worker, as the caller's own would be.
                view._key = KeyScope(call.path, view._key, 1)
            call.context = view

    def _pass_on(self, place: _Place, error: Exception) -> None:
        """Note that an error which is recorded leaves this place."""
        if place.parent is not None:
            place.parent.errors.append(error)
        _leave_open(place, gave_up=place.gave_up)

    async def _record_given_up(self, place: _Place) -> None:
        """Note that the workflow itself has cancelled a step: a time limit, a race."""
        self._check()
        _leave_open(place, gave_up=True)
        above: _Place | None = place
        while above is not None and not above.can_undo:
            above = above.parent
        if above is not None:
            writing = asyncio.ensure_future(self._write(place, {"given_up": True}))
            try:
                await asyncio.shield(writing)
            finally:
                await asyncio.wait((writing,))

    async def _record(
        self,
        place: _Place,
        before: _Before,
        *,
        plain: Any = None,  # noqa: ANN401 - JSON
        error: Exception | None = None,
    ) -> None:
        record = (
            {"output": plain}
            if error is None
            else {"error": plain_value(error, f"the error of {place.key}")}
        )
        await self._write(place, record | before.changes(place))

    async def _write(self, place: _Place, record: dict[str, Any]) -> None:
        self._check()
        try:
            await self._journal.write(place.key, json.dumps(record))
        except Halted as halted:
            self.halt(halted)
            raise
        self._check()


async def _given_up_again() -> None:
    """Wait for the cancellation that has ended this in an earlier execution."""
    await asyncio.get_running_loop().create_future()


def _leave_open(place: _Place, *, gave_up: bool) -> None:
    if place.parent is not None:
        place.parent.is_open = True
        place.parent.gave_up |= gave_up


def _plain_or_missing(output: object) -> Any:  # noqa: ANN401 - JSON, or the mark
    """Return the output of what need not be recorded, if it can be."""
    try:
        return plain_value(output, "")
    except TypeError:
        return _MISSING


class _Before:
    """What a call may change beside its output, as it was before."""

    def __init__(self, call: Call) -> None:
        self._context = call.context
        self._sees_context = not call.primitive._is_plain_leaf
        self._state: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        if self._sees_context:
            self._state = _texts(call.context)
            self._counts = dict(_key_counts(call.context))

    def changes(self, place: _Place) -> dict[str, Any]:
        """Return what is different now, for `_put_changes`."""
        if not self._sees_context:
            return {}
        found: dict[str, Any] = {}
        after = _texts(self._context)
        changed = {
            name: json.loads(text)
            for name, text in after.items()
            if text != self._state.get(name)
        }
        if changed:
            found["state"] = changed
        if gone := [name for name in self._state if name not in after]:
            found["gone"] = gone
        path = self._context.path
        counts = {
            name: number
            for name, number in _key_counts(self._context).items()
            if number != self._counts.get(name) and path in name
        }
        if counts and not place.is_step:
            found["counts"] = counts
        return found


def _texts(context: WorkflowContext) -> dict[str, str]:
    state = context.state
    return {n: to_json(v, f"context.state[{n!r}]") for n, v in state.items()}


def _key_counts(context: WorkflowContext) -> dict[str, int]:
    """Return what numbers the executions of retries, which their keys depend on."""
    key = context._key
    return key._counts if isinstance(key, KeyScope) else context._key_scopes


def _put_changes(context: WorkflowContext, record: dict[str, Any]) -> None:
    for name, plain in record.get("state", {}).items():
        context.state[name] = from_plain(plain)
    for name in record.get("gone", ()):
        context.state.pop(name, None)
    if "counts" in record:
        _key_counts(context).update(record["counts"])


def _read(place: _Place, recorded: str) -> dict[str, Any]:
    try:
        record = json.loads(recorded)
    except ValueError:
        record = None
    if isinstance(record, dict) and not _OUTCOMES.isdisjoint(record):
        return record
    msg = f"the record of {place.key} is not what a durable workflow has written"
    raise JournalError(msg)
