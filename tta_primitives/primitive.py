"""The workflow primitive, and what its operators build: steps, sequences, parallels.

`a >> b` makes a `SequentialPrimitive`, `a | b` a `ParallelPrimitive`, and a plain
function on either side becomes a `StepPrimitive`. The operators and the classes that
they build stand in one file because they are one idea.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from functools import partial, update_wrapper
from itertools import pairwise
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
)

from tta_primitives import door as listeners
from tta_primitives.arguments import check_count, check_flag, seconds
from tta_primitives.cancellation import requests, settle
from tta_primitives.context import Enforced
from tta_primitives.deadline import bounds, within, within_stream
from tta_primitives.description import Description, mermaid, plain
from tta_primitives.door import (
    closing,
    door,
    is_door,
    is_listening,
    leaf_door,
    no_door,
    override,
    stream_door,
)
from tta_primitives.errors import OpenWrapperError, UnboundStepError
from tta_primitives.signature import (
    StepSignature,
    bind_extras,
    check_method,
    function_name,
    read_signature,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Container,
        Coroutine,
        Iterator,
    )
    from datetime import timedelta
    from typing import Self, Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.picture.style import Theme

__all__ = [
    "Open",
    "ParallelPrimitive",
    "SequentialPrimitive",
    "StepOptions",
    "StepPrimitive",
    "UnboundStep",
    "WorkflowPrimitive",
    "Wrapper",
    "as_operand",
    "as_primitive",
    "labels",
    "plans",
    "positions",
    "step",
]

# Users read these names in errors of their type checkers: `WorkflowPrimitive[In, Out]`.
In = TypeVar("In", contravariant=True)  # noqa: PLC0105 - as above
Out = TypeVar("Out", covariant=True)  # noqa: PLC0105 - as above
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

AnyPrimitive: TypeAlias = "WorkflowPrimitive[Any, Any]"
_OURS = __name__.partition(".")[0]


class WorkflowPrimitive(Generic[In, Out]):
    """One step of a workflow, or a workflow of many steps: the unit of composition.

    Subclass it and write `async def execute(self, input_data, context)`. Compose with
    `>>` and `|`, run with `await workflow.execute(input_data, WorkflowContext())`.

    Attributes:
        idempotent: Whether executing it twice does no harm. A retry repeats a primitive
            that is not idempotent only after errors that say nothing was executed.
    """

    idempotent: bool = True

    _default_name: str = "workflow"
    _name: str | None = None
    # Whether a call must get a view of its own: it, or something in it, may ask for
    # its path, emit events or read an idempotency key.
    _needs_position: bool = True
    # Whether it, or something in it, may look at the context's deadline.
    _reads_deadline: bool = True
    # Whether it is a leaf that never sees its context: it needs no view when heard.
    _is_plain_leaf: bool = False
    # Whether it makes the views that its children need, whatever view it was given.
    _places_itself: bool = False
    # What its instances have only after they were bound, named or extended.
    _bound_attributes: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - the mixins' own
        """Put the door around the subclass's `execute` and `stream`."""
        super().__init_subclass__(**kwargs)
        name = vars(cls).get("name")
        if isinstance(name, str):
            # `name = "llm"` in the body of a class names all its instances.
            del cls.name
            cls._default_name = _checked_name(name)
        else:
            cls._default_name = _snake(cls.__name__.removesuffix("Primitive"))
        places = cls._places_itself
        entry = partial(door, is_leaf=cls._is_plain_leaf, places_itself=places)
        _put_door(cls, "execute", entry)
        _put_door(cls, "stream", partial(stream_door, places_itself=places))
        _reserve(cls)

    def execute(
        self,
        input_data: In,  # noqa: ARG002 - for those who override this
        context: WorkflowContext,  # noqa: ARG002 - as above
        /,
    ) -> Coroutine[Any, Any, Out]:
        """Execute the primitive.

        Args:
            input_data: What the step before returned, or the workflow's input.
            context: The run that this call belongs to.

        Returns:
            A coroutine of the output.
        """
        kind = type(self).__name__
        msg = f"{kind} must define async def execute(self, input_data, context)"
        raise NotImplementedError(msg)

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the output in chunks; a primitive that cannot yields it in one."""
        yield await self.execute(input_data, context)

    if TYPE_CHECKING:
        # A plain attribute to type checkers, so that a subclass may write `name = "x"`.
        name: str
    else:

        @property
        def name(self) -> str:
            """The name that paths, events and errors show."""
            return self._name or self._default_name

        @name.setter
        def name(self, name: str) -> None:
            self._name = _checked_name(name)

    def named(self, name: str) -> Self:
        """Return a copy with this name; open wrappers at a chain's end are bound.

        Args:
            name: Any text without `/`, `@` and `#`, which paths are made of.

        Raises:
            ValueError: The name is empty or holds one of these characters.
        """
        twin = _copied(self)
        twin._name = _checked_name(name)
        return twin

    def children(self) -> tuple[AnyPrimitive, ...]:
        """Return the primitives directly below this one, in the order they run."""
        found: list[AnyPrimitive] = []
        for value in vars(self).values():
            members = value.values() if isinstance(value, dict) else value
            if not isinstance(value, (dict, list, tuple)):
                members = (value,)
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

    def to_svg(self, *, theme: Theme = "auto", width: int = 736) -> str:
        """Return a picture of the tree from here down: SVG that needs nothing else.

        Args:
            theme: "light", "dark", or "auto" for what the reader prefers.
            width: How wide it should be at most, in pixels. What does not fit beside
                each other stands below each other.

        Raises:
            ValueError: The theme is unknown, or the width is no whole number above 0.
        """
        # Drawing is not for programs that only run workflows.
        from tta_primitives.picture.drawing import drawn

        return drawn(self.describe(), theme=theme, width=width)

    def _repr_html_(self) -> str | None:
        """Return the picture for a notebook; None, and so the text, if it fails."""
        from tta_primitives.picture.notebook import shown

        return shown(self)

    def __repr__(self) -> str:
        return _shown(type(self).__name__, repr(self.name), self.options())

    @overload
    def then(self, following: Wrapper[Open, Open]) -> SequentialPrimitive[In, Out]: ...
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
        self, beside: WorkflowPrimitive[In, B]
    ) -> ParallelPrimitive[In, Out, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[In], Awaitable[B]]
    ) -> ParallelPrimitive[In, Out, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[In, WorkflowContext], Awaitable[B]]
    ) -> ParallelPrimitive[In, Out, B]: ...
    @overload
    def __or__(self, beside: Callable[[In], B]) -> ParallelPrimitive[In, Out, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[In, WorkflowContext], B]
    ) -> ParallelPrimitive[In, Out, B]: ...
    def __or__(self, beside: Any) -> Any:
        """Run both with the same input; a tuple of the outputs in operand order."""
        if not _is_operand(beside):
            return NotImplemented
        return ParallelPrimitive(self, beside)

    @overload
    def __ror__(
        self, beside: Callable[[In], Awaitable[B]]
    ) -> ParallelPrimitive[In, B, Out]: ...
    @overload
    def __ror__(
        self, beside: Callable[[In, WorkflowContext], Awaitable[B]]
    ) -> ParallelPrimitive[In, B, Out]: ...
    @overload
    def __ror__(self, beside: Callable[[In], B]) -> ParallelPrimitive[In, B, Out]: ...
    @overload
    def __ror__(
        self, beside: Callable[[In, WorkflowContext], B]
    ) -> ParallelPrimitive[In, B, Out]: ...
    def __ror__(self, beside: Any) -> Any:
        """Run the plain function and this with the same input."""
        if not _is_operand(beside):
            return NotImplemented
        return ParallelPrimitive(beside, self)

    def _as_operand(self) -> AnyPrimitive:
        """Return what stands for this as a child of another primitive."""
        return self


def _reserve(cls: type[AnyPrimitive]) -> None:
    """Let CPython reserve room for attributes that instances get only later.

    It settles where the attributes of a class are found by those of the first
    instances; what comes after them finds no room, and makes its instance a slow one.
    """
    if not cls._bound_attributes or hasattr(cls, "__del__"):
        return
    try:
        first = object.__new__(cls)
    except TypeError:  # An abstract class has no instances.
        return
    for name in cls._bound_attributes:
        object.__setattr__(first, name, None)


def _put_door(
    cls: type[AnyPrimitive],
    method: str,
    make: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Put the door around the first such method in the MRO, mixins included."""
    found = [vars(owner)[method] for owner in cls.__mro__ if method in vars(owner)]
    first, *below = [f for f in found if not getattr(f, "__isabstractmethod__", False)]
    for function in below:
        override(function)
    if first is not vars(WorkflowPrimitive)[method] and not is_door(first):
        if cls.__module__.partition(".")[0] != _OURS:
            # To read signatures is a tenth of what it takes to import this package, and
            # its own were tested.
            check_method(cls, method, first)
        setattr(cls, method, make(first))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_") or "workflow"


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name or set(name) & set("/@#"):
        msg = f"name={name!r} must be a non-empty text without '/', '@' and '#'"
        raise ValueError(msg)
    return name


def _shown(kind: str, first: str, options: dict[str, Any]) -> str:
    """Return what `repr` shows: `<RetryPrimitive 'llm' max_retries=3>`."""
    shown = [f"{key}={value!r}" for key, value in options.items()]
    return f"<{' '.join([kind, first, *shown])}>"


def _changed(options: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the options whose value is not the usual one, of pairs of these two."""
    return {key: value for key, (value, usual) in options.items() if value != usual}


# What a class defines to be copied in its own way.
_COPY_HOOKS = (
    *("__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
    *("__getnewargs__", "__getnewargs_ex__"),
)


def _become(one: AnyPrimitive, kind: type[AnyPrimitive]) -> None:
    """Change the class of a primitive that was not made of it, as a user's own is."""
    if type(one) is not kind:
        object.__setattr__(one, "__class__", kind)


def _copied(one: A, kind: type[Any] | None = None) -> A:
    """Return a shallow copy of a primitive, of another class if one is given.

    CPython keeps the attributes of an object where they are found at once, until it is
    asked for its `__dict__` or given another class. So the copy is of its class from
    the beginning, and gets them one by one.
    """
    own = type(one)
    if kind is None:
        slots = any(vars(base).get("__slots__") for base in own.__mro__)
        hooks = any(
            getattr(own, hook, None) is not getattr(object, hook, None)
            for hook in _COPY_HOOKS
        )
        if slots or hooks:
            from copy import copy

            return copy(one)
    twin = object.__new__(kind or own)
    for name, value in vars(one).items():
        object.__setattr__(twin, name, value)
    return twin


def _is_operand(value: object) -> bool:
    return isinstance(value, WorkflowPrimitive) or callable(value)


def as_primitive(value: AnyPrimitive | Callable[..., Any]) -> AnyPrimitive:
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
    use = "a primitive or a function f(input) or f(input, context)"
    if callable(getattr(value, "primitive", None)):
        # Such as the double of a model: it makes the steps that it answers for.
        use = "what its method primitive() returns"
    msg = f"{value!r} cannot be a step of a workflow; use {use}"
    raise TypeError(msg)


def as_operand(value: AnyPrimitive | Callable[..., Any]) -> AnyPrimitive:
    """Return a primitive that may be a child of another: nothing in it is open.

    Raises:
        OpenWrapperError: It is a wrapper that wraps nothing yet.
        UnboundStepError: It is a step or a function with an extra that is not bound.
        TypeError: It is neither a primitive nor a function that could be a step.
    """
    return as_primitive(value)._as_operand()


def labels(children: tuple[AnyPrimitive, ...]) -> tuple[str, ...]:
    """Return the labels of siblings: their names, `#2` for the second of a name."""
    seen: Counter[str] = Counter()
    result = []
    for child in children:
        seen[child.name] += 1
        count = seen[child.name]
        result.append(child.name if count == 1 else f"{child.name}#{count}")
    return tuple(result)


def positions(
    primitive: AnyPrimitive, path: str | None = None
) -> Iterator[tuple[str, AnyPrimitive]]:
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


def plans(children: tuple[AnyPrimitive, ...]) -> tuple[Plan, Plan]:
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

    _places_itself = True
    _signature: StepSignature

    if not TYPE_CHECKING:

        def __new__(
            cls,
            function: Callable[..., Any] | None = None,
            timeout_seconds: object = None,
            blocking: object = False,  # noqa: FBT002 - as `__init__` takes it
            **_: object,
        ) -> StepPrimitive[Any, Any]:
            """Make it of the class that calls this kind of function."""
            if cls is not StepPrimitive:
                return super().__new__(cls)
            signature = _signature_of(function)
            has_more = timeout_seconds is not None or bool(blocking)
            made = super().__new__(_kind(signature, (), has_more=has_more))
            made._signature = signature
            return made

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        idempotent: bool = True,
        timeout_seconds: float | timedelta | None = None,
        blocking: bool = False,
    ) -> None:
        signature = getattr(self, "_signature", None) or _signature_of(function)
        made: Any = self  # Not every callable has all that a function has.
        update_wrapper(made, function, updated=())
        self._signature = signature
        self._blocking = check_flag("blocking", blocking)
        self._timeout: float | None = None
        if timeout_seconds is not None:
            self._timeout = seconds("timeout_seconds", timeout_seconds)
        self.idempotent: bool = check_flag("idempotent", idempotent)
        self._function = function
        self._extras: dict[str, Any] = {}
        default = re.sub("[/@#]", "_", function_name(function))
        self._name = default if name is None else _checked_name(name)
        self._needs_position = signature.takes_context
        self._reads_deadline = signature.takes_context or self._timeout is not None
        _check_blocking(function, signature, blocking=blocking)
        self._call = function
        has_more = blocking or timeout_seconds is not None
        _become(self, _kind(signature, (), has_more=has_more))

    if not TYPE_CHECKING:
        # To type checkers only an `UnboundStep` can be called; a step that could would
        # pass for a function of any input.

        def __call__(self, *args: Any, **extras: Any) -> StepPrimitive[In, Out]:  # noqa: ANN401 - as the function
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
            new = bind_extras(self.name, self._signature, args, extras)
            return self._with_extras({**self._extras, **new})

    def _with_extras(self, extras: dict[str, Any]) -> StepPrimitive[In, Out]:
        has_more = self._timeout is not None or self._blocking
        bound = _copied(self, _kind(self._signature, extras, has_more=has_more))
        bound._extras = extras
        bound._call = partial(self._function, **extras) if extras else self._function
        return bound

    def children(self) -> tuple[AnyPrimitive, ...]:
        """Return nothing: a step is a leaf."""
        return ()

    def options(self) -> dict[str, Any]:
        """Return what was set beside the function."""
        return _changed(
            {
                "idempotent": (self.idempotent, True),
                "timeout_seconds": (self._timeout, None),
                "blocking": (self._blocking, False),
            }
        )

    def describe(self) -> Description:
        """Return the step as JSON-able data, its class being always the same."""
        return {**super().describe(), "type": "StepPrimitive"}

    def __repr__(self) -> str:
        return _shown("StepPrimitive", repr(self.name), self.options())

    def __copy__(self) -> Self:
        return _copied(self, type(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A step has no state of its own; a session bound to it must stay the same one.
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._is_global():
            return self.__qualname__
        settings = {**self.options(), "name": self._name}
        return _unpickled, (self._function, settings, self._extras)

    def _is_global(self) -> bool:
        """Tell whether `@step` put this where pickle would look for the function."""
        module = sys.modules.get(self.__module__)
        return getattr(module, getattr(self, "__qualname__", ""), None) is self

    if TYPE_CHECKING:
        __qualname__: str
        __wrapped__: Callable[..., Any]


def _signature_of(function: Callable[..., Any] | None) -> StepSignature:
    """Read the signature of a function that is to be a step."""
    if not callable(function) or isinstance(function, WorkflowPrimitive):
        msg = f"function={function!r} must be a function, f(input) or so"
        raise TypeError(msg)
    return read_signature(function)


def _unpickled(
    function: Callable[..., Any], settings: dict[str, Any], extras: dict[str, Any]
) -> StepPrimitive[Any, Any]:
    made: StepPrimitive[Any, Any] = StepPrimitive(function, **settings)
    return made._with_extras(extras)


def _check_blocking(
    function: Callable[..., Any], signature: StepSignature, *, blocking: bool
) -> None:
    if blocking and (signature.is_async or signature.is_stream):
        msg = (
            f"blocking=True is for sync functions, and {function_name(function)!r} is "
            "async; leave it out"
        )
        raise TypeError(msg)


# The classes below differ only in how they call their function. A step becomes one of
# them when it is made, so that nothing is asked when it runs. Some of them hand back
# whatever the user's function returns, which no type here can know.


class _AsyncStep(StepPrimitive[In, Out]):
    _is_plain_leaf = True

    @leaf_door
    def execute(
        self,
        input_data: In,
        context: WorkflowContext,  # noqa: ARG002 - the function does not want it
        /,
    ) -> Coroutine[Any, Any, Out]:
        return self._call(input_data)  # type: ignore[no-any-return]


class _AsyncContextStep(StepPrimitive[In, Out]):
    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        return self._call(input_data, context.of(self))  # type: ignore[no-any-return]


class _SyncStep(StepPrimitive[In, Out]):
    _is_plain_leaf = True

    async def execute(
        self,
        input_data: In,
        context: WorkflowContext,  # noqa: ARG002 - the function does not want it
        /,
    ) -> Out:
        result = self._call(input_data)
        # A lambda may return what an async function returned to it.
        if hasattr(result, "__await__"):
            result = await result
        return result  # type: ignore[no-any-return]


class _SyncContextStep(StepPrimitive[In, Out]):
    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        result = self._call(input_data, context.of(self))
        if hasattr(result, "__await__"):
            result = await result
        return result  # type: ignore[no-any-return]


class _GeneralStep(StepPrimitive[In, Out]):
    """A step in a thread, or with a limit: what costs anyway asks when it runs."""

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        if self._timeout is None:
            return await self._run(input_data, context)
        running = self._run(input_data, _limited(self, self._timeout, context))
        return await within(running, self._timeout, self, context)

    async def _run(self, input_data: In, context: WorkflowContext) -> Out:
        args = _arguments(self, input_data, context)
        if self._blocking:
            return await asyncio.to_thread(self._call, *args)
        result = self._call(*args)
        if hasattr(result, "__await__"):
            result = await result
        return result  # type: ignore[no-any-return]


class _StreamStep(StepPrimitive[In, Out]):
    """An async generator function: its chunks when streamed, joined when executed."""

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        if self._timeout is None:
            return await self._joined(input_data, context)
        running = self._joined(input_data, _limited(self, self._timeout, context))
        return await within(running, self._timeout, self, context)

    async def _joined(self, input_data: In, context: WorkflowContext) -> Out:
        async with closing(self._chunks(input_data, context)) as stream:
            chunks: Any = [chunk async for chunk in stream]
        is_text = bool(chunks) and all(isinstance(chunk, str) for chunk in chunks)
        joined: Any = "".join(chunks) if is_text else chunks
        return joined  # type: ignore[no-any-return]

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        limit = self._timeout
        view = context if limit is None else _limited(self, limit, context)
        async with closing(self._chunks(input_data, view)) as stream:
            chunks = stream if limit is None else self._bounded(stream, limit, context)
            async with closing(chunks) as bounded:
                async for chunk in bounded:
                    yield chunk

    def _chunks(self, input_data: In, context: WorkflowContext) -> AsyncIterator[Any]:
        return self._call(*_arguments(self, input_data, context))  # type: ignore[no-any-return]

    def _bounded(
        self, stream: AsyncIterator[Any], limit: float, context: WorkflowContext
    ) -> AsyncIterator[Any]:
        limit, deadline = bounds(limit, context)
        return within_stream(stream, deadline, limit, self, context)


class _UnboundStep(StepPrimitive[In, Out]):
    async def execute(
        self,
        input_data: In,  # noqa: ARG002 - nothing is executed
        context: WorkflowContext,  # noqa: ARG002 - as above
        /,
    ) -> Out:
        raise UnboundStepError(self._unbound("was executed"))

    def _as_operand(self) -> AnyPrimitive:
        raise UnboundStepError(self._unbound("was made part of a workflow"))

    def _unbound(self, what: str) -> str:
        missing = _missing(self)
        made = self.name if self._is_global() else f"step({self.name})"
        return (
            f"step {self.name!r} {what} before its parameter "
            f"{', '.join(map(repr, missing))} was bound; write "
            f"{made}({', '.join(f'{name}=...' for name in missing)})"
        )


def _missing(made: StepPrimitive[Any, Any]) -> list[str]:
    """Return the names of the extras that must be bound and are not."""
    signature = made._signature
    names = [p.name for p in signature.extras if p.name in signature.required]
    return [name for name in names if name not in made._extras]


def _arguments(
    made: StepPrimitive[In, Any], input_data: In, context: WorkflowContext
) -> tuple[Any, ...]:
    if made._signature.takes_context:
        return input_data, context.of(made)
    return (input_data,)


def _limited(
    made: StepPrimitive[Any, Any], limit: float, context: WorkflowContext
) -> WorkflowContext:
    """Return the view in which a function finds the deadline that its limit sets."""
    if not made._signature.takes_context:
        return context
    deadline = asyncio.get_running_loop().time() + limit
    return context.of(made).child(deadline=Enforced(deadline))


def _kind(
    signature: StepSignature, bound: Container[str], *, has_more: bool
) -> type[StepPrimitive[Any, Any]]:
    """Return the class that calls a kind of function without asking again."""
    if not all(name in bound for name in signature.required):
        return _UnboundStep
    if signature.is_stream:
        return _StreamStep
    if has_more:
        return _GeneralStep
    if signature.is_async:
        return _AsyncContextStep if signature.takes_context else _AsyncStep
    return _SyncContextStep if signature.takes_context else _SyncStep


class UnboundStep(StepPrimitive[In, Out], Generic[In, P, Out]):
    """What type checkers see of a step with extras: calling it binds them."""

    if TYPE_CHECKING:

        def __call__(  # noqa: D102 - as its base
            self, *args: P.args, **extras: P.kwargs
        ) -> StepPrimitive[In, Out]: ...


class StepOptions(TypedDict, total=False):
    """The keyword arguments of `step`, as `StepPrimitive` takes and documents them."""

    name: str | None
    idempotent: bool
    timeout_seconds: float | timedelta | None
    blocking: bool


class _StepDecorator:
    """What `@step(...)` with options returns."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[[A], Awaitable[B]]
    ) -> StepPrimitive[A, B]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
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
def step(  # type: ignore[overload-overlap]
    function: Callable[[A], Awaitable[B]], /, **options: Unpack[StepOptions]
) -> StepPrimitive[A, B]: ...
@overload
def step(  # type: ignore[overload-overlap]
    function: Callable[[A, WorkflowContext], Awaitable[B]],
    /,
    **options: Unpack[StepOptions],
) -> StepPrimitive[A, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, WorkflowContext, P], Awaitable[B]],
    /,
    **options: Unpack[StepOptions],
) -> UnboundStep[A, P, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, P], Awaitable[B]],
    /,
    **options: Unpack[StepOptions],
) -> UnboundStep[A, P, B]: ...
@overload
def step(
    function: Callable[[A], B], /, **options: Unpack[StepOptions]
) -> StepPrimitive[A, B]: ...
@overload
def step(
    function: Callable[[A, WorkflowContext], B], /, **options: Unpack[StepOptions]
) -> StepPrimitive[A, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, WorkflowContext, P], B],
    /,
    **options: Unpack[StepOptions],
) -> UnboundStep[A, P, B]: ...
@overload
def step(
    function: Callable[Concatenate[A, P], B], /, **options: Unpack[StepOptions]
) -> UnboundStep[A, P, B]: ...
@overload
def step(**options: Unpack[StepOptions]) -> _StepDecorator: ...
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

    Built without its primitive a wrapper is *open*, and is read like a stacked
    decorator: in `CachePrimitive(ttl=60) >> llm >> store` it wraps the next operand and
    nothing more. Binding makes a copy, so state belongs to the bound one.
    """

    _places_itself = True
    _bound_attributes: tuple[str, ...] = (
        *("_name", "primitive", "idempotent", "_child_label", "_bound_by_chain"),
        "_needs_position",
    )
    primitive: AnyPrimitive | None = None
    # Whether a chain bound this wrapper to what follows it, rather than the caller.
    _bound_by_chain: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it wraps nothing yet."""
        return self.primitive is None

    def bind(self, primitive: AnyPrimitive | Callable[..., Any]) -> Wrapper[Any, Any]:
        """Return a copy of this open wrapper around a primitive.

        Args:
            primitive: A primitive or a function that could be a step.

        Raises:
            TypeError: This already wraps something, or that cannot be wrapped.
        """
        if self.primitive is not None:
            msg = f"{self!r} already wraps {self.primitive.name!r}"
            raise TypeError(msg)
        bound = _copied(self)
        bound._wrap(as_operand(primitive))
        return bound

    def children(self) -> tuple[AnyPrimitive, ...]:
        """Return the wrapped primitive."""
        return () if self.primitive is None else (self.primitive,)

    def _wrap(self, primitive: AnyPrimitive) -> None:
        """Take the primitive; subclasses make the state of one binding here."""
        self.primitive = primitive
        self.idempotent: bool = primitive.idempotent
        self._child_label = primitive.name if primitive._needs_position else None

    def _wrapped(self) -> AnyPrimitive:
        if self.primitive is None:
            raise OpenWrapperError(_open_message(self))
        return self.primitive

    def _bind_in_chain(self, primitive: AnyPrimitive) -> Wrapper[Any, Any]:
        bound = self.bind(primitive)
        bound._bound_by_chain = True
        return bound

    def _as_operand(self) -> AnyPrimitive:
        self._wrapped()
        return self

    def __repr__(self) -> str:
        inner = "open" if self.primitive is None else repr(self.primitive.name)
        return _shown(type(self).__name__, inner, self.options())

    if TYPE_CHECKING:

        @overload
        def __rshift__(  # type: ignore[overload-overlap]
            self: Wrapper[Open, Open], following: Wrapper[Open, Open]
        ) -> Wrapper[Open, Open]: ...
        @overload
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
        def __rshift__(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, following: Any
        ) -> Any: ...


def _open_message(wrapper: Wrapper[Any, Any]) -> str:
    kind = type(wrapper).__name__
    return (
        f"{wrapper!r} wraps nothing yet: give it a primitive, {kind}(primitive, ...), "
        f"or let one follow it, {kind}(...) >> primitive"
    )


def _is_open(value: AnyPrimitive) -> bool:
    return isinstance(value, Wrapper) and value.is_open


class _Stack(Wrapper[In, Out]):
    """Open wrappers around each other, waiting for what the innermost wraps."""

    def __init__(self, *wrappers: AnyPrimitive) -> None:
        self._wrappers: tuple[Any, ...] = ()
        for one in wrappers:
            self._wrappers += one._wrappers if isinstance(one, _Stack) else (one,)

    def bind(self, primitive: AnyPrimitive | Callable[..., Any]) -> Wrapper[Any, Any]:
        bound: Any = primitive
        for wrapper in reversed(self._wrappers):
            bound = wrapper.bind(bound)
        if self._name is not None:
            bound._name = self._name
        return bound  # type: ignore[no-any-return]

    def _bind_in_chain(self, primitive: AnyPrimitive) -> Wrapper[Any, Any]:
        bound: Any = primitive
        for wrapper in reversed(self._wrappers):
            bound = wrapper._bind_in_chain(bound)
        if self._name is not None:
            bound._name = self._name
        return bound  # type: ignore[no-any-return]

    def execute(
        self,
        input_data: In,  # noqa: ARG002 - nothing is executed
        context: WorkflowContext,  # noqa: ARG002 - as above
        /,
    ) -> Coroutine[Any, Any, Out]:
        raise OpenWrapperError(_open_message(self._wrappers[-1]))

    def _wrapped(self) -> AnyPrimitive:
        raise OpenWrapperError(_open_message(self._wrappers[-1]))

    def describe(self) -> Description:
        described: list[Description] = [one.describe() for one in self._wrappers]
        for above, below in pairwise(described):
            above["children"] = [below]
        return described[0]

    def __repr__(self) -> str:
        return f"<open {' >> '.join(map(repr, self._wrappers))}>"


class SequentialPrimitive(WorkflowPrimitive[In, Out]):
    """Steps one after the other, each with what the one before returned: `a >> b`.

    Args:
        steps: Primitives or functions, at least one (or one list of them); open
            wrappers among them are bound as `>>` does it.

    Raises:
        TypeError: There is no step, or one of them is neither primitive nor function.
        OpenWrapperError: All of them are open wrappers.
    """

    _places_itself = True
    _bound_attributes = ("_name", "_links", "_trailing")
    _links: tuple[AnyPrimitive, ...] = ()
    # Open wrappers that nothing follows yet.
    _trailing: tuple[Wrapper[Any, Any], ...] = ()

    if not TYPE_CHECKING:

        def __new__(cls, *steps: object) -> SequentialPrimitive[Any, Any]:
            """Make it of the class for one link, if there will be but one."""
            is_one = cls is SequentialPrimitive and _is_one_link(steps)
            return super().__new__(_OneLink if is_one else cls)

    @overload
    def __init__(self, step: WorkflowPrimitive[In, Out], /) -> None: ...
    @overload
    def __init__(
        self: SequentialPrimitive[A, B],
        first: WorkflowPrimitive[A, C],
        second: WorkflowPrimitive[C, B],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: SequentialPrimitive[Any, Any],
        *steps: AnyPrimitive | Callable[..., Any] | list[Any],
    ) -> None: ...
    def __init__(self, *steps: Any) -> None:
        for one in _members(self, "step", steps):
            self._append(as_primitive(one))
        if not self._links:
            raise OpenWrapperError(_open_message(self._trailing[-1]))
        self._settle()

    def _append(self, following: AnyPrimitive) -> None:
        """Add an operand; open wrappers before it wrap it, and nothing more."""
        if isinstance(following, Wrapper) and following.is_open:
            self._trailing += (following,)
        elif self._trailing:
            following = following._as_operand()
            for wrapper in reversed(self._trailing):
                following = wrapper._bind_in_chain(following)
            self._links += (following,)
            self._trailing = ()
        elif isinstance(following, SequentialPrimitive) and _is_flat(following):
            self._links += following.steps
        else:
            self._links += (following._as_operand(),)

    def _settle(self) -> None:
        """Work out what runs: wrappers that nothing follows wrap the link before."""
        steps = self._links
        if self._trailing:
            steps = (*steps[:-1], _wrap_end(steps[-1], self._trailing))
        self._steps = steps
        self._plan, self._heard_plan = plans(steps)
        self._needs_position = any(one._needs_position for one in steps)
        # What runs if no step needs a view of its own, the usual case.
        self._plain = () if self._needs_position else steps
        self._reads_deadline = any(one._reads_deadline for one in steps)
        self.idempotent: bool = all(one.idempotent for one in steps)
        if _is_flat(self):
            _become(self, _OneLink if len(steps) == 1 else SequentialPrimitive)
        elif type(self) is _OneLink:
            _become(self, SequentialPrimitive)

    @property
    def steps(self) -> tuple[AnyPrimitive, ...]:
        """The steps in the order in which they run, open wrappers bound."""
        return self._steps

    def children(self) -> tuple[AnyPrimitive, ...]:
        """Return the steps."""
        return self._steps

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Run the steps one after the other."""
        value: Any = input_data
        is_heard = listeners._anyone
        if self._plain and not is_heard:
            for one in self._plain:
                value = await one.execute(value, context)
            return value  # type: ignore[no-any-return]
        for one, label in self._heard_plan if is_heard else self._plan:
            value = await one.execute(
                value, context if label is None else context.below(self, one, label)
            )
        return value  # type: ignore[no-any-return]

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Run all steps but the last, then yield the chunks of the last."""
        value: Any = input_data
        *before, (last, label) = self._heard_plan if is_listening() else self._plan
        for one, its_label in before:
            view = context if its_label is None else context.below(self, one, its_label)
            value = await one.execute(value, view)
        view = context if label is None else context.below(self, last, label)
        async with closing(last.stream(value, view)) as chunks:
            async for chunk in chunks:
                yield chunk

    def named(self, name: str) -> Self:
        """Return a copy with this name, whose open wrappers at the end are bound."""
        twin = _copied(self, SequentialPrimitive if _is_flat(self) else None)
        twin._name = _checked_name(name)
        twin._links, twin._trailing = self._steps, ()
        twin._settle()
        return twin

    def __repr__(self) -> str:
        inner = " >> ".join(repr(one) for one in self._steps)
        return f"<{type(self).__name__} {self.name!r} {inner}>"


def _members(
    owner: AnyPrimitive, what: str, given: tuple[Any, ...]
) -> tuple[Any, ...] | list[Any]:
    """Return the operands that were given one by one, or as one list of them."""
    found = given[0] if len(given) == 1 and isinstance(given[0], list) else given
    if not found:
        msg = f"{type(owner).__name__} needs at least one {what}"
        raise TypeError(msg)
    return found


def _is_flat(chain: AnyPrimitive) -> bool:
    """Tell whether a chain is nothing but its steps: no name, no user's class."""
    return type(chain) in {SequentialPrimitive, _OneLink} and chain._name is None


def _is_one_link(given: tuple[Any, ...]) -> bool:
    """Tell whether a chain of these operands has but one link."""
    found = given[0] if len(given) == 1 and isinstance(given[0], list) else given
    closed = [one for one in found if not _is_open(one)]
    if len(closed) != 1:
        return False
    (only,) = closed
    is_chain = isinstance(only, SequentialPrimitive) and _is_flat(only)
    return found[0] is not only or not is_chain or type(only) is _OneLink


def _wrap_end(
    link: AnyPrimitive, trailing: tuple[Wrapper[Any, Any], ...]
) -> AnyPrimitive:
    """Wrap a link inside the wrappers that its chain bound to it."""
    if (
        isinstance(link, Wrapper)
        and link._bound_by_chain
        and link.primitive is not None
    ):
        outer = _copied(link)
        outer._wrap(_wrap_end(link.primitive, trailing))
        return outer
    for wrapper in trailing:
        link = wrapper._bind_in_chain(link)
    return link


def _chain(first: AnyPrimitive, second: AnyPrimitive) -> AnyPrimitive:
    """Return `first >> second`."""
    if _is_open(first) and _is_open(second):
        return _Stack(first, second)
    if not (isinstance(first, SequentialPrimitive) and _is_flat(first)):
        return SequentialPrimitive(first, second)
    chain = _copied(first, type(first) if _is_open(second) else SequentialPrimitive)
    chain._append(second)
    chain._settle()
    return chain


class _OneLink(SequentialPrimitive[In, Out]):
    """A chain of one link: it stands for that link, and adds nothing when it runs."""

    if not TYPE_CHECKING:

        @property
        def name(self) -> str:
            return self._name or self._steps[0].name

        @name.setter
        def name(self, name: str) -> None:
            self._name = _checked_name(name)

    @no_door
    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        return self._steps[0].execute(input_data, context)

    @no_door
    def stream(self, input_data: In, context: WorkflowContext, /) -> AsyncIterator[Any]:
        return self._steps[0].stream(input_data, context)

    def _as_operand(self) -> AnyPrimitive:
        return self._steps[0]

    def describe(self) -> Description:
        return self._steps[0].describe()

    def children(self) -> tuple[AnyPrimitive, ...]:
        return self._steps[0].children()


class ParallelPrimitive(WorkflowPrimitive[In, tuple[*Ts]]):
    """Branches that run at the same time with the same input: `a | b | c`.

    The output is a tuple in the order of the branches. If one fails, the others are
    cancelled and awaited; a sole failure is raised itself, several as an
    `ExceptionGroup`. Nothing is left running.

    Args:
        branches: Primitives or functions, at least one (or one list of them).
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

    _places_itself = True
    _bound_attributes = ("_name",)

    @overload
    def __init__(
        self: ParallelPrimitive[A, B, C],
        first: WorkflowPrimitive[A, B],
        second: WorkflowPrimitive[A, C],
        /,
        *,
        max_concurrency: int | None = None,
        unwrap_single: bool = True,
        isolate: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: ParallelPrimitive[Any, *tuple[Any, ...]],
        *branches: AnyPrimitive | Callable[..., Any] | list[Any],
        return_exceptions: bool = False,
        max_concurrency: int | None = None,
        min_success: int | None = None,
        unwrap_single: bool = True,
        isolate: bool = False,
    ) -> None: ...
    def __init__(
        self,
        *branches: Any,
        return_exceptions: bool = False,
        max_concurrency: int | None = None,
        min_success: int | None = None,
        unwrap_single: bool = True,
        isolate: bool = False,
    ) -> None:
        members = _members(self, "branch", branches)
        self._branches = tuple(as_operand(branch) for branch in members)
        self._return_exceptions = check_flag("return_exceptions", return_exceptions)
        self._max_concurrency = max_concurrency
        if max_concurrency is not None:
            check_count("max_concurrency", max_concurrency, minimum=1)
        self._min_success = _check_min_success(min_success, len(members))
        self._unwrap_single = check_flag("unwrap_single", unwrap_single)
        self._isolate = check_flag("isolate", isolate)
        self._settle()

    def _settle(self) -> None:
        branches = self._branches
        self._plan, self._heard_plan = plans(branches)
        self._labels = labels(branches)
        self._needs_position = any(one._needs_position for one in branches)
        # The branches with their labels, if nothing has to be made for them.
        self._plain: tuple[tuple[AnyPrimitive, str], ...] = ()
        # Where nobody sees a context there is nothing to isolate either.
        if not (self._needs_position or self._tolerance()):
            self._plain = tuple(zip(branches, self._labels, strict=True))
        self._reads_deadline = any(one._reads_deadline for one in branches)
        self.idempotent: bool = all(one.idempotent for one in branches)

    @property
    def branches(self) -> tuple[AnyPrimitive, ...]:
        """The branches in operand order."""
        return self._branches

    def children(self) -> tuple[AnyPrimitive, ...]:
        """Return the branches."""
        return self._branches

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        return _changed(
            {
                "return_exceptions": (self._return_exceptions, False),
                "max_concurrency": (self._max_concurrency, None),
                "min_success": (self._min_success, None),
                "unwrap_single": (self._unwrap_single, True),
                "isolate": (self._isolate, False),
            }
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> tuple[*Ts]:
        """Run the branches at the same time; return their outputs in operand order."""
        plain = () if listeners._anyone else self._plain
        tolerance = None if plain else self._tolerance()
        tasks: list[asyncio.Task[Any]] = []
        before = requests()
        group = asyncio.TaskGroup()
        begin = group.create_task
        try:
            async with group:
                for one, name in plain:
                    tasks.append(begin(one.execute(input_data, context), name=name))
                if not plain:
                    self._begin(begin, tasks, tolerance, input_data, context)
            outputs: Any = tuple([task.result() for task in tasks])
            return outputs  # type: ignore[no-any-return]
        except BaseExceptionGroup as error:
            # The error's traceback will hold this frame, which must not hold the error;
            # and the frame that raised the group does.
            if settle(group, before):
                # Raises the cancellation, which counts more than the failure.
                await asyncio.sleep(0)
            tasks.clear()
            error.__traceback__ = None
            failure = self._failure(error, tolerance, context)
            del tolerance
        finally:
            # The group knows the task, which keeps the error that it ends with.
            del group, begin
        # Raised outside the handler, so that it does not get the group as its context.
        try:
            raise failure
        finally:
            del failure

    def _begin(
        self,
        begin: Callable[..., asyncio.Task[Any]],
        tasks: list[asyncio.Task[Any]],
        tolerance: _Tolerance | None,
        input_data: In,
        context: WorkflowContext,
    ) -> None:
        """Begin the branches, each with the view that it needs."""
        plan = self._heard_plan if is_listening() else self._plan
        for (one, label), name in zip(plan, self._labels, strict=True):
            view = self._view(one, label, context)
            if tolerance is None:
                branch = one.execute(input_data, view)
            else:
                branch = tolerance.run(one, input_data, view)
            tasks.append(begin(branch, name=name))

    def _failure(
        self,
        group: BaseExceptionGroup[BaseException],
        tolerance: _Tolerance | None,
        context: WorkflowContext,
    ) -> BaseException:
        errors = list(group.exceptions)
        if tolerance is not None:
            errors = tolerance.tolerated + errors
        if len(errors) == 1 and self._unwrap_single:
            return errors[0]
        path = context.position_of(self).path
        return BaseExceptionGroup(f"branches of {path} failed", errors)

    def _view(
        self, branch: AnyPrimitive, label: str | None, context: WorkflowContext
    ) -> WorkflowContext:
        if self._isolate:
            context = context.child(isolate=True)
        return context if label is None else context.below(self, branch, label)

    def _tolerance(self) -> _Tolerance | None:
        """Return what one execution needs beside the tasks, if it needs anything."""
        count = len(self._branches)
        needed = count if self._min_success is None else self._min_success
        tolerated = count if self._return_exceptions else count - needed
        if not tolerated and self._max_concurrency is None:
            return None
        return _Tolerance(self._max_concurrency or count, tolerated)

    @overload  # type: ignore[override]
    def __or__(
        self, beside: WorkflowPrimitive[In, B]
    ) -> ParallelPrimitive[In, *Ts, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[In], Awaitable[B]]
    ) -> ParallelPrimitive[In, *Ts, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[In, WorkflowContext], Awaitable[B]]
    ) -> ParallelPrimitive[In, *Ts, B]: ...
    @overload
    def __or__(self, beside: Callable[[In], B]) -> ParallelPrimitive[In, *Ts, B]: ...
    @overload
    def __or__(
        self, beside: Callable[[In, WorkflowContext], B]
    ) -> ParallelPrimitive[In, *Ts, B]: ...
    def __or__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, beside: Any
    ) -> Any:
        """Return this parallel with one more branch, its options and name kept."""
        if not _is_operand(beside):
            return NotImplemented
        wider = _copied(self)
        wider._branches = (*self._branches, as_operand(beside))
        wider._settle()
        return wider


def _check_min_success(value: int | None, branches: int) -> int | None:
    if value is None:
        return None
    if check_count("min_success", value, minimum=1) > branches:
        msg = (
            f"min_success={value!r} must be at most the number of branches, {branches}"
        )
        raise ValueError(msg)
    return value


class _Tolerance:
    """How many branches of one execution may run at a time, and how many may fail."""

    def __init__(self, max_concurrency: int, tolerated: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrency)
        self._left = tolerated
        self.tolerated: list[BaseException] = []

    async def run(
        self,
        branch: AnyPrimitive,
        input_data: Any,  # noqa: ANN401 - any primitive's input
        context: WorkflowContext,
    ) -> Any:  # noqa: ANN401 - any primitive's output, or its exception
        async with self._slots:
            try:
                return await branch.execute(input_data, context)
            except Exception as error:
                if not self._left:
                    raise
                self._left -= 1
                self.tolerated.append(error)
                return error
