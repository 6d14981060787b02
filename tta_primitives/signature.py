"""How a plain function wants to be called as a step; read once, at composition."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["StepSignature", "function_name", "read_signature"]

_CONTEXT_NAMES = frozenset({"context", "ctx"})
_CONTEXT_TYPE = "WorkflowContext"
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


@dataclass(frozen=True, slots=True)
class StepSignature:
    """What a step function takes beside its input.

    Attributes:
        takes_context: Whether its second parameter is the context.
        extras: Its further parameters, in order.
        required: The names of those that have no default.
        is_async: Whether it is a coroutine function.
        is_stream: Whether it is an async generator function.
    """

    takes_context: bool
    extras: tuple[inspect.Parameter, ...]
    required: frozenset[str]
    is_async: bool
    is_stream: bool


def read_signature(function: Callable[..., Any]) -> StepSignature:
    """Read how a function wants to be called as a step.

    The first parameter is the input; the second is the context if it is annotated
    `WorkflowContext` or named `context` or `ctx`; what follows are extras.

    Args:
        function: Any callable, sync or async.

    Raises:
        TypeError: It has no parameter for the input.
    """
    called = _called(function)
    is_async = inspect.iscoroutinefunction(called)
    is_stream = inspect.isasyncgenfunction(called)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        # Some builtins have no signature; they are called with the input alone.
        return StepSignature(False, (), frozenset(), is_async, is_stream)
    rest = _after_input(function, parameters)
    takes_context = bool(rest) and _is_context(rest[0])
    extras = tuple(p for p in rest[takes_context:] if not _is_variadic(p))
    required = frozenset(p.name for p in extras if p.default is p.empty)
    return StepSignature(takes_context, extras, required, is_async, is_stream)


def bind_extras(
    name: str,
    signature: StepSignature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the extras by name, as if a function of just these had been called.

    Raises:
        TypeError: There are too many, an unknown one, or one given twice.
    """
    parameters = [p.replace(kind=_bindable(p)) for p in signature.extras]
    try:
        return inspect.Signature(parameters).bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        known = ", ".join(p.name for p in signature.extras) or "none"
        msg = f"step {name!r} cannot be bound: {error}; its extras are: {known}"
        raise TypeError(msg) from None


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, looking through `partial` and callable objects."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else str(name)


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what decides whether calling gives a coroutine: unwrapped, or `__call__`."""
    while isinstance(function, partial):
        function = function.func
    if not (inspect.isroutine(function) or isinstance(function, type)):
        return function.__call__  # type: ignore[no-any-return, operator] - a callable object
    return function


def _after_input(
    function: Callable[..., Any], parameters: list[inspect.Parameter]
) -> list[inspect.Parameter]:
    first = parameters[0] if parameters else None
    if first is not None and first.kind in _POSITIONAL:
        return parameters[1:]
    if first is not None and first.kind is first.VAR_POSITIONAL:
        return parameters
    shown = f"{function_name(function)}({', '.join(p.name for p in parameters)})"
    msg = (
        f"{shown} cannot be a step: it has no first parameter for the input. "
        f"Write {function_name(function)}(input) or {function_name(function)}"
        "(input, context)."
    )
    raise TypeError(msg)


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.kind not in _POSITIONAL:
        return False
    annotation = parameter.annotation
    written = annotation if isinstance(annotation, str) else ""
    if not written:
        written = getattr(annotation, "__name__", "")
    is_typed = written.rpartition(".")[2] == _CONTEXT_TYPE
    return is_typed or parameter.name in _CONTEXT_NAMES


def _is_variadic(parameter: inspect.Parameter) -> bool:
    return parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}


def _bindable(parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - inspect's private enum
    is_keyword = parameter.kind is parameter.KEYWORD_ONLY
    return parameter.KEYWORD_ONLY if is_keyword else parameter.POSITIONAL_OR_KEYWORD
