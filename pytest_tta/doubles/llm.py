"""A scripted stand-in for language models, at any place of a workflow."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_tta.doubles.calls import CallLog, LLMCall, scripted_at
from pytest_tta.doubles.replies import (
    Answered,
    Asked,
    Failure,
    Fixed,
    Generated,
    Reply,
    SayOptions,
    is_error,
    say,
)
from pytest_tta.doubles.rules import Contains, Holds, InputIs, Rule, RuleBook, Scope
from pytest_tta.doubles.schema import generate
from pytest_tta.doubles.sites import Site
from pytest_tta.trace.snapshot import shorten
from tta_primitives.arguments import seconds
from tta_primitives.door import Interceptor
from tta_primitives.llm import LLMResponse, ToolCall, Usage
from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import timedelta

    from pytest_tta.doubles.replies import Spoken
    from pytest_tta.doubles.schema import Schema
    from pytest_tta.doubles.sites import Place
    from pytest_tta.doubles.unexpected import UnexpectedCall
    from tta_primitives.context import WorkflowContext
    from tta_primitives.door import Call
    from tta_primitives.llm import FinishReason

__all__ = ["LLMDouble", "Script"]

_ANY: Any = object()


class Script:
    """Where replies are written down: for a place, under conditions, or for any call.

    Args:
        rules: The list that every rule written here is added to.
        scope: The calls that the rules are for.
    """

    def __init__(self, rules: list[Rule], scope: Scope) -> None:
        self._rules = rules
        self._scope = scope

    def at(self, place: Place) -> Script:
        """Write for one place; from its first rule on, all its calls are answered.

        Args:
            place: A path (`answer/retry/llm`), the end of one (`llm`), a pattern with
                `*` for one label and `**` for several, a primitive, or the function of
                a step.

        Raises:
            TypeError: It is none of these.
            ValueError: The path has an empty label.
        """
        return Script(self._rules, replace(self._scope, site=Site.of(place)))

    def when(
        self,
        holds: Callable[[LLMCall], object] | None = None,
        *,
        contains: str | None = None,
        input: object = _ANY,  # noqa: A002 - what the user calls it
    ) -> Script:
        """Write for the calls for which all of this holds.

        Args:
            holds: A function of the call; it says yes or no.
            contains: What the text of the request contains.
            input: What the input equals.

        Raises:
            TypeError: Nothing was given, or `holds` is no function.
        """
        added: list[Contains | Holds | InputIs] = []
        if holds is not None:
            added.append(Holds(_function("holds", holds)))
        if contains is not None:
            added.append(Contains(contains))
        if input is not _ANY:
            added.append(InputIs(input))
        if not added:
            msg = "when() needs a condition: a function, contains= or input="
            raise TypeError(msg)
        conditions = (*self._scope.conditions, *added)
        return Script(self._rules, replace(self._scope, conditions=conditions))

    def reply(
        self,
        text: str | None = None,
        *,
        stream: Spoken | None = None,
        first_token_after: float | timedelta = 0.0,
        tokens_per_second: float | None = None,
        tool_calls: Sequence[ToolCall] = (),
        usage: Usage | None = None,
        finish_reason: FinishReason | None = None,
        response: bool = False,
        delay: float | timedelta = 0.0,
    ) -> Rule:
        """Answer with text, at once or as a stream of timed tokens.

        The step returns plain text, or an `LLMResponse` as soon as something is told
        that only a response can carry.

        Args:
            text: What the model says.
            stream: What it says in tokens: a text, which is sent word by word, or pairs
                of seconds and chunks, in which an exception is raised at its time.
            first_token_after: Seconds to the first word of a text that is streamed.
            tokens_per_second: How fast its words follow; None for all at once.
            tool_calls: The tools that the model asks for.
            usage: The tokens that it is charged for.
            finish_reason: Why it ended; `tool_calls` or `stop` unless given.
            response: Return an `LLMResponse` in any case.
            delay: Seconds before anything happens.

        Raises:
            TypeError: An argument is of the wrong kind, or there is neither text, nor
                stream, nor tool calls, or both text and stream.
            ValueError: A duration or a rate is out of range.
        """
        options: SayOptions = {
            "stream": stream,
            "first_token_after": first_token_after,
            "tokens_per_second": tokens_per_second,
            "tool_calls": tool_calls,
            "usage": usage,
            "finish_reason": finish_reason,
            "response": response,
            "delay": delay,
        }
        given = {name: value for name, value in options.items() if value}
        return self._add(say(text, **options), _written("reply", text, given))

    def calls_tool(self, name: str, /, **arguments: object) -> Rule:
        """Answer by asking for a tool, as an `LLMResponse`.

        Args:
            name: The tool's name.
            arguments: What it is to be called with.
        """
        call = ToolCall(name, arguments, id=f"call_{len(self._rules) + 1}")
        said = LLMResponse(tool_calls=(call,), finish_reason="tool_calls")
        return self._add(Fixed(said), _written("calls_tool", name, arguments))

    def returns(self, value: object, *, delay: float | timedelta = 0.0) -> Rule:
        """Answer with any value, as it is.

        Args:
            value: What the step returns.
            delay: Seconds before that.
        """
        wait = seconds("delay", delay, zero=True)
        # None is a value here, so it is shown.
        shown = f"{shorten(value)}, delay={delay!r}" if delay else shorten(value)
        return self._add(Fixed(value, wait), f".returns({shown})")

    def raises(
        self,
        error: BaseException | type[BaseException],
        *,
        delay: float | timedelta = 0.0,
    ) -> Rule:
        """Answer with an error.

        Args:
            error: What the step raises: an exception, or a class to make one of.
            delay: Seconds before that.

        Raises:
            TypeError: It is no exception.
        """
        wait = seconds("delay", delay, zero=True)
        if not is_error(error):
            msg = f"error={error!r} must be an exception or a class of exceptions"
            raise TypeError(msg)
        reply = Failure(error, wait)
        return self._add(reply, _written("raises", error, _delayed(delay)))

    def generates(
        self,
        schema: Schema | None = None,
        *,
        as_text: bool = False,
        delay: float | timedelta = 0.0,
    ) -> Rule:
        """Answer with data that is valid against a schema, equal for equal seeds.

        Args:
            schema: A JSON schema, whose data are returned, or a pydantic model, of
                which an object is returned; the schema of the request unless given.
            as_text: Return JSON text instead, as a model would.
            delay: Seconds before that.

        Raises:
            TypeError: It is neither a JSON schema nor a pydantic model.
            ValueError: The schema cannot be followed.
        """
        wait = seconds("delay", delay, zero=True)
        if schema is not None:
            # A schema that cannot be followed fails where it is written.
            generate(schema, random.Random(0))  # noqa: S311 - repeatable on purpose
        reply = Generated(schema, as_text, wait)
        shown = {**({"as_text": True} if as_text else {}), **_delayed(delay)}
        return self._add(reply, _written("generates", schema, shown))

    def answers(
        self,
        function: Callable[[LLMCall], object],
        *,
        delay: float | timedelta = 0.0,
    ) -> Rule:
        """Answer with what a function makes of the call.

        Args:
            function: Sync or async; it gets the call as it was recorded.
            delay: Seconds before it is asked.

        Raises:
            TypeError: It is no function.
        """
        wait = seconds("delay", delay, zero=True)
        reply = Answered(_function("function", function), wait)
        return self._add(reply, _written("answers", function, _delayed(delay)))

    def _add(self, reply: Reply, shown: str) -> Rule:
        rule = Rule(self._scope, reply, shown, scripted_at())
        self._rules.append(rule)
        return rule


class LLMDouble(Script, Interceptor):
    """A language model that says what the test wrote down, and nothing else.

    It answers the primitives that it made (`llm.primitive()`) and, while it listens at
    the door, every place that a rule names. The rule whose place is most exact answers,
    then the one with most conditions, then the first written; each answers once unless
    it has `.times(n)` or `.always()`.

    Args:
        seed: Decides the data that schemas are filled with; each call has its own
            chance, whatever runs beside it.
    """

    def __init__(self, *, seed: int | str = 0) -> None:
        self._book = RuleBook("llm")
        super().__init__(self._book.rules, Scope())
        self._seed = seed
        self._calls: list[LLMCall] = []
        self._counts: Counter[str] = Counter()
        self._seen: dict[str, None] = {}
        self._usage = Usage()

    @property
    def calls(self) -> CallLog[LLMCall]:
        """The calls that were answered, or should have been, in order."""
        return CallLog(self._calls)

    @property
    def problems(self) -> list[UnexpectedCall]:
        """The calls that nobody expected."""
        return self._book.problems

    @property
    def usage(self) -> Usage:
        """The tokens of all replies together."""
        return self._usage

    def primitive(self, name: str = "llm") -> WorkflowPrimitive[Any, Any]:
        """Return a primitive that this double answers, to build workflows around.

        Args:
            name: Its name in paths.

        Raises:
            ValueError: The name is empty or holds one of `/@#`.
        """
        return _ScriptedPrimitive(self).named(name)

    def verify(self) -> list[str]:
        """Return what went wrong: unexpected calls, and rules used too seldom."""
        return self._book.verify(list(self._seen))

    def __repr__(self) -> str:
        return f"<LLMDouble rules={len(self._rules)} calls={len(self._calls)}>"

    async def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any primitive's output
        """Answer the call if its place is scripted, else let it proceed."""
        if not self._is_mine(call):
            return await proceed()
        return await self.answer(
            call.path, call.primitive, call.input_data, call.context
        )

    def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        """Answer the call in chunks if its place is scripted, else let it proceed."""
        if not self._is_mine(call):
            return proceed()
        return self.answer_in_chunks(
            call.path, call.primitive, call.input_data, call.context
        )

    def _is_mine(self, call: Call) -> bool:
        """Tell whether a rule names the place; the own primitives answer themselves."""
        self._seen[path := call.path] = None
        if isinstance(call.primitive, _ScriptedPrimitive):
            return False
        return self._book.names(path, call.primitive)

    async def answer(
        self,
        path: str,
        primitive: WorkflowPrimitive[Any, Any],
        input_data: object,
        context: WorkflowContext,
    ) -> object:
        """Return what is scripted for a call.

        Args:
            path: Where the call is made.
            primitive: What is called there.
            input_data: Its input.
            context: Its context.

        Raises:
            UnexpectedCall: No rule answers it.
        """
        __tracebackhide__ = True
        call, rule = self._begin(path, primitive, input_data, context)
        return await rule.reply.value(self._asked(call))

    async def answer_in_chunks(
        self,
        path: str,
        primitive: WorkflowPrimitive[Any, Any],
        input_data: object,
        context: WorkflowContext,
    ) -> AsyncIterator[object]:
        """Yield what is scripted for a call that streams; as `answer` otherwise."""
        __tracebackhide__ = True
        call, rule = self._begin(path, primitive, input_data, context, is_stream=True)
        chunks: Any = rule.reply.chunks(self._asked(call))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _begin(
        self,
        path: str,
        primitive: WorkflowPrimitive[Any, Any],
        input_data: object,
        context: WorkflowContext,
        *,
        is_stream: bool = False,
    ) -> tuple[LLMCall, Rule]:
        __tracebackhide__ = True
        self._seen[path] = None
        self._counts[path] += 1
        number = self._counts[path]
        call = LLMCall.of(number, path, input_data, context, is_stream=is_stream)
        self._calls.append(call)
        rule = self._book.take(call, primitive)
        self._usage += rule.reply.usage or Usage()
        return call, rule

    def _asked(self, call: LLMCall) -> Asked:
        seed = f"{self._seed}/{call.path}/{call.number}"
        return Asked(call, random.Random(seed))  # noqa: S311 - repeatable on purpose


class _ScriptedPrimitive(WorkflowPrimitive[Any, Any]):
    """A place for the double to stand; it answers even where nobody listens.

    Args:
        double: What answers its calls.
    """

    def __init__(self, double: LLMDouble) -> None:
        self._double = double

    async def execute(self, input_data: Any, context: WorkflowContext, /) -> Any:  # noqa: ANN401 - any question, any answer
        __tracebackhide__ = True
        path = context.position_of(self).path
        return await self._double.answer(path, self, input_data, context)

    async def stream(
        self,
        input_data: Any,  # noqa: ANN401 - any question
        context: WorkflowContext,
        /,
    ) -> AsyncIterator[Any]:
        __tracebackhide__ = True
        path = context.position_of(self).path
        chunks: Any = self._double.answer_in_chunks(path, self, input_data, context)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        return ()


def _function(name: str, value: object) -> Callable[..., object]:
    if callable(value):
        return value
    msg = f"{name}={value!r} must be a function of the call"
    raise TypeError(msg)


def _written(method: str, first: object, options: Mapping[str, object]) -> str:
    """Return a call of a script's method as it was written."""
    shown = [] if first is None else [_shown(first)]
    shown += [f"{name}={_shown(value)}" for name, value in options.items()]
    return f".{method}({', '.join(shown)})"


def _delayed(delay: float | timedelta) -> dict[str, object]:
    return {"delay": delay} if delay else {}


def _shown(value: object) -> str:
    """Return a value as it is written: functions and classes by their names."""
    if isinstance(value, type) or callable(value):
        name = getattr(value, "__name__", shorten(value))
        return "lambda" if name == "<lambda>" else name
    return shorten(value)
