"""What can go wrong at a primitive: errors, lost answers, silence, bad output."""

# ruff: noqa: ANN401 - outputs of any primitive

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.trace.snapshot import detached
from tta_primitives.arguments import check_count, seconds
from tta_primitives.door import closing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from tta_primitives.door import Call

__all__ = [
    "Fault",
    "Strike",
    "cancel",
    "fail",
    "hang",
    "lost_ack",
    "returns",
    "slow",
]

ErrorSource: TypeAlias = (
    "BaseException | type[BaseException] | Callable[[Call], BaseException]"
)

Chunks: TypeAlias = AsyncGenerator[Any, None]


class Strike:
    """One fault acting on one call.

    Args:
        call: The call.
        proceed: Executes it, or streams it.
        tell: Is called when the fault acts.
    """

    __slots__ = ("call", "proceed", "tell")

    def __init__(
        self,
        call: Call,
        proceed: Callable[[], Any],
        tell: Callable[[], None],
    ) -> None:
        self.call: Call = call
        self.proceed: Callable[[], Any] = proceed
        self.tell: Callable[[], None] = tell


@dataclass(frozen=True, slots=True, repr=False)
class Fault:
    """Something that goes wrong at a call.

    Attributes:
        after_chunks: How many chunks of a stream come through before; without meaning
            for calls that are not streamed.
    """

    after_chunks: int

    async def execute(self, strike: Strike) -> Any:
        """Act in place of, or around, an execution."""
        raise NotImplementedError

    async def stream(self, strike: Strike) -> AsyncIterator[Any]:
        """Act in place of, or around, a stream."""
        async with aclosing(_chunks(strike)) as chunks:
            for _ in range(self.after_chunks):
                try:
                    yield await anext(chunks)
                except StopAsyncIteration:
                    return
            strike.tell()
            async with aclosing(self._rest(strike.call, chunks)) as rest:
                async for chunk in rest:
                    yield chunk

    async def _rest(self, call: Call, chunks: Chunks) -> Chunks:
        """Yield what comes after the chunks that came through."""
        await self._act(call)
        async for chunk in chunks:
            yield chunk

    async def _act(self, call: Call) -> None:
        """Do what goes wrong; a fault that comes back lets the call go on."""

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        raise NotImplementedError

    @property
    def hangs(self) -> bool:
        """Whether only a time limit, or a cancellation, ends it."""
        return False

    def _arguments(self) -> list[str]:
        return []

    def __repr__(self) -> str:
        shown = self._arguments()
        if self.after_chunks:
            shown.append(f"after_chunks={self.after_chunks}")
        return f"{self.name}({', '.join(shown)})"


async def _chunks(strike: Strike) -> Chunks:
    """Yield the chunks of the real stream, which begins when the first is asked for."""
    async with closing(strike.proceed()) as chunks:
        async for chunk in chunks:
            yield chunk


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Fail(Fault):
    """An error instead of the call."""

    error: ErrorSource

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return "fail"

    async def execute(self, strike: Strike) -> Any:
        """Raise."""
        strike.tell()
        raise _made(self.error, strike.call)

    async def _act(self, call: Call) -> None:
        raise _made(self.error, call)

    def _arguments(self) -> list[str]:
        return [_written(self.error)]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = (self.after_chunks, _identity(self.error))
        return mine == (other.after_chunks, _identity(other.error))

    def __hash__(self) -> int:
        return hash((type(self), self.after_chunks, _written(self.error)))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LostAck(Fail):
    """The call is executed, and its caller is told that it failed."""

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return "lost_ack"

    async def execute(self, strike: Strike) -> Any:
        """Execute the call, then raise."""
        await strike.proceed()
        strike.tell()
        raise _made(self.error, strike.call)

    async def _rest(self, call: Call, chunks: Chunks) -> Chunks:
        async for _ in chunks:
            pass
        await self._act(call)
        # Never reached: it makes this an async generator, as what it overrides is.
        yield


@dataclass(frozen=True, slots=True, repr=False)
class Hang(Fault):
    """No answer, ever."""

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return "hang"

    @property
    def hangs(self) -> bool:
        """Whether only a time limit, or a cancellation, ends it."""
        return True

    async def execute(self, strike: Strike) -> Any:
        """Wait until somebody cancels it."""
        strike.tell()
        await self._act(strike.call)

    async def _act(self, call: Call) -> None:  # noqa: ARG002 - whichever it is
        await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True, repr=False)
class Slow(Fault):
    """An answer that comes late."""

    delay: float

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return "slow"

    async def execute(self, strike: Strike) -> Any:
        """Wait, then execute the call."""
        strike.tell()
        await self._act(strike.call)
        return await strike.proceed()

    async def _act(self, call: Call) -> None:  # noqa: ARG002 - whichever it is
        await asyncio.sleep(self.delay)

    def _arguments(self) -> list[str]:
        return [f"{self.delay:g}"]


@dataclass(frozen=True, slots=True, repr=False)
class Cancel(Fault):
    """The task is cancelled while it is in the call."""

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return "cancel"

    async def execute(self, strike: Strike) -> Any:
        """Cancel the task."""
        strike.tell()
        await self._act(strike.call)

    async def _act(self, call: Call) -> None:
        task = asyncio.current_task()
        if task is not None:
            # As a caller does it, so that timeouts and task groups can tell.
            task.cancel(f"cancel() at {call.path}")
            await asyncio.sleep(0)
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Returns(Fault):
    """Another output, instead of the call."""

    value: Any

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return "returns"

    async def execute(self, strike: Strike) -> Any:
        """Return the value."""
        strike.tell()
        return _own(self.value)

    async def _rest(self, call: Call, chunks: Chunks) -> Chunks:  # noqa: ARG002
        yield _own(self.value)

    def _arguments(self) -> list[str]:
        return [repr(self.value)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Returns):
            return NotImplemented
        mine = (self.after_chunks, type(self.value), self.value)
        return mine == (other.after_chunks, type(other.value), other.value)

    def __hash__(self) -> int:
        return hash((Returns, self.after_chunks, type(self.value)))


def fail(error: ErrorSource, *, after_chunks: int = 0) -> Fault:
    """Raise an error instead of executing the call.

    Args:
        error: An exception, of which each strike raises a copy; a class; or a function
            of the `Call` that returns an exception.
        after_chunks: How many chunks of a stream come through before.

    Raises:
        TypeError: It is none of these, or the class needs arguments.
        ValueError: `after_chunks` is not a count.
    """
    return Fail(_checked_chunks(after_chunks), _checked_error(error))


def lost_ack(error: ErrorSource, *, after_chunks: int = 0) -> Fault:
    """Execute the call, then raise an error: the effect is there, the answer is lost.

    Args:
        error: As for `fail`.
        after_chunks: How many chunks of a stream are delivered; the others are lost.

    Raises:
        TypeError: As for `fail`.
        ValueError: `after_chunks` is not a count.
    """
    return LostAck(_checked_chunks(after_chunks), _checked_error(error))


def hang(*, after_chunks: int = 0) -> Fault:
    """Never answer.

    Args:
        after_chunks: How many chunks of a stream come through before.

    Raises:
        ValueError: `after_chunks` is not a count.
    """
    return Hang(_checked_chunks(after_chunks))


def slow(delay: float | timedelta, *, after_chunks: int = 0) -> Fault:
    """Answer late.

    Args:
        delay: Seconds before the call is executed, or a timedelta.
        after_chunks: How many chunks of a stream come through before the delay.

    Raises:
        TypeError: `delay` is no duration.
        ValueError: `delay` is not positive, or `after_chunks` is not a count.
    """
    return Slow(_checked_chunks(after_chunks), seconds("delay", delay))


def cancel(*, after_chunks: int = 0) -> Fault:
    """Cancel the task that executes the call.

    Args:
        after_chunks: How many chunks of a stream come through before.

    Raises:
        ValueError: `after_chunks` is not a count.
    """
    return Cancel(_checked_chunks(after_chunks))


def returns(value: object, *, after_chunks: int = 0) -> Fault:
    """Return this value instead of executing the call.

    Args:
        value: The output, for instance one that no caller should accept; each strike
            returns a copy. A stream yields it as its last chunk.
        after_chunks: How many chunks of a stream come through before.

    Raises:
        ValueError: `after_chunks` is not a count.
    """
    return Returns(_checked_chunks(after_chunks), value)


def _checked_chunks(after_chunks: int) -> int:
    return check_count("after_chunks", after_chunks)


def _checked_error(error: ErrorSource) -> ErrorSource:
    if isinstance(error, type) and issubclass(error, BaseException):
        _try_making(error)
        return error
    if isinstance(error, BaseException) or (
        callable(error) and not isinstance(error, type)
    ):
        return error
    msg = (
        f"error={error!r} must be an exception, a class of exceptions, or a function "
        "of the call that returns an exception"
    )
    raise TypeError(msg)


def _try_making(kind: type[BaseException]) -> None:
    try:
        kind()
    except TypeError as error:
        msg = (
            f"error={kind.__name__} cannot be made without arguments ({error}); give "
            f"an instance, {kind.__name__}(...), or a function of the call"
        )
        raise TypeError(msg) from None


def _own(value: Any) -> Any:
    """Return a copy of a value, or itself if it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - locks, clients, generators: anything may refuse
        return value


def _made(source: ErrorSource, call: Call) -> BaseException:
    """Return a new error: one that was raised before brings its traceback along."""
    if isinstance(source, BaseException):
        twin = detached(source)
        return twin if isinstance(twin, type(source)) else source
    made: object = source() if isinstance(source, type) else source(call)
    if not isinstance(made, BaseException):
        msg = f"{_written(source)} returned {made!r} for fail(...), not an exception"
        raise TypeError(msg)
    return made


def _written(source: ErrorSource) -> str:
    if isinstance(source, type):
        return source.__name__
    if isinstance(source, BaseException):
        return repr(source)
    return getattr(source, "__qualname__", repr(source))


def _identity(source: ErrorSource) -> object:
    """Return what makes two errors the same: an exception equals only itself."""
    if isinstance(source, BaseException):
        return type(source), source.args, str(source)
    return source
