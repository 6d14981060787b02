"""How a plain function wants to be called as a step; read once, at composition."""

from __future__ import annotations

import inspect
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tta_primitives.context import WorkflowContext

__all__ = [
    "StepSignature",
    "bind_extras",
    "check_method",
    "function_name",
    "of_both",
    "read_signature",
    "wants_context",
]

_CONTEXT_NAMES = frozenset({"context", "ctx"})
_CONTEXT_TYPE = "WorkflowContext"
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


class StepSignature(NamedTuple):
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
    # A factory that builds a workflow for each request, or for each execution of a
    # test, asks about the same functions again and again.
    is_plain = type(function) is FunctionType and not function.__dict__
    known = _known.get(function) if is_plain else None
    if known is None:
        known = _read(function)
        if is_plain:
            _known[function] = known
    return known


_known: WeakKeyDictionary[Callable[..., Any], StepSignature] = WeakKeyDictionary()


def _read(function: Callable[..., Any]) -> StepSignature:
    called = _called(function)
    is_async = inspect.iscoroutinefunction(called)
    is_stream = inspect.isasyncgenfunction(called)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        # Some builtins have no signature; they are called with the input alone.
        return StepSignature(
            takes_context=False,
            extras=(),
            required=frozenset(),
            is_async=is_async,
            is_stream=is_stream,
        )
    rest = _after_input(function, parameters)
    takes_context = bool(rest) and _is_context(rest[0])
    extras = tuple(p for p in rest[takes_context:] if not _is_variadic(p))
    required = frozenset(p.name for p in extras if p.default is p.empty)
    return StepSignature(takes_context, extras, required, is_async, is_stream)


def wants_context(option: str, function: Callable[..., Any]) -> bool:
    """Tell whether a function is f(input, context); f(input) is the other way to be.

    Args:
        option: What it was given as, for the message.
        function: Any callable, sync or async.

    Raises:
        TypeError: It is no function, or has other parameters without a default.
    """
    signature = _read_option(option, function)
    if signature.required:
        raise _wants_more(option, function, signature.required)
    return signature.takes_context


def of_both(
    option: str, function: Callable[..., Any]
) -> Callable[[Any, WorkflowContext], Any]:
    """Return f(input) or f(input, context) as a function of both.

    Here the second parameter may have any name, if it has no default.

    Args:
        option: What it was given as, for the message.
        function: Any sync callable.

    Raises:
        TypeError: It is no function, is async, or has further parameters without a
            default.
    """
    signature = _read_option(option, function)
    if signature.is_async or signature.is_stream:
        msg = f"{option}={function!r} must not be async: it is asked before every call"
        raise TypeError(msg)
    more = signature.required
    if not signature.takes_context and len(more) == 1:
        parameter = signature.extras[0]
        if parameter.name in more and parameter.kind in _POSITIONAL:
            return function
    if more:
        raise _wants_more(option, function, more)
    return function if signature.takes_context else lambda value, _: function(value)


def _read_option(option: str, function: Callable[..., Any]) -> StepSignature:
    # A primitive is called with an input and a context, too, but is to be awaited.
    if not callable(function) or hasattr(function, "execute"):
        msg = f"{option}={function!r} must be a function, f(input) or f(input, context)"
        raise TypeError(msg)
    return read_signature(function)


def _wants_more(
    option: str, function: Callable[..., Any], required: frozenset[str]
) -> TypeError:
    extras = ", ".join(sorted(required))
    return TypeError(
        f"{option}={function_name(function)} must be f(input) or f(input, context), "
        f"and wants {extras} as well"
    )


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


def check_method(cls: type, name: str, function: Callable[..., Any]) -> None:
    """Check that a class's `execute` or `stream` can be called as one.

    Args:
        cls: The class that is being made.
        name: What the method is called.
        function: What the class has under that name.

    Raises:
        TypeError: It is no function, does not take `(self, input_data, context)`, or is
            an async generator called `execute`.
    """
    wanted = f"async def {name}(self, input_data, context)"
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        given = getattr(function, "__name__", type(function).__name__)
        msg = f"{cls.__name__}.{name} is {given!r}, and must be {wanted}"
        shown = inspect.signature(function) if callable(function) else None
        if shown is not None:
            msg = f"{cls.__name__}.{name}{shown} must be {wanted}"
        raise TypeError(msg) from None
    except ValueError:
        return  # A builtin without a signature is taken at its word.
    if name == "execute" and inspect.isasyncgenfunction(function):
        msg = f"{cls.__name__}.execute yields; call it stream, or return the whole"
        raise TypeError(msg)


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, looking through `partial` and callable objects."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else str(name)


def _called(function: Callable[..., Any]) -> object:
    """Return what tells whether calling gives a coroutine: unwrapped, or `__call__`."""
    while isinstance(function, partial):
        function = function.func
    if not (inspect.isroutine(function) or isinstance(function, type)):
        return getattr(function, "__call__")  # noqa: B004, B009 - of an instance
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
