"""The workflow primitive, and what its operators build: steps, sequences, parallels.

`a >> b` makes a `SequentialPrimitive`, `a | b` a `ParallelPrimitive`, and a plain function
on either side becomes a `StepPrimitive`. The operators and the classes that they build
stand in one file because they are one idea.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
)

from tta_primitives.arguments import check_count, check_flag, seconds
from tta_primitives.deadline import within
from tta_primitives.description import Description, mermaid, plain
from tta_primitives.door import (
    closing,
    door,
    is_door,
    is_listening,
    no_door,
    override,
    stream_door,
)
from tta_primitives.errors import OpenWrapperError, UnboundStepError
from tta_primitives.signature import (
    StepSignature,
    bind_extras,
    function_name,
    read_signature,
)

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Self

    from tta_primitives.context import WorkflowContext

__all__ = [
    "Open",
    "ParallelPrimitive",
    "SequentialPrimitive",
    "StepPrimitive",
    "UnboundStep",
    "WorkflowPrimitive",
    "Wrapper",
    "as_primitive",
    "labels",
    "positions",
    "step",
]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

StepFunction: TypeAlias = Callable[..., Any]


class WorkflowPrimitive(Generic[In, Out]):
    """One step of a workflow, or a workflow of many steps: the unit of composition.

    Subclass it and write `async def execute(self, input_data, context)`. Compose with
    `>>` and `|`, run with `await workflow.execute(input_data, WorkflowContext())`.

    Attributes:
        idempotent: Whether executing it twice does no harm. A retry repeats a primitive
            that is not idempotent only after errors that say nothing was executed.
    """

    idempotent: bool = True

    _default_name: ClassVar[str] = "workflow"
    _name: str | None = None
    # Whether a call must get a view of its own: it, or something in it, may ask for
    # its path, emit events or read an idempotency key.
    _needs_position: bool = True
    # Whether it, or something in it, may look at the context's deadline.
    _reads_deadline: bool = True
    # Whether it is a leaf that never sees its context: it needs no view even when heard.
    _is_plain_leaf: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the door around the subclass's `execute` and `stream`."""
        super().__init_subclass__(**kwargs)
        cls._default_name = _snake(cls.__name__.removesuffix("Primitive")) or "workflow"
        _put_door(cls, "execute", partial(door, is_leaf=cls._is_plain_leaf))
        _put_door(cls, "stream", stream_door)

    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        """Execute the primitive.

        Args:
            input_data: What the step before returned, or the workflow's input.
            context: The run that this call belongs to.

        Returns:
            A coroutine of the output.
        """
        msg = f"{type(self).__name__} must define async def execute(input_data, context)"
        raise NotImplementedError(msg)

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the output in chunks; a primitive that cannot yields it in one."""
        yield await self.execute(input_data, context)

    @property
    def name(self) -> str:
        """The name that paths, events and errors show."""
        return self._name or self._default_name

    def named(self, name: str) -> Self:
        """Return a copy with this name; open wrappers at a chain's end are bound.

        Args:
            name: Any text without `/`, `@` and `#`, which paths are made of.

        Raises:
            ValueError: The name is empty or holds one of these characters.
        """
        if not isinstance(name, str) or not name or set(name) & set("/@#"):
            msg = f"name={name!r} must be a non-empty text without '/', '@' and '#'"
            raise ValueError(msg)
        twin = copy.copy(self)
        twin._name = name
        return twin

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the primitives directly below this one, in the order they run."""
        found: list[WorkflowPrimitive[Any, Any]] = []
        for value in vars(self).values():
            members = value if isinstance(value, (list, tuple)) else (value,)
            found.extend(m for m in members if isinstance(m, WorkflowPrimitive))
        return tuple(found)

    def options(self) -> dict[str, Any]:
        """Return the options that `describe` and `repr` show."""
        return {}

    def describe(self) -> Description:
        """Return the tree from here down as JSON-able data."""
        return {
            "type": type(self).__name__,
            "name": self.name,
            "options": {key: plain(value) for key, value in self.options().items()},
            "children": [child.describe() for child in self.children()],
        }

    def to_mermaid(self) -> str:
        """Return a Mermaid flowchart of the tree from here down."""
        return mermaid(self.describe())

    def __repr__(self) -> str:
        shown = [type(self).__name__, repr(self.name)]
        shown += [f"{key}={value!r}" for key, value in self.options().items()]
        return f"<{' '.join(shown)}>"

    @overload
    def then(
        self, following: WorkflowPrimitive[Out, A]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def then(
        self, following: Callable[[Out], Awaitable[A]]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def then(
        self, following: Callable[[Out, WorkflowContext], Awaitable[A]]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def then(self, following: Callable[[Out], A]) -> SequentialPrimitive[In, A]: ...
    @overload
    def then(
        self, following: Callable[[Out, WorkflowContext], A]
    ) -> SequentialPrimitive[In, A]: ...
    def then(self, following: Any) -> Any:
        """Return `self >> following`; type checkers infer a lambda's types here."""
        return _chain(self, as_primitive(following))

    @overload
    def __rshift__(
        self, following: WorkflowPrimitive[Out, A]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def __rshift__(
        self, following: Callable[[Out], Awaitable[A]]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def __rshift__(
        self, following: Callable[[Out, WorkflowContext], Awaitable[A]]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def __rshift__(
        self, following: Callable[[Out], A]
    ) -> SequentialPrimitive[In, A]: ...
    @overload
    def __rshift__(
        self, following: Callable[[Out, WorkflowContext], A]
    ) -> SequentialPrimitive[In, A]: ...
    def __rshift__(self, following: Any) -> Any:
        """Run this, then the following with what this returned."""
        if not _is_operand(following):
            return NotImplemented
        return _chain(self, as_primitive(following))

    @overload
    def __rrshift__(
        self, before: Callable[[A], Awaitable[In]]
    ) -> SequentialPrimitive[A, Out]: ...
    @overload
    def __rrshift__(
        self, before: Callable[[A, WorkflowContext], Awaitable[In]]
    ) -> SequentialPrimitive[A, Out]: ...
    @overload
    def __rrshift__(self, before: Callable[[A], In]) -> SequentialPrimitive[A, Out]: ...
    @overload
    def __rrshift__(
        self, before: Callable[[A, WorkflowContext], In]
    ) -> SequentialPrimitive[A, Out]: ...
    def __rrshift__(self, before: Any) -> Any:
        """Run the plain function before this."""
        if not _is_operand(before):
            return NotImplemented
        return _chain(as_primitive(before), self)

    @overload
    def __or__(
        self, beside: WorkflowPrimitive[A, B]
    ) -> ParallelPrimitive[A, Out, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[A], Awaitable[B]]
    ) -> ParallelPrimitive[A, Out, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[A, WorkflowContext], Awaitable[B]]
    ) -> ParallelPrimitive[A, Out, B]: ...
    @overload
    def __or__(self, beside: Callable[[A], B]) -> ParallelPrimitive[A, Out, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[A, WorkflowContext], B]
    ) -> ParallelPrimitive[A, Out, B]: ...
    def __or__(self, beside: Any) -> Any:
        """Run both with the same input; a tuple of the outputs in operand order."""
        if not _is_operand(beside):
            return NotImplemented
        return ParallelPrimitive(self, beside)

    @overload
    def __ror__(
        self, beside: Callable[[A], Awaitable[B]]
    ) -> ParallelPrimitive[A, B, Out]: ...
    @overload
    def __ror__(
        self, beside: Callable[[A, WorkflowContext], Awaitable[B]]
    ) -> ParallelPrimitive[A, B, Out]: ...
    @overload
    def __ror__(self, beside: Callable[[A], B]) -> ParallelPrimitive[A, B, Out]: ...
    @overload
    def __ror__(
        self, beside: Callable[[A, WorkflowContext], B]
    ) -> ParallelPrimitive[A, B, Out]: ...
    def __ror__(self, beside: Any) -> Any:
        """Run the plain function and this with the same input."""
        if not _is_operand(beside):
            return NotImplemented
        return ParallelPrimitive(beside, self)

    def _as_operand(self) -> WorkflowPrimitive[Any, Any]:
        """Return what stands for this as a child of another primitive."""
        return self


def _put_door(
    cls: type[WorkflowPrimitive[Any, Any]],
    method: str,
    make: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Put the door around the first such method in the MRO, mixins included."""
    found = [vars(owner)[method] for owner in cls.__mro__ if method in vars(owner)]
    written = [f for f in found if not getattr(f, "__isabstractmethod__", False)]
    first = written[0]
    for function in written[1:]:
        override(function)
    if first is not vars(WorkflowPrimitive)[method] and not is_door(first):
        setattr(cls, method, make(first))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def _is_operand(value: object) -> bool:
    return isinstance(value, WorkflowPrimitive) or callable(value)


def as_primitive(
    value: WorkflowPrimitive[Any, Any] | Callable[..., Any],
) -> WorkflowPrimitive[Any, Any]:
    """Return a primitive for what may stand beside `>>` and `|`.

    Args:
        value: A primitive, or a function `f(input)` or `f(input, context)`, sync or
            async.

    Raises:
        TypeError: It is neither, or the function has no parameter for the input.
    """
    if isinstance(value, WorkflowPrimitive):
        return value
    if isinstance(value, type) and issubclass(value, WorkflowPrimitive):
        msg = f"{value.__name__} is a class; use an instance: {value.__name__}(...)"
        raise TypeError(msg)
    if callable(value):
        return StepPrimitive(value)
    msg = (
        f"{value!r} cannot be a step of a workflow; use a primitive or a function "
        "f(input) or f(input, context)"
    )
    raise TypeError(msg)


def as_operand(
    value: WorkflowPrimitive[Any, Any] | Callable[..., Any],
) -> WorkflowPrimitive[Any, Any]:
    """Return a primitive that may be a child of another: nothing in it is open.

    Raises:
        OpenWrapperError: It is a wrapper that wraps nothing yet.
        TypeError: It is neither a primitive nor a function that could be a step.
    """
    return as_primitive(value)._as_operand()


def labels(children: tuple[WorkflowPrimitive[Any, Any], ...]) -> tuple[str, ...]:
    """Return the labels of siblings: their names, `#2` for the second of a name."""
    seen: Counter[str] = Counter()
    result = []
    for child in children:
        seen[child.name] += 1
        count = seen[child.name]
        result.append(child.name if count == 1 else f"{child.name}#{count}")
    return tuple(result)


def positions(
    primitive: WorkflowPrimitive[Any, Any], path: str | None = None
) -> Iterator[tuple[str, WorkflowPrimitive[Any, Any]]]:
    """Yield the path of every position in a tree with the primitive that stands there.

    Args:
        primitive: The root of the tree.
        path: The root's own path; its name unless given.
    """
    path = primitive.name if path is None else path
    yield path, primitive
    children = primitive.children()
    for child, label in zip(children, labels(children), strict=True):
        yield from positions(child, f"{path}/{label}")


Plan: TypeAlias = "tuple[tuple[WorkflowPrimitive[Any, Any], str | None], ...]"


def plans(children: tuple[WorkflowPrimitive[Any, Any], ...]) -> tuple[Plan, Plan]:
    """Return what runs, with the label of each child that needs a view of its own.

    A child that never looks at its position is called with its parent's own view, which
    costs nothing. While somebody listens, a second sibling of a name must be told apart
    as well: that is the second plan.
    """
    named = tuple(zip(children, labels(children), strict=True))
    quiet = tuple((one, label if one._needs_position else None) for one, label in named)
    heard = tuple(
        (one, label if one._needs_position or label != one.name else None)
        for one, label in named
    )
    return quiet, heard


class StepPrimitive(WorkflowPrimitive[In, Out]):
    """A plain function as a primitive.

    Args:
        function: `f(input)` or `f(input, context)`, sync or async, possibly with
            further parameters (extras), which are bound by calling the step.
        name: The step's name; the function's unless given.
        idempotent: Whether executing it twice does no harm.
        timeout_seconds: A limit on each execution, in seconds; None for none.
        blocking: Run a sync function in a thread, so that it does not hold the loop.

    Raises:
        TypeError: The function has no parameter for the input, or it is async and
            `blocking` is set.
        ValueError: The limit is not positive.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        idempotent: bool = True,
        timeout_seconds: float | timedelta | None = None,
        blocking: bool = False,
    ) -> None:
        signature = read_signature(function)
        _check_step(function, signature, blocking=check_flag("blocking", blocking))
        self._function = function
        self._signature = signature
        self._extras: dict[str, Any] = {}
        self._name = name or _safe_name(function_name(function))
        self._timeout = (
            None
            if timeout_seconds is None
            else seconds("timeout_seconds", timeout_seconds)
        )
        self._blocking = blocking
        self.idempotent = check_flag("idempotent", idempotent)
        self._needs_position = signature.takes_context
        self._reads_deadline = signature.takes_context
        self._is_plain_leaf = not signature.takes_context
        self.__wrapped__ = function
        self._specialise()

    def _specialise(self) -> None:
        """Become the class that calls this kind of function without asking again."""
        self._call = partial(self._function, **self._extras) if self._extras else (
            self._function
        )
        missing = self._signature.required - self._extras.keys()
        self.__class__ = _step_class(self, unbound=bool(missing))

    def __call__(self, *args: Any, **extras: Any) -> StepPrimitive[In, Out]:
        """Return a step with these extras bound.

        Args:
            args: Extras by position, in the order of the function's parameters.
            extras: Extras by name.

        Raises:
            TypeError: There are too many, an unknown one, or one given twice.
        """
        if not self._signature.extras:
            msg = (
                f"step {self.name!r} has no extras to bind; to run it, write "
                f"await {self.name}.execute(input, context)"
            )
            raise TypeError(msg)
        bound = copy.copy(self)
        new = bind_extras(self.name, self._signature, args, extras)
        bound._extras = {**self._extras, **new}
        bound._specialise()
        return bound

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return nothing: a step is a leaf."""
        return ()

    def options(self) -> dict[str, Any]:
        """Return what was set beside the function."""
        shown = {
            "idempotent": (self.idempotent, True),
            "timeout_seconds": (self._timeout, None),
            "blocking": (self._blocking, False),
        }
        return {key: value for key, (value, usual) in shown.items() if value != usual}

    def describe(self) -> Description:
        """Return the step as JSON-able data, its class being always the same."""
        return {**super().describe(), "type": "StepPrimitive"}

    def __repr__(self) -> str:
        shown = ["StepPrimitive", repr(self.name)]
        shown += [f"{key}={value!r}" for key, value in self.options().items()]
        return f"<{' '.join(shown)}>"


def _safe_name(name: str) -> str:
    return re.sub(r"[/@#]", "_", name)


def _check_step(
    function: Callable[..., Any], signature: StepSignature, *, blocking: bool
) -> None:
    if blocking and (signature.is_async or signature.is_stream):
        msg = (
            f"blocking=True is for sync functions, and {function_name(function)!r} is "
            "async; leave it out"
        )
        raise TypeError(msg)


# The classes below differ only in how they call their function. A step becomes one of
# them when it is made, so that nothing is asked when it runs.


class _AsyncStep(StepPrimitive[In, Out]):
    _is_plain_leaf = True

    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        return self._call(input_data)  # type: ignore[no-any-return] - the user's own coroutine


class _AsyncContextStep(StepPrimitive[In, Out]):
    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        return self._call(input_data, context)  # type: ignore[no-any-return] - as above


class _SyncStep(StepPrimitive[In, Out]):
    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        result = self._call(input_data)
        # A lambda may return what an async function returned to it.
        if hasattr(result, "__await__"):
            result = await result
        return result  # type: ignore[no-any-return] - whatever the function returns


class _SyncContextStep(StepPrimitive[In, Out]):
    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        result = self._call(input_data, context)
        if hasattr(result, "__await__"):
            result = await result
        return result  # type: ignore[no-any-return] - whatever the function returns


class _GeneralStep(StepPrimitive[In, Out]):
    """A step in a thread, or with a limit: what costs anyway asks when it runs."""

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        if self._timeout is None:
            return await self._run(input_data, context)
        return await within(self._run(input_data, context), self._timeout, self, context)

    async def _run(self, input_data: In, context: WorkflowContext) -> Out:
        args = (input_data, context)[: 1 + self._signature.takes_context]
        if self._blocking:
            return await asyncio.to_thread(self._call, *args)  # type: ignore[no-any-return] - as above
        result = self._call(*args)
        if hasattr(result, "__await__"):
            result = await result
        return result  # type: ignore[no-any-return] - as above


class _StreamStep(StepPrimitive[In, Out]):
    """An async generator function: its chunks when streamed, joined when executed."""

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        if self._timeout is None:
            return await self._joined(input_data, context)
        limit = self._timeout
        return await within(self._joined(input_data, context), limit, self, context)

    async def _joined(self, input_data: In, context: WorkflowContext) -> Out:
        async with closing(self._chunks(input_data, context)) as stream:
            chunks = [chunk async for chunk in stream]
        is_text = bool(chunks) and all(isinstance(chunk, str) for chunk in chunks)
        return "".join(chunks) if is_text else chunks  # type: ignore[return-value] - text or a list

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        async with closing(self._chunks(input_data, context)) as stream:
            async for chunk in stream:
                yield chunk

    def _chunks(self, input_data: In, context: WorkflowContext) -> Any:
        args = (input_data, context)[: 1 + self._signature.takes_context]
        return self._call(*args)


class _UnboundStep(StepPrimitive[In, Out]):
    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        missing = [
            p.name
            for p in self._signature.extras
            if p.name in self._signature.required and p.name not in self._extras
        ]
        msg = (
            f"step {self.name!r} was executed before its parameter "
            f"{', '.join(map(repr, missing))} was bound; write "
            f"{self.name}({', '.join(f'{name}=...' for name in missing)})"
        )
        raise UnboundStepError(msg)


def _step_class(
    made: StepPrimitive[Any, Any], *, unbound: bool
) -> type[StepPrimitive[Any, Any]]:
    signature = made._signature
    if unbound:
        return _UnboundStep
    if signature.is_stream:
        return _StreamStep
    if made._timeout is not None or made._blocking:
        return _GeneralStep
    if signature.is_async:
        return _AsyncContextStep if signature.takes_context else _AsyncStep
    return _SyncContextStep if signature.takes_context else _SyncStep


class UnboundStep(StepPrimitive[In, Out], Generic[In, P, Out]):
    """What type checkers see of a step with extras: calling it binds them."""

    if TYPE_CHECKING:

        def __call__(
            self, *args: P.args, **extras: P.kwargs
        ) -> StepPrimitive[In, Out]: ...


class _StepDecorator:
    """What `@step(...)` with options returns."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[[A], Awaitable[B]]) -> StepPrimitive[A, B]: ...
    @overload
    def __call__(
        self, function: Callable[[A, WorkflowContext], Awaitable[B]]
    ) -> StepPrimitive[A, B]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, WorkflowContext, P], Awaitable[B]]
    ) -> UnboundStep[A, P, B]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, P], Awaitable[B]]
    ) -> UnboundStep[A, P, B]: ...
    @overload
    def __call__(self, function: Callable[[A], B]) -> StepPrimitive[A, B]: ...
    @overload
    def __call__(
        self, function: Callable[[A, WorkflowContext], B]
    ) -> StepPrimitive[A, B]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, WorkflowContext, P], B]
    ) -> UnboundStep[A, P, B]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, P], B]
    ) -> UnboundStep[A, P, B]: ...
    def __call__(self, function: Any) -> Any:
        """Return the function as a step with the options."""
        return StepPrimitive(function, **self._options)


@overload
def step(function: Callable[[A], Awaitable[B]], /) -> StepPrimitive[A, B]: ...
@overload
def step(
    function: Callable[[A, WorkflowContext], Awaitable[B]], /
) -> StepPrimitive[A, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, WorkflowContext, P], Awaitable[B]], /
) -> UnboundStep[A, P, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, P], Awaitable[B]], /
) -> UnboundStep[A, P, B]: ...
@overload
def step(function: Callable[[A], B], /) -> StepPrimitive[A, B]: ...
@overload
def step(function: Callable[[A, WorkflowContext], B], /) -> StepPrimitive[A, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, WorkflowContext, P], B], /
) -> UnboundStep[A, P, B]: ...
@overload
def step(function: Callable[Concatenate[A, P], B], /) -> UnboundStep[A, P, B]: ...
@overload
def step(
    *,
    name: str | None = None,
    idempotent: bool = True,
    timeout_seconds: float | timedelta | None = None,
    blocking: bool = False,
) -> _StepDecorator: ...
def step(function: Any = None, /, **options: Any) -> Any:
    """Make a function a primitive, so that `f >> g` works between two functions.

    Args:
        function: `f(input)`, `f(input, context)`, or either with extras after it.
        options: `name`, `idempotent`, `timeout_seconds` and `blocking`, as
            `StepPrimitive` takes them.

    Returns:
        The step, or a decorator if only options were given.
    """
    decorator = _StepDecorator(options)
    return decorator if function is None else decorator(function)


@final
class Open:
    """The type of the input and output of a wrapper that wraps nothing yet."""


class Wrapper(WorkflowPrimitive[In, Out]):
    """A primitive around one other, such as a retry or a cache.

    Built without its primitive a wrapper is *open*, and is read like a stacked decorator:
    in `CachePrimitive(ttl=60) >> llm >> store` it wraps the next operand and nothing
    more. Binding makes a copy, so state belongs to the bound one.
    """

    primitive: WorkflowPrimitive[Any, Any] | None = None
    # Whether a chain bound this wrapper to what follows it, rather than the caller.
    _bound_by_chain: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it wraps nothing yet."""
        return self.primitive is None

    def bind(
        self, primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any]
    ) -> Wrapper[Any, Any]:
        """Return a copy of this open wrapper around a primitive."""
        if self.primitive is not None:
            msg = f"{self!r} already wraps {self.primitive.name!r}"
            raise TypeError(msg)
        bound = copy.copy(self)
        bound._wrap(as_operand(primitive))
        return bound

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the wrapped primitive."""
        return () if self.primitive is None else (self.primitive,)

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        """Take the primitive; subclasses make the state of one binding here."""
        self.primitive = primitive
        self.idempotent = primitive.idempotent
        self._child_label = primitive.name if primitive._needs_position else None

    def _wrapped(self) -> WorkflowPrimitive[Any, Any]:
        if self.primitive is None:
            raise OpenWrapperError(_open_message(self))
        return self.primitive

    def _as_operand(self) -> WorkflowPrimitive[Any, Any]:
        self._wrapped()
        return self

    def __repr__(self) -> str:
        inner = "open" if self.primitive is None else repr(self.primitive.name)
        shown = [type(self).__name__, inner]
        shown += [f"{key}={value!r}" for key, value in self.options().items()]
        return f"<{' '.join(shown)}>"

    if TYPE_CHECKING:

        @overload  # type: ignore[override] - an open wrapper's type is that of what follows
        def __rshift__(
            self: Wrapper[Open, Open], following: WorkflowPrimitive[A, B]
        ) -> SequentialPrimitive[A, B]: ...
        @overload
        def __rshift__(
            self: Wrapper[Open, Open], following: Callable[[A], Awaitable[B]]
        ) -> SequentialPrimitive[A, B]: ...
        @overload
        def __rshift__(
            self: Wrapper[Open, Open],
            following: Callable[[A, WorkflowContext], Awaitable[B]],
        ) -> SequentialPrimitive[A, B]: ...
        @overload
        def __rshift__(
            self: Wrapper[Open, Open], following: Callable[[A], B]
        ) -> SequentialPrimitive[A, B]: ...
        @overload
        def __rshift__(
            self: Wrapper[Open, Open], following: Callable[[A, WorkflowContext], B]
        ) -> SequentialPrimitive[A, B]: ...
        @overload
        def __rshift__(
            self, following: Wrapper[Open, Open]
        ) -> SequentialPrimitive[In, Out]: ...
        @overload
        def __rshift__(
            self, following: WorkflowPrimitive[Out, A]
        ) -> SequentialPrimitive[In, A]: ...
        @overload
        def __rshift__(
            self, following: Callable[[Out], Awaitable[A]]
        ) -> SequentialPrimitive[In, A]: ...
        @overload
        def __rshift__(
            self, following: Callable[[Out, WorkflowContext], Awaitable[A]]
        ) -> SequentialPrimitive[In, A]: ...
        @overload
        def __rshift__(
            self, following: Callable[[Out], A]
        ) -> SequentialPrimitive[In, A]: ...
        @overload
        def __rshift__(
            self, following: Callable[[Out, WorkflowContext], A]
        ) -> SequentialPrimitive[In, A]: ...
        def __rshift__(self, following: Any) -> Any: ...


def _open_message(wrapper: Wrapper[Any, Any]) -> str:
    kind = type(wrapper).__name__
    return (
        f"{wrapper!r} wraps nothing yet: give it a primitive, {kind}(primitive, ...), or "
        f"let one follow it, {kind}(...) >> primitive"
    )


class SequentialPrimitive(WorkflowPrimitive[In, Out]):
    """Steps one after the other, each with what the one before returned: `a >> b`.

    Args:
        steps: Primitives or functions, at least one; open wrappers among them are bound
            as `>>` does it.

    Raises:
        TypeError: There is no step, or one of them is neither primitive nor function.
    """

    def __init__(self, *steps: WorkflowPrimitive[Any, Any] | Callable[..., Any]) -> None:
        given = steps[0] if len(steps) == 1 and isinstance(steps[0], list) else steps
        if not given:
            msg = "SequentialPrimitive needs at least one step"
            raise TypeError(msg)
        self._links: tuple[WorkflowPrimitive[Any, Any], ...] = ()
        self._trailing: tuple[Wrapper[Any, Any], ...] = ()
        for one in given:
            self._append(as_primitive(one))
        self._settle()

    def _append(self, following: WorkflowPrimitive[Any, Any]) -> None:
        """Add an operand; open wrappers before it wrap it, and nothing more."""
        if isinstance(following, Wrapper) and following.is_open:
            self._trailing += (following,)
        elif _is_only_open(following):
            self._trailing += following._trailing
        elif self._trailing:
            for wrapper in reversed(self._trailing):
                following = _bind_in_chain(wrapper, following._as_operand())
            self._links += (following,)
            self._trailing = ()
        elif isinstance(following, SequentialPrimitive) and following._name is None:
            self._links += following.steps
        else:
            self._links += (following._as_operand(),)

    def _settle(self) -> None:
        """Work out what runs: wrappers that nothing follows wrap the link before."""
        steps = self._links
        if steps and self._trailing:
            steps = (*steps[:-1], _wrap_end(steps[-1], self._trailing))
        self._steps = steps
        self._plan, self._heard_plan = plans(steps)
        self._needs_position = any(one._needs_position for one in steps)
        self._reads_deadline = any(one._reads_deadline for one in steps)
        self.idempotent = all(one.idempotent for one in steps)
        if type(self) in {SequentialPrimitive, _OneLink}:
            is_link = len(steps) == 1 and self._name is None
            self.__class__ = _OneLink if is_link else SequentialPrimitive

    @property
    def steps(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """The steps in the order in which they run, open wrappers bound."""
        return self._steps

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the steps."""
        return self._steps

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Run the steps one after the other."""
        value: Any = input_data
        for one, label in self._heard_plan if is_listening() else self._plan:
            value = await one.execute(
                value, context if label is None else context.below(self, one, label)
            )
        if not self._plan:
            raise OpenWrapperError(_open_message(self._trailing[0]))
        return value  # type: ignore[no-any-return] - the last step's output

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Run all steps but the last, then yield the chunks of the last."""
        if not self._plan:
            raise OpenWrapperError(_open_message(self._trailing[0]))
        value: Any = input_data
        *before, (last, label) = self._heard_plan if is_listening() else self._plan
        for one, its_label in before:
            view = context if its_label is None else context.below(self, one, its_label)
            value = await one.execute(value, view)
        view = context if label is None else context.below(self, last, label)
        async with closing(last.stream(value, view)) as chunks:  # type: ignore[type-var] - an async generator
            async for chunk in chunks:
                yield chunk

    def named(self, name: str) -> Self:
        """Return a copy with this name, whose open wrappers at the end are bound."""
        self._as_operand()
        twin = super().named(name)
        twin._links, twin._trailing = self._steps, ()
        twin._settle()
        return twin

    def _as_operand(self) -> WorkflowPrimitive[Any, Any]:
        if not self._steps:
            raise OpenWrapperError(_open_message(self._trailing[0]))
        return self

    def __repr__(self) -> str:
        steps = " >> ".join(repr(one) for one in (self._steps or self._trailing))
        return f"<SequentialPrimitive {self.name!r} {steps}>"


def _is_only_open(value: WorkflowPrimitive[Any, Any]) -> Any:  # a TypeGuard in spirit
    return isinstance(value, SequentialPrimitive) and not value._links


def _bind_in_chain(
    wrapper: Wrapper[Any, Any], primitive: WorkflowPrimitive[Any, Any]
) -> Wrapper[Any, Any]:
    bound = wrapper.bind(primitive)
    bound._bound_by_chain = True
    return bound


def _wrap_end(
    link: WorkflowPrimitive[Any, Any], trailing: tuple[Wrapper[Any, Any], ...]
) -> WorkflowPrimitive[Any, Any]:
    """Wrap a link inside the wrappers that its chain bound to it."""
    if isinstance(link, Wrapper) and link._bound_by_chain and link.primitive is not None:
        outer = copy.copy(link)
        outer._wrap(_wrap_end(link.primitive, trailing))
        return outer
    for wrapper in trailing:
        link = _bind_in_chain(wrapper, link)
    return link


def _chain(
    first: WorkflowPrimitive[Any, Any], second: WorkflowPrimitive[Any, Any]
) -> SequentialPrimitive[Any, Any]:
    """Return `first >> second`."""
    is_chain = isinstance(first, SequentialPrimitive) and first._name is None
    chain = copy.copy(first) if is_chain else SequentialPrimitive(first)
    chain._append(second)
    chain._settle()
    return chain


class _OneLink(SequentialPrimitive[In, Out]):
    """A chain of one link: it stands for that link, and adds nothing when it runs."""

    @property
    def name(self) -> str:
        return self._steps[0].name

    @no_door
    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        return self._steps[0].execute(input_data, context)

    @no_door
    def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        return self._steps[0].stream(input_data, context)

    def _as_operand(self) -> WorkflowPrimitive[Any, Any]:
        return self._steps[0]

    def describe(self) -> Description:
        return self._steps[0].describe()

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        return self._steps[0].children()


class ParallelPrimitive(WorkflowPrimitive[In, tuple[*Ts]]):
    """Branches that run at the same time with the same input: `a | b | c`.

    The output is a tuple in the order of the branches. If one fails, the others are
    cancelled and awaited; a sole failure is raised itself, several as an
    `ExceptionGroup`. Nothing is left running.

    Args:
        branches: Primitives or functions, at least one.
        return_exceptions: Put an exception into the tuple instead of raising it.
        max_concurrency: At most so many branches at a time; None for all.
        min_success: Carry on as long as so many can still succeed; the exceptions of
            the others stand in the tuple. None for all.
        unwrap_single: Raise a sole failure itself rather than in a group.
        isolate: Give each branch a deep copy of the context's `state`.

    Raises:
        TypeError: There is no branch, or one is neither primitive nor function.
        ValueError: `max_concurrency` or `min_success` is out of range.
    """

    def __init__(
        self,
        *branches: WorkflowPrimitive[Any, Any] | Callable[..., Any],
        return_exceptions: bool = False,
        max_concurrency: int | None = None,
        min_success: int | None = None,
        unwrap_single: bool = True,
        isolate: bool = False,
    ) -> None:
        if not branches:
            msg = "ParallelPrimitive needs at least one branch"
            raise TypeError(msg)
        self._branches = tuple(as_operand(branch) for branch in branches)
        self._return_exceptions = check_flag("return_exceptions", return_exceptions)
        self._max_concurrency = max_concurrency and check_count(
            "max_concurrency", max_concurrency, minimum=1
        )
        self._min_success = _check_min_success(min_success, len(branches))
        self._unwrap_single = check_flag("unwrap_single", unwrap_single)
        self._isolate = check_flag("isolate", isolate)
        self._settle()

    def _settle(self) -> None:
        branches = self._branches
        self._plan, self._heard_plan = plans(branches)
        self._needs_position = any(one._needs_position for one in branches)
        self._reads_deadline = any(one._reads_deadline for one in branches)
        self.idempotent = all(one.idempotent for one in branches)

    @property
    def branches(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """The branches in operand order."""
        return self._branches

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the branches."""
        return self._branches

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        shown = {
            "return_exceptions": (self._return_exceptions, False),
            "max_concurrency": (self._max_concurrency, None),
            "min_success": (self._min_success, None),
            "unwrap_single": (self._unwrap_single, True),
            "isolate": (self._isolate, False),
        }
        return {key: value for key, (value, usual) in shown.items() if value != usual}

    async def execute(self, input_data: In, context: WorkflowContext, /) -> tuple[*Ts]:
        """Run the branches at the same time; return their outputs in operand order."""
        run = self._tolerant_runner()
        failure: BaseExceptionGroup[BaseException]
        try:
            async with asyncio.TaskGroup() as group:
                start = group.create_task
                tasks = [
                    start(run(one, input_data, self._view(one, label, context)))
                    for one, label in self._now()
                ]
        except BaseExceptionGroup as error:
            failure = error
        else:
            return tuple(task.result() for task in tasks)  # type: ignore[return-value] - one each
        # Outside the handler, so that the error does not get the group as its context;
        # and without the local, whose frame the error's traceback would hold.
        try:
            raise self._unwrapped(failure)
        finally:
            del failure

    def _now(self) -> Plan:
        return self._heard_plan if is_listening() else self._plan

    def _unwrapped(self, group: BaseExceptionGroup[BaseException]) -> BaseException:
        is_sole = len(group.exceptions) == 1 and self._unwrap_single
        return group.exceptions[0] if is_sole else group

    def _view(
        self,
        branch: WorkflowPrimitive[Any, Any],
        label: str | None,
        context: WorkflowContext,
    ) -> WorkflowContext:
        if self._isolate:
            context = context.child(isolate=True)
        return context if label is None else context.below(self, branch, label)

    def _tolerant_runner(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return what runs one branch, for one execution of this parallel."""
        if self._max_concurrency is self._min_success is None and (
            not self._return_exceptions
        ):
            return _run_branch
        return _BranchRunner(
            self._max_concurrency or len(self._branches),
            0 if self._return_exceptions else (self._min_success or len(self._branches)),
            len(self._branches),
        ).run

    @overload
    def __or__(
        self, beside: WorkflowPrimitive[A, B]
    ) -> ParallelPrimitive[A, *Ts, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[A], Awaitable[B]]
    ) -> ParallelPrimitive[A, *Ts, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[A, WorkflowContext], Awaitable[B]]
    ) -> ParallelPrimitive[A, *Ts, B]: ...
    @overload
    def __or__(self, beside: Callable[[A], B]) -> ParallelPrimitive[A, *Ts, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[A, WorkflowContext], B]
    ) -> ParallelPrimitive[A, *Ts, B]: ...
    def __or__(self, beside: Any) -> Any:
        """Return this parallel with one more branch, its options and name kept."""
        if not _is_operand(beside):
            return NotImplemented
        wider = copy.copy(self)
        wider._branches = (*self._branches, as_operand(beside))
        wider._settle()
        return wider


def _check_min_success(value: int | None, branches: int) -> int | None:
    if value is None:
        return None
    if check_count("min_success", value, minimum=1) > branches:
        msg = f"min_success={value!r} must be at most the number of branches, {branches}"
        raise ValueError(msg)
    return value


def _run_branch(
    branch: WorkflowPrimitive[Any, Any], input_data: Any, context: WorkflowContext
) -> Coroutine[Any, Any, Any]:
    return branch.execute(input_data, context)


class _BranchRunner:
    """Runs the branches of one execution, tolerating some failures."""

    def __init__(self, max_concurrency: int, min_success: int, branches: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrency)
        self._tolerated = branches - min_success

    async def run(
        self,
        branch: WorkflowPrimitive[Any, Any],
        input_data: Any,
        context: WorkflowContext,
    ) -> Any:
        async with self._slots:
            try:
                return await branch.execute(input_data, context)
            except Exception as error:
                if self._tolerated == 0:
                    raise
                self._tolerated -= 1
                return error
