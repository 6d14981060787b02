"""The same primitive for each of many items, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Sized
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from tta_primitives.arguments import check_count, check_flag
from tta_primitives.cancellation import is_cancellation, requests, settle
from tta_primitives.primitive import WorkflowPrimitive, as_operand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
    from typing import Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand

__all__ = ["MapOptions", "MapPrimitive"]

A = TypeVar("A")
B = TypeVar("B")
# Users read these names in errors of their type checkers: `MapPrimitive[Item, Result]`.
Item = TypeVar("Item", contravariant=True)  # noqa: PLC0105 - as above
Result = TypeVar("Result")

# How far a stream may run ahead of its consumer, in items for each place at work.
_WINDOW = 2


class MapOptions(TypedDict, total=False):
    """The keyword arguments of `MapPrimitive`, which documents them."""

    max_concurrency: int
    ordered: bool
    return_exceptions: bool


class MapPrimitive(
    WorkflowPrimitive["Iterable[Item] | AsyncIterable[Item]", "list[Result]"]
):
    """Execute a primitive for each item, so many at a time: a list of the outputs.

    A fixed number of workers share the items, which are taken one by one: an endless
    stream of them needs no more memory than a short one. If an item fails, the work on
    the others is cancelled and awaited; a sole failure is raised itself, several as an
    `ExceptionGroup`.

    Args:
        primitive: A primitive or a function, executed for each item.
        max_concurrency: At most so many items at a time.
        ordered: Whether outputs stand in the order of the items; else they stand in the
            order in which they were finished.
        return_exceptions: Put an exception into the list instead of raising it.

    Raises:
        TypeError: The primitive is neither primitive nor function.
        ValueError: `max_concurrency` is no whole number above 0.
    """

    _places_itself = True

    @overload
    def __init__(
        self: MapPrimitive[A, B],
        primitive: AsyncOperand[A, B],
        **options: Unpack[MapOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: MapPrimitive[A, B],
        primitive: SyncOperand[A, B],
        **options: Unpack[MapOptions],
    ) -> None: ...
    def __init__(
        self,
        primitive: Any,
        *,
        max_concurrency: int = 10,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> None:
        self.primitive: WorkflowPrimitive[Any, Any] = as_operand(primitive)
        self._max_concurrency = check_count(
            "max_concurrency", max_concurrency, minimum=1
        )
        self._ordered = check_flag("ordered", ordered)
        self._return_exceptions = check_flag("return_exceptions", return_exceptions)
        self._needs_position = self.primitive._needs_position
        self._reads_deadline = self.primitive._reads_deadline
        self.idempotent: bool = self.primitive.idempotent

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the primitive."""
        return (self.primitive,)

    def options(self) -> dict[str, Any]:
        """Return what was set beside the primitive."""
        shown: dict[str, Any] = {"max_concurrency": self._max_concurrency}
        if not self._ordered:
            shown["ordered"] = False
        if self._return_exceptions:
            shown["return_exceptions"] = True
        return shown

    async def execute(
        self,
        input_data: Iterable[Item] | AsyncIterable[Item],
        context: WorkflowContext,
        /,
    ) -> list[Result]:
        """Execute the primitive for each item; return the outputs.

        Args:
            input_data: The items, from any iterable or async iterable.
            context: The run that this call belongs to.

        Raises:
            TypeError: The input is no iterable, or a text.
        """
        source = _source(self, input_data)
        outputs: dict[int, Any] = {}
        workers: list[asyncio.Task[None]] = []
        failure: BaseException
        before = requests()
        group = asyncio.TaskGroup()
        try:
            async with aclosing(source), group:
                for _ in range(self._workers(input_data)):
                    work = self._work(source, outputs, context)
                    workers.append(group.create_task(work))
            for worker in workers:
                worker.result()  # To a group, a step that cancels itself is no failure.
        except BaseExceptionGroup as error:
            # The error's traceback will hold this frame, which must not hold the error;
            # and the frame that raised the group does.
            if settle(group, before):
                # Raises the cancellation, which counts more than the failure.
                await asyncio.sleep(0)
            del group
            error.__traceback__ = None
            failure = self._failure(error.exceptions, context)
        else:
            if self._ordered:
                return [outputs[index] for index in range(len(outputs))]
            return list(outputs.values())
        finally:
            workers.clear()
        # Outside the handler, so that the error does not get the group as its context;
        # and without the local, whose frame the error's traceback will hold.
        try:
            raise failure
        finally:
            del failure

    def _failure(
        self, errors: Sequence[BaseException], context: WorkflowContext
    ) -> BaseException:
        if len(errors) == 1:
            return errors[0]
        path = context.position_of(self).path
        return BaseExceptionGroup(f"items of {path} failed", errors)

    def _workers(self, items: object) -> int:
        if isinstance(items, Sized):
            return min(self._max_concurrency, len(items))
        return self._max_concurrency

    async def _work(
        self, source: _Source, outputs: dict[int, Any], context: WorkflowContext
    ) -> None:
        """Take items until there are none."""
        if source.items is None or self._needs_position or self._return_exceptions:
            while (taken := await source.take()) is not None:
                index, item = taken
                outputs[index] = await self._one(item, self._view(index, context))
            return
        # Nothing has to be made for an item: this is the whole of it.
        for index, item in source.items:
            outputs[index] = await self.primitive.execute(item, context)

    async def _one(self, item: Item, view: WorkflowContext) -> Result | Exception:
        try:
            return await self.primitive.execute(item, view)  # type: ignore[no-any-return]
        except Exception as error:
            if not self._return_exceptions:
                raise
            if is_cancellation(error):
                # Whoever took it for a mere output would go on to the next item.
                raise asyncio.CancelledError from error
            return error

    def _view(self, index: int, context: WorkflowContext) -> WorkflowContext:
        if not self._needs_position:
            return context
        view = context.below(self, self.primitive, self.primitive.name)
        view.open_item(index)
        return view

    async def stream(
        self,
        input_data: Iterable[Item] | AsyncIterable[Item],
        context: WorkflowContext,
        /,
    ) -> AsyncIterator[Any]:
        """Yield each output as soon as it is its turn.

        At most twice `max_concurrency` items are at work or wait to be taken.
        """
        source = _source(self, input_data)
        channel = _Channel(_WINDOW * self._max_concurrency, ordered=self._ordered)
        # An eager task may have ended when it has been created.
        channel.open = count = self._workers(input_data)
        workers = [
            asyncio.ensure_future(channel.feeding(self._feed(source, channel, context)))
            for _ in range(count)
        ]
        try:
            async for output in channel.outputs():
                yield output
            if channel.errors:
                raise self._failure(channel.take_errors(), context)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await source.aclose()
            workers.clear()

    async def _feed(
        self, source: _Source, channel: _Channel, context: WorkflowContext
    ) -> None:
        while True:
            await channel.room()
            taken = await source.take()
            if taken is None:
                return
            index, item = taken
            channel.put(index, await self._one(item, self._view(index, context)))


def _source(owner: WorkflowPrimitive[Any, Any], items: object) -> _Source:
    if isinstance(items, AsyncIterable):
        return _Source(None, aiter(items))
    if isinstance(items, Iterable) and not isinstance(items, (str, bytes)):
        return _Source(enumerate(items), None)
    msg = (
        f"{owner.name} needs an iterable or async iterable of items, "
        f"not {type(items).__name__}"
    )
    raise TypeError(msg)


class _Source:
    """Where workers take items from, each item once, with its number.

    Attributes:
        items: The numbered items if taking one needs no waiting.
    """

    def __init__(
        self,
        items: Iterator[tuple[int, Any]] | None,
        waited_for: AsyncIterator[Any] | None,
    ) -> None:
        self.items = items
        self._waited_for = waited_for
        # Two workers must not wait for the next item of one async generator.
        self._turn = asyncio.Lock()
        self._taken = 0

    async def take(self) -> tuple[int, Any] | None:
        """Return the next item with its number, None if there is none."""
        if self.items is not None:
            return next(self.items, None)
        async with self._turn:
            return await self._next()

    async def _next(self) -> tuple[int, Any] | None:
        if self._waited_for is None:
            return None
        try:
            item = await anext(self._waited_for)
        except StopAsyncIteration:
            self._waited_for = None
            return None
        self._taken += 1
        return self._taken - 1, item

    async def aclose(self) -> None:
        """Close an async generator that was not read to its end."""
        close = getattr(self._waited_for, "aclose", None)
        if close is not None:
            await close()


class _Channel:
    """Between the workers of a stream and its consumer.

    Attributes:
        open: How many workers may still put something in.
        errors: What ended workers have raised.
    """

    def __init__(self, window: int, *, ordered: bool) -> None:
        self.open = 0
        self._ordered = ordered
        self._next = 0
        self._done: dict[int, Any] = {}
        self.errors: list[BaseException] = []
        self._room = asyncio.Semaphore(window)
        self._news = asyncio.Event()

    async def room(self) -> None:
        """Wait until the consumer is near enough."""
        await self._room.acquire()

    def put(self, index: int, output: object) -> None:
        """Hand over the output of an item."""
        self._done[index] = output
        self._news.set()

    async def feeding(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one worker; what it raises is for the consumer."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised again by `outputs`
            self.errors.append(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # The step has cancelled itself.
                self.errors.append(error)
            raise
        finally:
            self.open -= 1
            self._news.set()

    async def outputs(self) -> AsyncIterator[Any]:
        """Yield outputs as they come, until all workers ended or one failed."""
        while True:
            while not self.errors and (index := self._ready()) is not None:
                output = self._done.pop(index)
                self._next += 1
                self._room.release()
                yield output
            if self.errors or not self.open:
                return
            self._news.clear()
            await self._news.wait()

    def take_errors(self) -> list[BaseException]:
        """Return the errors, and keep none: their tracebacks hold this channel."""
        errors, self.errors = self.errors, []
        return errors

    def _ready(self) -> int | None:
        if self._ordered:
            return self._next if self._next in self._done else None
        return next(iter(self._done), None)
