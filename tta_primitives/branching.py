"""Choices: one of two ways by a condition, or one of many by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tta_primitives.door import closing, emit, is_listening
from tta_primitives.errors import NoRouteError
from tta_primitives.primitive import In, Out, WorkflowPrimitive, as_operand, plans
from tta_primitives.signature import function_name, wants_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

    from tta_primitives.context import WorkflowContext

    Condition = (
        Callable[[In], bool]
        | Callable[[In], Awaitable[bool]]
        | Callable[[In, WorkflowContext], bool]
        | Callable[[In, WorkflowContext], Awaitable[bool]]
    )
    Chooser = (
        Callable[[In], Hashable]
        | Callable[[In], Awaitable[Hashable]]
        | Callable[[In, WorkflowContext], Hashable]
        | Callable[[In, WorkflowContext], Awaitable[Hashable]]
    )
    Operand = WorkflowPrimitive[Any, Any] | Callable[..., Any]

__all__ = ["ConditionalPrimitive", "RouterPrimitive"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class _Choice(WorkflowPrimitive[In, Out]):
    """A primitive that asks a function which of its children runs."""

    _places_itself = True

    def _settle(
        self,
        question: str,
        function: Callable[..., Any],
        ways: tuple[WorkflowPrimitive[Any, Any], ...],
    ) -> None:
        self._question = function
        self._asks_with_context = wants_context(question, function)
        self._ways = ways
        self._plan, self._heard_plan = plans(ways)
        reads = self._asks_with_context
        self._needs_position = reads or any(one._needs_position for one in ways)
        self._reads_deadline = reads or any(one._reads_deadline for one in ways)
        self.idempotent: bool = all(one.idempotent for one in ways)

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return what may run, in the order in which it was given."""
        return self._ways

    async def _answer(self, input_data: In, context: WorkflowContext) -> object:
        if self._asks_with_context:
            answer = self._question(input_data, context.of(self))
        else:
            answer = self._question(input_data)
        if hasattr(answer, "__await__"):
            answer = await answer
        return answer

    async def _choose(self, input_data: In, context: WorkflowContext) -> int | None:
        """Return which child runs, None if the input goes through as it is."""
        raise NotImplementedError

    def _chosen(
        self, index: int, context: WorkflowContext
    ) -> tuple[WorkflowPrimitive[Any, Any], WorkflowContext]:
        plan = self._heard_plan if is_listening() else self._plan
        one, label = plan[index]
        return one, context if label is None else context.below(self, one, label)

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Ask which way to go, and go it."""
        index = await self._choose(input_data, context)
        if index is None:
            return input_data  # type: ignore[return-value]
        one, view = self._chosen(index, context)
        return await one.execute(input_data, view)  # type: ignore[no-any-return]

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Ask which way to go, and yield its chunks."""
        index = await self._choose(input_data, context)
        if index is None:
            yield input_data
            return
        one, view = self._chosen(index, context)
        async with closing(one.stream(input_data, view)) as chunks:
            async for chunk in chunks:
                yield chunk


class ConditionalPrimitive(_Choice[In, Out]):
    """One of two ways, by a condition.

    Args:
        condition: `f(input)` or `f(input, context)`, sync or async.
        then_primitive: What runs if the condition's answer is true.
        else_primitive: What runs if it is false; None passes the input through.

    Raises:
        TypeError: The condition is no such function, or a way is neither primitive nor
            function.
    """

    @overload
    def __init__(
        self: ConditionalPrimitive[A, B | A],
        condition: Condition[A],
        then_primitive: WorkflowPrimitive[A, B],
        else_primitive: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ConditionalPrimitive[A, B | C],
        condition: Condition[A],
        then_primitive: WorkflowPrimitive[A, B],
        else_primitive: WorkflowPrimitive[A, C],
    ) -> None: ...
    @overload
    def __init__(
        self: ConditionalPrimitive[Any, Any],
        condition: Condition[Any],
        then_primitive: Operand,
        else_primitive: Operand | None = None,
    ) -> None: ...
    def __init__(
        self,
        condition: Any,
        then_primitive: Any,
        else_primitive: Any = None,
    ) -> None:
        ways: tuple[WorkflowPrimitive[Any, Any], ...] = (as_operand(then_primitive),)
        if else_primitive is not None:
            ways += (as_operand(else_primitive),)
        self._settle("condition", condition, ways)

    def options(self) -> dict[str, Any]:
        """Return the condition."""
        return {"condition": function_name(self._question)}

    async def _choose(self, input_data: In, context: WorkflowContext) -> int | None:
        index = 0 if await self._answer(input_data, context) else 1
        if is_listening():
            emit(context, "branch.taken", branch=("then", "else")[index])
        return index if index < len(self._ways) else None


class RouterPrimitive(_Choice[In, Out]):
    """One of many ways, by the name that a function gives.

    Args:
        routes: What may run, by name; a name is a string or anything hashable.
        router_fn: `f(input)` or `f(input, context)`, sync or async, returns a name.
        default: What runs for a name that is no route: one of the names, a primitive
            or a function; None raises.

    Raises:
        TypeError: `routes` is no mapping, `router_fn` no such function, or a route is
            neither primitive nor function.
        ValueError: There is no route, or `default` is no name of one.
    """

    @overload
    def __init__(
        self: RouterPrimitive[A, B],
        routes: Mapping[Any, WorkflowPrimitive[A, B]],
        router_fn: Chooser[A],
        default: WorkflowPrimitive[A, B] | str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: RouterPrimitive[Any, Any],
        routes: Mapping[Any, Operand],
        router_fn: Chooser[Any],
        default: Operand | Hashable = None,
    ) -> None: ...
    def __init__(self, routes: Any, router_fn: Any, default: Any = None) -> None:
        if not isinstance(routes, Mapping):
            msg = f"routes={routes!r} must be a mapping of names to primitives"
            raise TypeError(msg)
        if not routes:
            msg = "routes={} must have at least one route"
            raise ValueError(msg)
        self._routes: dict[object, int] = {key: i for i, key in enumerate(routes)}
        ways = tuple(as_operand(one) for one in routes.values())
        self._default: int | None = None
        if isinstance(default, WorkflowPrimitive) or callable(default):
            self._default = len(ways)
            ways += (as_operand(default),)
        elif default is not None:
            self._default = self._default_route(default)
        self._settle("router_fn", router_fn, ways)
        if self._default is None:
            self._needs_position = True  # The error says where there is no route.

    def _default_route(self, name: Hashable) -> int:
        if name not in self._routes:
            msg = f"default={name!r} is no route; {self._known(name)}"
            raise ValueError(msg)
        return self._routes[name]

    def options(self) -> dict[str, Any]:
        """Return the names of the routes, and which of the children is the default."""
        shown: dict[str, Any] = {"routes": list(self._routes)}
        if self._default is not None:
            shown["default"] = self._ways[self._default].name
        return shown

    async def _choose(self, input_data: In, context: WorkflowContext) -> int | None:
        route = await self._answer(input_data, context)
        try:
            index = self._routes.get(route, self._default)
        except TypeError:  # It cannot even be looked up.
            index = self._default
        if index is None:
            path = context.position_of(self).path
            msg = f"{path} has no route {route!r}; {self._known(route)}"
            raise NoRouteError(msg)
        if is_listening():
            # Routes are few; of what was asked for there may be any number.
            names = list(self._routes)
            taken = names[index] if index < len(names) else "default"
            emit(context, "route.taken", route=taken)
        return index

    def _known(self, wanted: object) -> str:
        """Name the routes that are most like a wanted one, and then all."""
        from difflib import get_close_matches  # Only for this one message.

        names = {str(name): name for name in self._routes}
        near = get_close_matches(str(wanted), names, n=2, cutoff=0.5)
        meant = " or ".join(repr(names[name]) for name in near)
        known = ", ".join(map(repr, self._routes))
        return f"did you mean {meant}? it has {known}" if near else f"it has {known}"
