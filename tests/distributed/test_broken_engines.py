"""The checks fail for an engine that performs calls otherwise than it should."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

import pytest

from tests.distributed.broken_engines import ToyEngine, expect_failure
from tests.distributed.test_altered_replies import (
    ALTERED,
    CONTEXT,
    RAISES,
    VALUES,
)
from tests.performance.tools import virtual
from tta_primitives.distributed import EngineError, RemoteReply, Worker
from tta_primitives.distributed.conformance import ENGINE_CHECKS


def check_name(check):
    return check.__name__


# Sound ones.


class DeliversTwice(ToyEngine):
    """Performs each call on two workers, as it may happen after a crash."""

    def __init__(self):
        super().__init__()
        self.other = Worker(self.registry)

    async def call(self, task):
        first, _ = await asyncio.gather(super().call(task), self.other.perform(task))
        return first

    async def close(self):
        await super().close()
        await self.other.close()


class FourAtOnce(ToyEngine):
    """Performs no more than four calls at a time."""

    def __init__(self):
        super().__init__()
        self.places = asyncio.Semaphore(4)

    async def call(self, task):
        async with self.places:
            return await super().call(task)


class Far(ToyEngine):
    """Takes a quarter of a second to bring a call to its worker."""

    async def call(self, task):
        await asyncio.sleep(0.25)
        return await super().call(task)


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=check_name)
@pytest.mark.parametrize("kind", [ToyEngine, DeliversTwice, FourAtOnce, Far])
@virtual
async def test_a_sound_engine_conforms(check, kind, tmp_path) -> None:
    """What no caller would mind is no fault."""
    async with kind() as engine:
        await check(engine, tmp_path)


# Broken ones.


class Silent(ToyEngine):
    """Never answers, and never begins."""

    async def call(self, task):
        await asyncio.Event().wait()


class NewKeys(ToyEngine):
    """Gives each delivery a key of its own."""

    def __init__(self):
        numbers = count()
        super().__init__(lambda task: self.with_key(task, next(numbers)))

    def with_key(self, task, number):
        return replace(task, context={**task.context, "idempotency_key": f"k{number}"})


class RemembersFailures(ToyEngine):
    """Answers a further attempt as it has answered the first."""

    def __init__(self):
        super().__init__()
        self.replies = {}

    async def call(self, task):
        key = task.context["idempotency_key"]
        if key not in self.replies:
            self.replies[key] = await super().call(task)
        return self.replies[key]


class Careless(ToyEngine):
    """Knows no deadline, and leaves the work alone when its caller leaves."""

    def __init__(self):
        super().__init__()
        self.work = set()

    async def call(self, task):
        if task.remaining_seconds != 50:
            context = {**task.context, "remaining_seconds": None}
            task = replace(task, context=context)
        work = asyncio.ensure_future(super().call(task))
        self.work.add(work)
        return await asyncio.shield(work)

    async def close(self):
        await super().close()
        await asyncio.gather(*self.work, return_exceptions=True)


class Hasty(ToyEngine):
    """Answers before the work is done."""

    async def call(self, task):
        if task.path == "check_hang":
            return RemoteReply(call_id=task.call_id, status="ok", value="soon")
        return await super().call(task)


class Unstoppable(ToyEngine):
    """Answers a caller who is cancelled, as if nothing had been."""

    async def call(self, task):
        try:
            return await super().call(task)
        except asyncio.CancelledError:
            return RemoteReply(call_id=task.call_id, status="ok")


class DeadAfterwards(ToyEngine):
    """Has nothing to say any more after a cancellation."""

    is_dead = False

    async def call(self, task):
        if self.is_dead:
            return RemoteReply(call_id=task.call_id, status="ok")
        try:
            return await super().call(task)
        except asyncio.CancelledError:
            self.is_dead = True
            raise


class ThreeAtOnce(FourAtOnce):
    def __init__(self):
        super().__init__()
        self.places = asyncio.Semaphore(3)


class CrossedAnswers(ToyEngine):
    """Gives each caller the answer to the call before his."""

    def __init__(self):
        super().__init__()
        self.before = None

    async def call(self, task):
        reply = await super().call(task)
        before, self.before = self.before, reply.value
        return reply if before is None else replace(reply, value=before)


class AnswersOnce(ToyEngine):
    """Has no answer for a call that was delivered already."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    async def call(self, task):
        if task.call_id in self.seen:
            await asyncio.Event().wait()
        self.seen.add(task.call_id)
        return await super().call(task)


class RefusesTheSecond(AnswersOnce):
    async def call(self, task):
        if task.call_id in self.seen:
            return RemoteReply(call_id=task.call_id, status="cancelled", error={"a": 1})
        self.seen.add(task.call_id)
        return await super(AnswersOnce, self).call(task)


class LeavesThemWaiting(ToyEngine):
    """Says nothing to those who wait when it is closed."""

    async def call(self, task):
        try:
            return await super().call(task)
        except Exception:
            if not self._is_closed:
                raise
            await asyncio.Event().wait()


class FailsOtherwise(ToyEngine):
    """Raises another error when it is closed."""

    async def call(self, task):
        try:
            return await super().call(task)
        except EngineError as error:
            raise ConnectionError from error


class CancelsCallers(ToyEngine):
    """Cancels those who wait when it is closed."""

    async def call(self, task):
        try:
            return await super().call(task)
        except EngineError as error:
            raise asyncio.CancelledError from error


class AnswersAnyhow(ToyEngine):
    """Answers those who wait, as if the work was done."""

    async def call(self, task):
        try:
            return await super().call(task)
        except EngineError:
            return RemoteReply(call_id=task.call_id, status="ok")


class NeverClosed(ToyEngine):
    """Ends its calls when it is closed, and goes on."""

    def _check_open(self):
        pass


class OpensOnce(ToyEngine):
    """Is no longer what it was when it is opened again."""

    closed = 0

    async def close(self):
        self.closed += 1
        await super().close()

    async def call(self, task):
        reply = await super().call(task)
        return replace(reply, value=None) if self.closed else reply


LOCAL = "fails_like_a_local_step"
DEADLINE = "carries_the_deadline"
CANCELLATION = "carries_a_cancellation"
MANY = "runs_many_at_once"
DELIVERY = "answers_each_delivery"
CLOSED = "ends_when_it_is_closed"

HANG = "<RemotePrimitive 'check_hang'"
ENDED = "what a waiting call raised: got <class '"

BROKEN = [
    (NewKeys, LOCAL, "the number of keys of the attempts ['raise k0', 'raise k1', 'ra"),
    (RemembersFailures, LOCAL, "3 attempts were made, and 1 steps executed"),
    (Hasty, DEADLINE, f"{HANG} on='Hasty' path='check_hang'"),
    (Careless, DEADLINE, "no step has noted 'late cancelled' 1 times within 20 s"),
    (Silent, CANCELLATION, "no step has noted 'left began' 1 times within 20 s"),
    (Careless, CANCELLATION, "no step has noted 'left cancelled' 1 times within 20 s"),
    (Unstoppable, CANCELLATION, "whether the caller was cancelled: got False instead"),
    (DeadAfterwards, CANCELLATION, "a call after that: got None instead of 1"),
    (ThreeAtOnce, MANY, "four calls that wait for each other raised ExceptionGroup("),
    (CrossedAnswers, MANY, "outputs: got ["),
    (AnswersOnce, DELIVERY, "answers_each_delivery has had no answer for 40 s"),
    (RefusesTheSecond, DELIVERY, "two replies to one call: got [('"),
    (Silent, CLOSED, "no step has noted 'open began' 1 times within 20 s"),
    (LeavesThemWaiting, CLOSED, "calls that ended when the engine was closed: got 0"),
    (FailsOtherwise, CLOSED, f"{ENDED}ConnectionError'>"),
    (CancelsCallers, CLOSED, f"{ENDED}asyncio.exceptions.CancelledError'>"),
    (AnswersAnyhow, CLOSED, f"{ENDED}NoneType'>"),
    (NeverClosed, CLOSED, "<RemotePrimitive 'check_echo' on='NeverClosed' path='chec"),
    (OpensOnce, CLOSED, "a call after reopening: got None instead of 1"),
]


@pytest.mark.parametrize(("kind", "name", "message"), BROKEN)
@virtual
async def test_a_broken_engine_is_told_what_is_wrong(
    kind, name, message, tmp_path
) -> None:
    """Each check fails where it should, with a sentence that says what it saw."""
    await expect_failure(name, kind(), tmp_path, message)


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=check_name)
@virtual
async def test_an_engine_that_never_answers_is_told(check, tmp_path) -> None:
    """No check waits for ever: a test that hangs says nothing."""
    engine = Silent()
    with pytest.raises(
        AssertionError, match=r"has had no answer for 40 s$|within 20 s$"
    ):
        await check(engine, tmp_path)


def test_each_check_fails_for_some_engine() -> None:
    """A check that nothing breaks would be of no use."""
    failed = {name for *_, name, _ in (*VALUES, *ALTERED, *BROKEN)}
    failed |= {RAISES, CONTEXT}
    assert failed == {check.__name__ for check in ENGINE_CHECKS}
