"""The one door that every call passes, and who listens at it.

`WorkflowPrimitive.execute` is wrapped in a door when a class is made. While nobody
listens the door returns the primitive's own coroutine, and that is all it does. While
somebody does, it tells *observers* that a call started, that something happened inside
it and that it finished, and lets *interceptors* act around it. Whatever watches or
disturbs a workflow, in production and in tests, is one of these two.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar
from weakref import WeakSet

from tta_primitives.context import Position, WorkflowContext, _View
from tta_primitives.errors import TimeoutExceededError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = [
    "Call",
    "Interceptor",
    "Observer",
    "add_interceptor",
    "add_observer",
    "current_context",
    "emit",
    "is_listening",
    "listening",
    "remove_interceptor",
    "remove_observer",
    "tell",
]

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("tta_primitives")

Hook: TypeAlias = "Callable[..., None]"
Status: TypeAlias = Literal["running", "ok", "failed", "timed_out", "cancelled"]

current: ContextVar[WorkflowContext | None] = ContextVar("tta_context", default=None)


class Call(Position):
    """One execution of a primitive: the record that observers and interceptors get.

    It is mutable while the call runs. The error, and with it the traceback's frames, is
    let go once the last observer has seen it.

    Attributes:
        input_data: What was given to `execute`; an interceptor may replace it.
        context: The view that the primitive sees; the caller's once it is finished.
        status: How the call stands.
        output: What it returned; the list of chunks for a stream that was finished.
        error: What it raised, while `finished` is told.
        is_stream: Whether `stream` was called, rather than `execute`.
    """

    # There is no `__getattr__` for what is not filled: with one, CPython finds no
    # attribute of the class at once.
    __slots__ = (
        "_error",
        "_label",
        "_store",
        "context",
        "input_data",
        "output",
        "status",
    )

    input_data: Any
    context: WorkflowContext
    status: Status
    output: Any
    _error: BaseException | None
    is_stream = False
    _store: dict[object, Any]

    @property
    def label(self) -> str:
        """Its name, with `#2` for a second sibling of that name."""
        try:
            return self._label
        except AttributeError:
            return self.primitive.name

    @label.setter
    def label(self, label: str) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._label = label

    @property
    def error(self) -> BaseException | None:
        """What it raised, while `finished` is told."""
        try:
            return self._error
        except AttributeError:
            return None

    @property
    def store(self) -> dict[object, Any]:
        """A place for what an observer keeps during this call, under itself as key."""
        try:
            return self._store
        except AttributeError:
            self._store = {}
            return self._store

    @property
    def parent_call(self) -> Call | None:
        """The call that this one was made in, None at the root of a run."""
        position = self.parent
        while position is not None and not isinstance(position, Call):
            position = position.parent
        return position


class _StreamCall(Call):
    __slots__ = ()
    is_stream = True


class Observer:
    """Something that is told about calls; every method is optional.

    Methods are synchronous, called in the task that executes the primitive, and never
    change a run: what they raise is logged once and dropped.

    Attributes:
        keeps_context: Whether `current_context` is kept while this observer listens;
            it costs each run a little.
    """

    keeps_context: bool = False

    def started(self, call: Call, /) -> None:
        """Learn that a call began."""

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Learn that something happened inside a call.

        Args:
            call: The call of the primitive that tells it.
            name: For instance `retry.scheduled`.
            detail: What belongs to it, durations in seconds.
        """

    def finished(self, call: Call, /) -> None:
        """Learn how a call ended: `call.status`, `call.output`, `call.error`."""

    def resumed(self, call: Call, /) -> None:
        """Learn that a stream goes on: its body runs until `suspended` is told.

        The two are told in pairs around each chunk, and around the stream's closing.
        Between the pairs the consumer's code runs, so what must not leak into it (a
        ContextVar, say) is set in the one and reset in the other. They are never told
        of calls that are executed.
        """

    def suspended(self, call: Call, /) -> None:
        """Learn that a stream stands still: the consumer's code runs."""


class Interceptor:
    """Something that acts around calls: it may change, delay, replace or fail them."""

    async def execute(
        self,
        call: Call,  # noqa: ARG002 - for those who override this
        proceed: Callable[[], Awaitable[Any]],
    ) -> Any:  # noqa: ANN401 - any primitive's output
        """Return the call's result, usually `await proceed()`.

        Args:
            call: What is about to be executed; `input_data` and `context` may be
                replaced before `proceed`.
            proceed: Executes the call, through the interceptors added earlier.
        """
        return await proceed()

    def stream(
        self,
        call: Call,  # noqa: ARG002 - as above
        proceed: Callable[[], AsyncIterator[Any]],
    ) -> AsyncIterator[Any]:
        """Return the call's chunks, usually `proceed()`."""
        return proceed()


class _Listeners:
    """Observers and interceptors, with their hooks gathered for a quick round."""

    def __init__(
        self,
        observers: tuple[Observer, ...] = (),
        interceptors: tuple[Interceptor, ...] = (),
    ) -> None:
        self.observers = observers
        self.interceptors = interceptors
        self.started = _joined(_overridden(observers, "started"))
        self.event = _joined(_overridden(observers, "event"))
        self.finished = _joined(_overridden(observers, "finished"))
        self.resumed = _joined(_overridden(observers, "resumed"))
        self.suspended = _joined(_overridden(observers, "suspended"))
        self.keeps_context = any(
            getattr(observer, "keeps_context", False) for observer in observers
        )
        # What a leaf is told with, if it is no more than told of.
        self.hooks: tuple[Hook, Hook] | None = None
        if not (interceptors or self.keeps_context):
            self.hooks = self.started or _ignore, self.finished or _ignore

    def __bool__(self) -> bool:
        return bool(self.observers or self.interceptors)

    def plus(self, other: _Listeners) -> _Listeners:
        """Return these and the others; what was added later acts further outside."""
        if not other:
            return self
        if not self:
            return other
        return _Listeners(
            self.observers + other.observers, self.interceptors + other.interceptors
        )


def _ignore(_call: Call) -> None:
    """Stand for a hook that nobody has."""


def _overridden(observers: tuple[Observer, ...], name: str) -> list[Hook]:
    """Return the hooks of this name that are not the empty ones of `Observer`."""
    found = []
    for observer in observers:
        hook = getattr(observer, name, None)
        if hook is not None and (
            getattr(hook, "__func__", hook) is not getattr(Observer, name)
        ):
            found.append(hook)
    return found


def _joined(hooks: list[Hook]) -> Hook | None:
    """Return one hook for several; what one of them raises does not stop the others."""
    if len(hooks) <= 1:
        return hooks[0] if hooks else None

    def every(*details: Any) -> None:  # noqa: ANN401 - as any hook
        for hook in hooks:
            _tell(hook, *details)

    return every


class _Scope:
    """The listeners of one scope, always joined with those of the process.

    Attributes:
        own: Those of the scope, and of the scopes around it.
        listeners: All of them; a call that has begun with them ends with them.
    """

    __slots__ = ("__weakref__", "hooks", "listeners", "own")

    def __init__(self, own: _Listeners) -> None:
        self.join(own)

    def join(self, own: _Listeners) -> None:
        """Join the scope's own listeners with those of the process."""
        self.own = own
        self.listeners = _process.plus(own)
        self.hooks = self.listeners.hooks


_process = _Listeners()
_everywhere = _Scope(_Listeners())
_scope: ContextVar[_Scope] = ContextVar("tta_listeners", default=_everywhere)
# A scope lives as long as a task that was created in it.
_scopes: WeakSet[_Scope] = WeakSet([_everywhere])
_open_scopes = 0
_lock = RLock()
# The only thing that a call looks at while nobody listens.
_anyone = False


def _update() -> None:
    global _anyone  # noqa: PLW0603 - one flag for the process, read on the hot path
    _anyone = bool(_process) or _open_scopes > 0


def is_listening() -> bool:
    """Tell whether anybody may listen; ask before computing details for an event."""
    return _anyone


def add_observer(*observers: Observer) -> None:
    """Tell these observers of every call in the process."""
    with _lock:
        _set_process(_process.observers + observers, _process.interceptors)


def remove_observer(*observers: Observer) -> None:
    """Stop telling these observers; one that was never added is no error."""
    gone = set(map(id, observers))
    with _lock:
        kept = tuple(o for o in _process.observers if id(o) not in gone)
        _set_process(kept, _process.interceptors)


def add_interceptor(*interceptors: Interceptor) -> None:
    """Let these interceptors act around every call in the process, the last outside."""
    with _lock:
        _set_process(_process.observers, _process.interceptors + interceptors)


def remove_interceptor(*interceptors: Interceptor) -> None:
    """Take these interceptors away; one that was never added is no error."""
    gone = set(map(id, interceptors))
    with _lock:
        kept = tuple(i for i in _process.interceptors if id(i) not in gone)
        _set_process(_process.observers, kept)


def _set_process(
    observers: tuple[Observer, ...], interceptors: tuple[Interceptor, ...]
) -> None:
    global _process  # noqa: PLW0603 - the listeners of the process
    _process = _Listeners(observers, interceptors)
    for scope in _scopes:
        scope.join(scope.own)
    _update()


@contextmanager
def listening(
    *, observers: tuple[Observer, ...] = (), interceptors: tuple[Interceptor, ...] = ()
) -> Iterator[None]:
    """Add observers and interceptors for the current scope.

    The scope is a ContextVar: tasks that are created inside belong to it, other tasks
    and other threads do not.
    """
    global _open_scopes  # noqa: PLW0603 - counted, so that scopes may overlap
    outer = _scope.get()
    own = outer.own.plus(_Listeners(tuple(observers), tuple(interceptors)))
    with _lock:
        scope = _Scope(own)
        _scopes.add(scope)
        _open_scopes += 1
        _update()
    token = _scope.set(scope)
    try:
        yield
    finally:
        with _lock:
            # Tasks that go on in it are told to those outside from now on.
            scope.join(outer.own)
            _open_scopes -= 1
            _update()
        _scope.reset(token)


def current_context() -> WorkflowContext | None:
    """Return the context of the run that the current task is in, for logging.

    It is set once for each run, and only while an observer listens that asks for it
    with `keeps_context = True`.
    """
    return current.get()


def emit(context: WorkflowContext, name: str, **detail: Any) -> None:  # noqa: ANN401 - whatever the event is about
    """Tell observers that something happened in the call that has this context.

    Args:
        context: The view that the primitive was executed with.
        name: For instance `retry.scheduled`.
        detail: What belongs to it, durations in seconds.
    """
    if not _anyone:
        return
    call = context._position
    if isinstance(call, Call):
        tell(call, name, **detail)


def tell(call: Call, name: str, **detail: Any) -> None:  # noqa: ANN401 - as above
    """Tell observers that something happened in this call: interceptors hold it itself.

    The context of a leaf that never looks at it is its parent's, so that `emit` would
    tell it of the parent.
    """
    hook = _scope.get().listeners.event
    if hook is not None:
        _tell(hook, call, name, detail)


_logged: set[tuple[str, type]] = set()


def _tell(hook: Callable[..., None], *args: object) -> None:
    try:
        hook(*args)
    except Exception as error:  # noqa: BLE001 - an observer never changes a run
        log_once(hook, error)


def log_once(hook: Callable[..., object], error: Exception) -> None:
    """Log what a listener raised, the first time that it raises this type."""
    where = f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', hook)}"
    if (where, type(error)) not in _logged:
        _logged.add((where, type(error)))
        logger.error("%s raised and is ignored", where, exc_info=error)


def _record(
    primitive: WorkflowPrimitive[Any, Any],
    input_data: Any,  # noqa: ANN401 - any primitive's input
    context: WorkflowContext,
) -> Call:
    """Make the record of a call, with the view that carries it downwards."""
    call = _StreamCall()
    call.parent = _parent(call, primitive, context)
    call.primitive = primitive
    call.input_data = input_data
    call.status = "running"
    call.output = None
    call.context = context.at(call)
    return call


def _end(
    call: Call,
    hook: Hook | None,
    status: Status,
    error: BaseException | None = None,
) -> None:
    """Tell how a call ended; the error is let go afterwards."""
    call.status = status
    call._error = error
    if hook is not None:
        _tell(hook, call)
    call._error = None


def _status_of(error: BaseException) -> Status:
    if isinstance(error, TimeoutExceededError):
        return "timed_out"
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "cancelled"
    return "failed"


def _parent(
    call: Call, primitive: WorkflowPrimitive[Any, Any], context: WorkflowContext
) -> Position | None:
    """Return the position that a call is made in; take its label from the view."""
    position = context._position
    if isinstance(position, tuple):
        above, owner, one, label = position
        if one is primitive:
            call._label = label
            return above._place() if owner is None else above.position_of(owner)
        return context._place()
    if type(position) is Position and position.primitive is primitive:
        call._label = position.label
        return position.parent
    return position


def _no_context(given: object) -> TypeError:
    """Return the error of a call that was given something else than a context."""
    return TypeError(
        f"context={given!r} must be a WorkflowContext, as in "
        "await workflow.execute(input, WorkflowContext())"
    )


async def _observed(  # noqa: C901, PLR0912 - see the comment below
    function: Callable[..., Awaitable[Any]],
    primitive: WorkflowPrimitive[Any, Any],
    input_data: Any,  # noqa: ANN401 - any primitive's input
    context: WorkflowContext,
    is_leaf: bool,  # noqa: FBT001 - called in one place, where names would cost
) -> Any:  # noqa: ANN401 - any primitive's output
    # Everything is written out here: with a function for each part it takes twice as
    # long, and this is what observing costs.
    listeners = _scope.get().listeners
    call = Call()
    try:
        parent = context._position
    except AttributeError:
        raise _no_context(context) from None
    if parent is not None and type(parent) is not Call:
        parent = _parent(call, primitive, context)
    call.parent = parent
    call.primitive = primitive
    call.input_data = input_data
    call.status, call.output = "running", None
    call.context = context
    if not is_leaf:
        call.context = view = _View()
        view._root = context._root or context
        view._key = context._key
        view._position = call
        view.deadline = context.deadline
    token = None
    if parent is None and listeners.keeps_context:
        token = current.set(context)
    hook = listeners.started
    if hook is not None:
        try:
            hook(call)
        except Exception as error:  # noqa: BLE001 - an observer never changes a run
            log_once(hook, error)
    try:
        if listeners.interceptors:
            output = await _intercepted(function, call, listeners.interceptors)
        else:
            output = await function(primitive, input_data, call.context)
    except BaseException as error:
        _end(call, listeners.finished, _status_of(error), error)
        raise
    else:
        call.output = output
        call.status = "ok"
        hook = listeners.finished
        if hook is not None:
            try:
                hook(call)
            except Exception as error:  # noqa: BLE001 - an observer never changes a run
                log_once(hook, error)
        return output
    finally:
        # The view holds the call: without this the two would be cyclic garbage.
        call.context = context
        if token is not None:
            current.reset(token)


def _call(
    primitive: Any,  # noqa: ANN401 - a leaf that is nothing but its `_call`
    input_data: Any,  # noqa: ANN401 - any primitive's input
    _context: WorkflowContext,
) -> Any:  # noqa: ANN401 - an awaitable of any primitive's output
    return primitive._call(input_data)


async def _observed_step(
    primitive: Any,  # noqa: ANN401 - as above
    input_data: Any,  # noqa: ANN401 - as above
    context: WorkflowContext,
) -> Any:  # noqa: ANN401 - any primitive's output
    # `_observed` once more, without what a leaf never needs: most calls are of leaves.
    hooks = _scope.get().hooks
    if hooks is None:
        return await _observed(_call, primitive, input_data, context, True)  # noqa: FBT003 - a leaf
    started, finished = hooks
    call = Call()
    try:
        parent = context._position
    except AttributeError:
        raise _no_context(context) from None
    if parent is not None and type(parent) is not Call:
        parent = _parent(call, primitive, context)
    call.parent = parent
    call.primitive = primitive
    call.input_data = input_data
    call.context = context
    call.status = "running"
    call.output = None
    try:
        started(call)
    except Exception as error:  # noqa: BLE001 - an observer never changes a run
        log_once(started, error)
    run = primitive._call
    try:
        output = await run(input_data)
    except BaseException as error:
        _end(call, finished, _status_of(error), error)
        raise
    call.output = output
    call.status = "ok"
    try:
        finished(call)
    except Exception as error:  # noqa: BLE001 - an observer never changes a run
        log_once(finished, error)
    return output


def _intercepted(
    function: Callable[..., Awaitable[Any]],
    call: Call,
    interceptors: tuple[Interceptor, ...],
) -> Awaitable[Any]:
    def innermost() -> Awaitable[Any]:
        return function(call.primitive, call.input_data, call.context)

    proceed = innermost
    for interceptor in interceptors[:-1]:
        proceed = _around(interceptor.execute, call, proceed)
    return interceptors[-1].execute(call, proceed)


def _around(
    act: Callable[[Call, Callable[[], Any]], Any],
    call: Call,
    proceed: Callable[[], Any],
) -> Callable[[], Any]:
    return lambda: act(call, proceed)


async def _observed_stream(
    function: Callable[..., AsyncIterator[Any]],
    primitive: WorkflowPrimitive[Any, Any],
    input_data: Any,  # noqa: ANN401 - any primitive's input
    context: WorkflowContext,
) -> AsyncIterator[Any]:
    listeners = _scope.get().listeners
    call = _record(primitive, input_data, context)
    call.output = []
    if listeners.started is not None:
        _tell(listeners.started, call)
    try:
        async with closing(_stream_through(function, call, listeners)) as chunks:
            async for chunk in chunks:
                call.output.append(chunk)
                yield chunk
    except BaseException as error:
        _end(call, listeners.finished, _status_of(error), error)
        raise
    else:
        _end(call, listeners.finished, "ok")
    finally:
        call.context = context


class closing(Generic[T]):  # noqa: N801 - stands beside contextlib.aclosing
    """Close a stream at the end of a block, if it is of a kind that can be closed."""

    __slots__ = ("_stream",)

    def __init__(self, stream: AsyncIterator[T]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncIterator[T]:
        return self._stream

    async def __aexit__(self, *raised: object) -> None:
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


def _stream_through(
    function: Callable[..., AsyncIterator[Any]], call: Call, listeners: _Listeners
) -> Any:  # noqa: ANN401 - an async generator in all but its declared type
    def innermost() -> AsyncIterator[Any]:
        return function(call.primitive, call.input_data, call.context)

    proceed = innermost
    for interceptor in listeners.interceptors:
        proceed = _around(interceptor.stream, call, proceed)
    if listeners.resumed is None and listeners.suspended is None:
        return proceed()
    return _Stepwise(proceed(), call, listeners)


class _Stepwise:
    """A stream around whose steps observers are told that it runs."""

    __slots__ = ("_call", "_listeners", "_stream")

    def __init__(
        self, stream: AsyncIterator[Any], call: Call, listeners: _Listeners
    ) -> None:
        self._stream = stream
        self._call = call
        self._listeners = listeners

    def __aiter__(self) -> _Stepwise:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - any primitive's chunk
        self._tell(self._listeners.resumed)
        try:
            return await self._stream.__anext__()
        finally:
            self._tell(self._listeners.suspended)

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            self._tell(self._listeners.resumed)
            try:
                await close()
            finally:
                self._tell(self._listeners.suspended)

    def _tell(self, hook: Hook | None) -> None:
        if hook is not None:
            _tell(hook, self._call)


def door(
    function: Callable[..., Any], *, is_leaf: bool = False, places_itself: bool = False
) -> Callable[..., Any]:
    """Return `execute` with the door around it.

    The door hands the primitive's own coroutine back while nobody listens, so it adds
    no frame to a call.

    Args:
        function: The method that a class defines.
        is_leaf: Whether it never looks at its context, so that it needs no view.
        places_itself: Whether it takes care that what it calls knows its place. Others
            are given a view of their own, so that paths and idempotency keys are the
            same whether somebody listens or not.
    """
    is_overridden = False

    def heard(self: Any, input_data: Any, context: WorkflowContext) -> Any:  # noqa: ANN401 - as the method it wraps
        # A method that is called through `super()` is part of a call told already.
        if not is_overridden or type(self).execute is execute:
            return _observed(function, self, input_data, context, is_leaf)
        view = context if places_itself else context.of(self)
        return function(self, input_data, view)

    make = _entry if places_itself else _viewing_entry
    execute = make(function, heard)
    # Each class has its own copy of the code: CPython specialises code by what it
    # calls, and one that calls the functions of all classes is specialised for none.
    execute.__code__ = execute.__code__.replace()

    def override() -> None:
        nonlocal is_overridden
        is_overridden = True

    vars(execute)["__tta_override__"] = override
    return _as_coroutine_function(update_wrapper(execute, function))


# These take few variables from around them: each costs every call a little.


def _entry(
    function: Callable[..., Any], heard: Callable[..., Any]
) -> Callable[..., Any]:
    """Return `execute` of a primitive that makes the views that it needs."""

    def execute(self: Any, input_data: Any, context: WorkflowContext) -> Any:  # noqa: ANN401 - as the method it wraps
        if _anyone:
            return heard(self, input_data, context)
        return function(self, input_data, context)

    return execute


def _viewing_entry(
    function: Callable[..., Any], heard: Callable[..., Any]
) -> Callable[..., Any]:
    """Return `execute` of a primitive that is given a view of its own."""

    def execute(self: Any, input_data: Any, context: WorkflowContext) -> Any:  # noqa: ANN401 - as above
        if _anyone:
            return heard(self, input_data, context)
        try:
            view = context.of(self)
        except AttributeError:
            if isinstance(context, WorkflowContext):
                raise
            raise _no_context(context) from None
        return function(self, input_data, view)

    return execute


def leaf_door(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `execute` of a leaf that is nothing but its `_call` of the input.

    It saves the call of a method whose only line is written here as well.

    Args:
        function: The method, whose name and documentation are kept.
    """

    def execute(self: Any, input_data: Any, context: WorkflowContext, /) -> Any:  # noqa: ANN401 - as above
        if _anyone:
            return _observed_step(self, input_data, context)
        call = self._call
        return call(input_data)

    return _as_coroutine_function(update_wrapper(execute, function))


def override(function: object) -> None:
    """Note that a subclass has a method of its own over this door."""
    note = getattr(function, "__tta_override__", None)
    if note is not None:
        note()


def stream_door(
    function: Callable[..., Any], *, places_itself: bool = False
) -> Callable[..., Any]:
    """Return `stream` with the door around it; the arguments are those of `door`."""

    def stream(self: Any, input_data: Any, context: WorkflowContext) -> Any:  # noqa: ANN401 - as the method it wraps
        if _anyone and type(self).stream is stream:
            return _observed_stream(function, self, input_data, context)
        if not places_itself:
            context = context.of(self)
        return function(self, input_data, context)

    vars(stream)["__tta_door__"] = True
    return update_wrapper(stream, function)


def no_door(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leave a method without a door: it only stands for another primitive's."""
    vars(function)["__tta_door__"] = True
    return function


def is_door(function: object) -> bool:
    """Tell whether a method already has a door around it."""
    return getattr(function, "__tta_door__", False)


def _as_coroutine_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a plain function that returns a coroutine as a coroutine function.

    Without the mark Starlette would run it in a thread and drop its coroutine, and
    `unittest.mock` would make the wrong kind of mock of it.
    """
    vars(function)["__tta_door__"] = True
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(function)
    else:  # What asyncio of Python 3.11 looks for.
        marker = getattr(asyncio.coroutines, "_is_coroutine", None)
        vars(function)["_is_coroutine"] = marker
    return function
