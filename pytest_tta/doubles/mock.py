"""A primitive that does what the test tells it, and remembers how it was called."""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_tta.doubles.calls import CallLog, RecordedCall, scripted_at
from pytest_tta.doubles.replies import fresh, is_error, joined, wait_for
from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.trace.snapshot import shorten
from tta_primitives.arguments import check_flag, seconds
from tta_primitives.primitive import WorkflowPrimitive
from tta_primitives.signature import function_name, read_signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import timedelta

    from tta_primitives.context import WorkflowContext

__all__ = ["MockPrimitive"]

_NOTHING: Any = type("_Nothing", (), {"__repr__": lambda _: "nothing"})()


class MockPrimitive(WorkflowPrimitive[Any, Any]):
    """A primitive whose outcomes are given and whose calls are recorded.

    Args:
        name: Its name in paths.
        return_value: What every call returns.
        side_effect: What every call does instead: an exception or a class of exceptions
            is raised, a function `f(input)` or `f(input, context)`, sync, async or an
            async generator, is called. A list has one of these, or a value to return,
            for each call in turn; one call too many is an `UnexpectedCall`.
        stream: The chunks that `stream` yields, and that `execute` joins; an exception
            among them is raised in its turn.
        delay: Seconds that every call takes before that, on the loop's clock.
        idempotent: Whether executing it twice does no harm.

    Raises:
        TypeError: Nothing or more than one of return_value, side_effect and stream is
            given, or a function has no parameter for the input.
        ValueError: The delay is negative, the list is empty, or the name holds one of
            `/@#`.
    """

    has_scripts: ClassVar[bool] = False
    """Whether there has been a mock that wants all of a list to be used."""

    def __init__(
        self,
        name: str = "mock",
        *,
        return_value: object = _NOTHING,
        side_effect: object = _NOTHING,
        stream: Iterable[object] | None = None,
        delay: float | timedelta = 0.0,
        idempotent: bool = True,
    ) -> None:
        self._name = self.named(name).name
        self._chunks = [] if stream is None else _listed("stream", stream)
        self._given = _given(
            return_value=return_value,
            side_effect=side_effect,
            stream=_NOTHING if stream is None else self._chunks,
        )
        self._delay = seconds("delay", delay, zero=True)
        self.idempotent: bool = check_flag("idempotent", idempotent)
        self._script = _script(side_effect)
        if self._script is not None:
            MockPrimitive.has_scripts = True
        self._calls: list[RecordedCall] = []
        self.scripted_at: str = scripted_at()

    @property
    def calls(self) -> CallLog[RecordedCall]:
        """The calls so far, in the order in which they began."""
        return CallLog(self._calls)

    @property
    def call_count(self) -> int:
        """How many calls there were."""
        return len(self._calls)

    @property
    def last_call(self) -> RecordedCall:
        """The call that began last.

        Raises:
            AssertionError: There was none.
        """
        __tracebackhide__ = True
        self.assert_called()
        return self._calls[-1]

    def reset(self) -> None:
        """Forget the calls; a list of side effects begins again."""
        self._calls.clear()

    def assert_called(self, times: int | None = None) -> None:
        """Check that there was a call.

        Args:
            times: How many calls there were exactly; None for at least one.

        Raises:
            AssertionError: There were fewer, or more.
        """
        __tracebackhide__ = True
        if self.call_count != times if times is not None else not self._calls:
            wanted = "a call" if times is None else f"{times} calls"
            self._fail(f"expected {wanted}")

    def assert_called_once(self) -> None:
        """Check that there was exactly one call."""
        __tracebackhide__ = True
        self.assert_called(1)

    def assert_not_called(self) -> None:
        """Check that there was no call."""
        __tracebackhide__ = True
        self.assert_called(0)

    def assert_called_with(self, input_data: object) -> None:
        """Check that the last call had this input."""
        __tracebackhide__ = True
        if not self._calls or self._calls[-1].input != input_data:
            self._fail(f"expected the last call with {shorten(input_data)}")

    def assert_called_once_with(self, input_data: object) -> None:
        """Check that there was exactly one call, with this input."""
        __tracebackhide__ = True
        if self.calls.inputs != [input_data]:
            self._fail(f"expected one call with {shorten(input_data)}")

    def assert_inputs(self, *inputs: object) -> None:
        """Check that the calls had these inputs, in this order, and no others."""
        __tracebackhide__ = True
        if self.calls.inputs != list(inputs):
            self._fail(f"expected calls with {', '.join(map(shorten, inputs))}")

    def _fail(self, expected: str) -> None:
        __tracebackhide__ = True
        msg = f"{self.name}: {expected}, and there were {self.calls}"
        raise AssertionError(msg)

    def verify(self) -> list[str]:
        """Return what of a list of side effects was not used."""
        left = (self._script or [])[len(self._calls) :]
        if not left:
            return []
        unused = ", ".join(map(_shown, left))
        calls = f"{self.call_count} of {len(self._script or [])} times"
        return [f"{self.scripted_at}: {self!r} was called {calls}; unused: {unused}"]

    async def execute(self, input_data: Any, context: WorkflowContext, /) -> Any:  # noqa: ANN401 - any input, any outcome
        """Do what was given, after the delay."""
        __tracebackhide__ = True
        effect = self._begin(input_data, context, is_stream=False)
        await wait_for(self._delay)
        result = self._outcome(effect, input_data, context)
        if hasattr(result, "__aiter__"):
            async with aclosing(result) as chunks:
                return joined([chunk async for chunk in chunks])
        return await result if inspect.isawaitable(result) else result

    async def stream(
        self,
        input_data: Any,  # noqa: ANN401 - any input
        context: WorkflowContext,
        /,
    ) -> AsyncIterator[Any]:
        """Yield what was given, in chunks if it has any, after the delay."""
        __tracebackhide__ = True
        effect = self._begin(input_data, context, is_stream=True)
        await wait_for(self._delay)
        result = self._outcome(effect, input_data, context)
        if not hasattr(result, "__aiter__"):
            yield await result if inspect.isawaitable(result) else result
            return
        async with aclosing(result) as chunks:
            async for chunk in chunks:
                yield chunk

    def _begin(
        self, input_data: object, context: WorkflowContext, *, is_stream: bool
    ) -> object:
        """Record a call and return what it is to do."""
        __tracebackhide__ = True
        number = len(self._calls) + 1
        path = context.position_of(self).path
        call = RecordedCall.of(number, path, input_data, context, is_stream=is_stream)
        self._calls.append(call)
        if self._script is None:
            return next(iter(self._given.values()))
        if number > len(self._script):
            msg = (
                f"call {number} of {path!r} was not expected: {self!r}, "
                f"written in {self.scripted_at}, has no more side effects\n"
                f"  input: {shorten(input_data)}"
            )
            raise UnexpectedCall(msg)
        return self._script[number - 1]

    def _outcome(
        self, effect: object, input_data: object, context: WorkflowContext
    ) -> Any:  # noqa: ANN401 - a value, an awaitable or an async generator
        __tracebackhide__ = True
        if "stream" in self._given:
            return _chunks(self._chunks)
        if "return_value" in self._given:
            return effect
        if is_error(effect):
            raise fresh(effect)
        if not callable(effect):
            return effect
        takes_context = read_signature(effect).takes_context
        return effect(*(input_data, context)[: 1 + takes_context])

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return nothing: a mock is a leaf."""
        return ()

    def options(self) -> dict[str, Any]:
        """Return what was given."""
        shown = dict(self._given)
        if self._delay:
            shown["delay"] = self._delay
        return shown if self.idempotent else {**shown, "idempotent": False}

    def __repr__(self) -> str:
        shown = [repr(self.name)]
        shown += [f"{key}={_shown(value)}" for key, value in self.options().items()]
        return f"MockPrimitive({', '.join(shown)})"


def _given(**outcomes: object) -> dict[str, object]:
    """Return the one outcome that was given."""
    given = {name: value for name, value in outcomes.items() if value is not _NOTHING}
    if len(given) == 1:
        return given
    found = f"not {' and '.join(given)}" if given else "and nothing was given"
    msg = f"MockPrimitive needs one of {', '.join(outcomes)}, {found}"
    raise TypeError(msg)


def _listed(name: str, values: Iterable[object]) -> list[object]:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        msg = f"{name}={values!r} must be a list, such as ['Hel', 'lo']"
        raise TypeError(msg)
    return list(values)


def _script(side_effect: object) -> list[object] | None:
    """Return the side effects call by call, None if there is one for all."""
    if not isinstance(side_effect, (list, tuple)):
        _check_effect(side_effect)
        return None
    if not side_effect:
        msg = f"side_effect={side_effect!r} must have an outcome for at least one call"
        raise ValueError(msg)
    for one in side_effect:
        if callable(one):
            _check_effect(one)
    return list(side_effect)


def _check_effect(effect: object) -> None:
    if effect is _NOTHING or is_error(effect):
        return
    if not callable(effect):
        msg = (
            f"side_effect={effect!r} must be an exception, a function or a list; to "
            "return a value, give return_value="
        )
        raise TypeError(msg)
    read_signature(effect)


async def _chunks(values: Iterable[object]) -> AsyncIterator[object]:
    for value in values:
        if is_error(value):
            raise fresh(value)
        yield value


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, type) or inspect.isroutine(value):
        return function_name(value)
    return shorten(value)
