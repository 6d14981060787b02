"""The LLM double: replies by place and condition, in order, in virtual time."""

from __future__ import annotations

import asyncio
import json

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.doubles import LLMDouble, UnexpectedCall
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.door import listening
from tta_primitives.llm import LLMRequest, LLMResponse, Message, ToolCall, Usage
from tta_primitives.recovery import RetryPrimitive

INVOICE = {
    "type": "object",
    "properties": {"total": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["total"],
}


@pytest.fixture
def llm():
    """Make a double."""
    return LLMDouble()


def run(workflow, *inputs, llm=None):
    """Execute a workflow once per input; return the outputs and the seconds it took."""

    async def main():
        clock = asyncio.get_running_loop()
        start = clock.time()
        with listening(interceptors=(llm,) if llm else ()):
            outputs = [await workflow.execute(one, WorkflowContext()) for one in inputs]
        return outputs, clock.time() - start

    return VirtualClock().run(main())


def stream(workflow, input_data="in", *, llm=None):
    """Stream a workflow; return each chunk with its second, and how it ended."""

    async def main():
        clock = asyncio.get_running_loop()
        start = clock.time()
        chunks = []
        with listening(interceptors=(llm,) if llm else ()):
            try:
                async for chunk in workflow.stream(input_data, WorkflowContext()):
                    chunks += [(round(clock.time() - start, 9), chunk)]
            except Exception as error:
                return chunks, error
        return chunks, None

    return VirtualClock().run(main())


@step
async def ask(question):
    """Stand for production code that must not be reached."""
    raise AssertionError(f"the real model was asked {question!r}")


@step
async def judge(answer):
    """Stand for a second model."""
    raise AssertionError(f"the real judge was asked {answer!r}")


@step
async def tell(question):
    """Stand for production code that streams."""
    raise AssertionError(f"the real model was asked {question!r}")
    yield


@step
def upper(text):
    """Do something that no model does."""
    return text.upper()


# Where it answers


def test_its_own_primitive_is_answered(llm):
    """A workflow can be built around the double, listening or not."""
    llm.reply("Hello").times(2)
    workflow = llm.primitive("model") >> upper
    assert run(workflow, "Hi")[0] == ["HELLO"]
    assert run(workflow, "Hi", llm=llm)[0] == ["HELLO"]
    assert llm.calls.paths == ["sequential/model", "sequential/model"]
    assert llm.verify() == []


@pytest.mark.parametrize(
    "place",
    ["sequential/ask", "/sequential/ask", "ask", "*/ask", "a?k", "**/ask", ask],
)
def test_a_place_is_answered_without_touching_the_code(llm, place):
    """Whole paths, ends of paths, patterns and primitives name a place."""
    llm.at(place).reply("hi")
    assert run(ask >> upper, "Q", llm=llm)[0] == ["HI"]
    assert llm.verify() == []


def test_a_place_can_be_the_function_of_a_step(llm):
    """No path is needed where the function is at hand."""

    async def model(question):
        raise AssertionError(question)

    llm.at(model).reply("hi")
    assert run(step(model) >> upper, "Q", llm=llm)[0] == ["HI"]


def test_other_places_are_left_alone(llm):
    """A call that no rule names a place for proceeds."""
    llm.at("ask").reply("hi")
    llm.when(contains="hi").reply("never: no place").optional()
    assert run(ask >> upper, "Q", llm=llm)[0] == ["HI"]


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("", ValueError, r"place='' must be labels joined by slashes"),
        ("a//b", ValueError, r"place='a//b' must be labels joined by slashes"),
        (3, TypeError, r"3 is no place in a workflow; give a path such as 'retry/llm'"),
    ],
)
def test_what_is_no_place_is_refused(llm, place, error, message):
    """A place that could never be reached fails where it is written."""
    with pytest.raises(error, match=message):
        llm.at(place)


# Which rule answers


def test_h34_rules_answer_once_each_in_order(llm):
    """Two rules of one place answer the first and the second call."""
    llm.at("ask").reply("one")
    llm.at("ask").reply("two")
    assert run(ask, 1, 2, llm=llm)[0] == ["one", "two"]
    assert llm.verify() == []


def test_h34_the_most_specific_place_answers_first(llm):
    """A whole path before the end of one, before a pattern, before no place at all."""
    model = llm.primitive("model")
    llm.reply("anywhere")
    llm.at("*/model").reply("pattern")
    llm.at("model").reply("end")
    llm.at("sequential/model").reply("path")
    answers = run(model >> upper, *"abcd", llm=llm)[0]
    assert answers == ["PATH", "END", "PATTERN", "ANYWHERE"]


def test_h34_a_primitive_is_as_exact_as_its_whole_path(llm):
    """Naming the object beats the end of a path, and ties are broken by labels."""
    model = llm.primitive("model")
    llm.at("model").reply("end")
    llm.at(model).reply("object")
    llm.at("sequential/model").reply("path")
    assert run(model >> upper, *"abc", llm=llm)[0] == ["PATH", "OBJECT", "END"]


def test_h34_more_conditions_answer_first(llm):
    """At one place a condition beats none, whatever was written first."""
    llm.at("ask").reply("usual").always()
    llm.at("ask").when(contains="refund").reply("refund").always()
    llm.at("ask").when(lambda call: call.number > 2, contains="refund").reply("third")
    answers = run(ask, "hi", "a refund", "my refund", "refund!", "bye", llm=llm)[0]
    assert answers == ["usual", "refund", "third", "refund", "usual"]


def test_h34_times_and_always_lift_the_limit(llm):
    """A rule answers once, so many times, or any number of times."""
    llm.at("ask").reply("twice").times(2)
    llm.at("ask").reply("then").always()
    assert run(ask, *range(4), llm=llm)[0] == ["twice", "twice", "then", "then"]
    assert llm.verify() == []


@pytest.mark.parametrize("count", [0, -1, True, 1.5])
def test_times_needs_a_count(llm, count):
    """A rule for no call is a mistake."""
    with pytest.raises(ValueError, match=rf"count={count!r} must be a whole number"):
        llm.reply("hi").times(count)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("I want a refund", "text"),
        ({"messages": [{"role": "user", "content": "a refund"}]}, "text"),
        ([Message("system", "refund nothing"), Message("user", "Hi")], "text"),
        ({"topic": "refund"}, "text"),
        ({"exactly": 1}, "input"),
        (42, "number"),
    ],
)
def test_conditions_look_at_text_input_and_call(llm, value, answer):
    """Text is found in requests of every form; inputs compare by ==."""
    llm.at("ask").when(contains="refund").reply("text").optional()
    llm.at("ask").when(input={"exactly": 1}).reply("input").optional()
    llm.at("ask").when(lambda call: call.input == 42).reply("number").optional()
    assert run(ask, value, llm=llm)[0] == [answer]


def test_conditions_add_up(llm):
    """A rule written under two conditions needs both."""
    llm.at("ask").when(contains="a").when(contains="b").reply("both")
    llm.at("ask").reply("not both")
    assert run(ask, "a", "ab", llm=llm)[0] == ["not both", "both"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"when\(\) needs a condition: a function, contains= or input="),
        ({"holds": "refund"}, r"holds='refund' must be a function of the call"),
    ],
)
def test_a_condition_that_is_none_is_refused(llm, options, message):
    """`when` without a condition would hold always."""
    with pytest.raises(TypeError, match=message):
        llm.when(**options)


# What was not foreseen


def test_h34_errors_quote_the_file_and_line_of_the_script(llm):
    """An unexpected call shows the nearest rules with why they did not answer."""
    llm.at("ask").reply("hi")
    llm.at("ask").when(contains="refund", input="x").reply("no")
    with pytest.raises(UnexpectedCall, match="was not scripted") as caught:
        run(ask, "Hello", "parcel?", llm=llm)
    lines = str(caught.value).splitlines()
    here = r"tests/doubles/test_llm.py:"
    assert lines[0].startswith("call 2 of 'ask' was not scripted (at ")
    assert lines[1] == "  input: 'parcel?'"
    assert lines[2].startswith(f"  near: {here}")
    assert lines[2].endswith(": llm.at('ask').reply('hi')")
    assert lines[3] == "        but it was used up by 1 call"
    assert lines[4].endswith(
        ": llm.at('ask').when(contains='refund', input='x').reply('no')"
    )
    assert lines[5] == (
        "        but the text does not contain 'refund' and the input is not 'x'"
    )
    number = int(lines[2].split(":")[2].split()[0])
    assert number < int(lines[4].split(":")[2].split()[0])


def test_an_unexpected_call_without_any_rule_says_what_to_write(llm):
    """The first thing a newcomer sees tells the next step."""
    with pytest.raises(
        UnexpectedCall, match=r"nothing is scripted; write for instance llm\.reply"
    ):
        run(llm.primitive(), "Hi")


def test_an_unexpected_call_shows_where_the_rules_are(llm):
    """Rules for other places are named, in case the place was misspelt."""
    llm.at("modell").reply("hi")
    with pytest.raises(
        UnexpectedCall,
        match=r"(?s)no rule names this place; there are rules for:.*at\('modell'\)",
    ):
        run(llm.primitive("model"), "Hi", llm=llm)


def test_a_condition_that_raises_is_told_as_such(llm):
    """A bug in the test's own function is not taken for a failing model."""
    llm.at("ask").when(lambda call: call.input["missing"]).reply("hi")
    with pytest.raises(
        UnexpectedCall, match=r"the condition lambda raised KeyError\('missing'\)"
    ) as caught:
        run(ask, {}, llm=llm)
    assert isinstance(caught.value.__cause__, KeyError)


@step
async def careless(question, context):
    """Swallow every error, as an SDK does."""
    try:
        return await ask.execute(question, context)
    except Exception as error:
        return f"swallowed {error!r}"


def test_h35_an_unexpected_call_passes_every_except_exception(llm):
    """Neither a careless step nor anything else takes it for a failure."""
    llm.at("ask").reply("once")
    with pytest.raises(UnexpectedCall, match=r"call 2 of 'careless/ask'"):
        run(careless, 1, 2, llm=llm)


async def gathered(llm, context):
    """Gather a call that is scripted with one that is not."""
    model = llm.primitive()
    return await asyncio.gather(
        model.execute("a", context), model.execute("b", context), return_exceptions=True
    )


async def grouped(llm, context):
    """Run both in a TaskGroup."""
    model = llm.primitive()
    async with asyncio.TaskGroup() as group:
        group.create_task(model.execute("a", context))
        group.create_task(model.execute("b", context))


async def in_tasks(llm, context):
    """Run both in tasks of their own."""
    model = llm.primitive()
    first = asyncio.create_task(model.execute("a", context))
    second = asyncio.create_task(model.execute("b", context))
    return await first, await second


def virtually(function, llm):
    """Run one of the above in virtual time."""

    async def main():
        return await function(llm, WorkflowContext())

    return VirtualClock().run(main())


def test_h35_gather_cannot_hide_an_unexpected_call(llm):
    """It becomes a result there, does not stop the loop, and still fails the test."""
    llm.reply("once")
    first, second = virtually(gathered, llm)
    assert first == "once"
    assert isinstance(second, UnexpectedCall)
    assert llm.problems == [second]
    (problem,) = llm.verify()
    assert problem.startswith("call 2 of 'llm' was not scripted")


def test_h35_a_task_group_raises_an_unexpected_call(llm):
    """A TaskGroup cancels the others and raises it in a group."""
    llm.reply("once")
    with pytest.raises(
        BaseExceptionGroup, match="unhandled errors in a TaskGroup"
    ) as caught:
        virtually(grouped, llm)
    assert caught.value.exceptions == (llm.problems[0],)
    assert not isinstance(caught.value, ExceptionGroup)


def test_h35_a_task_carries_an_unexpected_call_to_who_awaits_it(llm):
    """The loop goes on; the error is raised where the task is awaited."""
    llm.reply("once")
    with pytest.raises(UnexpectedCall, match=r"call 2 of 'llm'") as caught:
        virtually(in_tasks, llm)
    assert llm.problems == [caught.value]


def test_h35_parallel_branches_raise_an_unexpected_call_itself(llm):
    """As a sole failure it is not wrapped."""
    llm.at("b").reply("fine")
    workflow = llm.primitive("a") | llm.primitive("b")
    with pytest.raises(UnexpectedCall, match=r"call 1 of 'parallel/a'"):
        run(workflow, "Q", llm=llm)


# What was not used


def unused(llm, workflow, *inputs):
    """Return what `verify` says after some calls, without the place of the script."""
    run(workflow, *inputs, llm=llm)
    return [problem.partition(": ")[2] for problem in llm.verify()]


def test_an_unused_rule_is_told_with_its_line(llm):
    """What was scripted and never used fails the test."""
    llm.at("ask").reply("a")
    llm.at("ask").reply("b")
    run(ask, 1, llm=llm)
    (problem,) = llm.verify()
    assert problem.startswith("tests/doubles/test_llm.py:")
    assert problem.endswith("llm.at('ask').reply('b') was never used: " + LEFT)


LEFT = "no call was left for it"


def test_a_rule_for_an_unknown_place_is_told_with_the_nearest(llm):
    """A misspelt place shows the paths that there are."""
    llm.at("aks").reply("a").optional()
    llm.at("uper").reply("a")
    llm.at("ask").reply("b")
    (problem,) = unused(llm, ask >> upper, "Q")
    assert problem == (
        "llm.at('uper').reply('a') was never used: no call came there; "
        "nearest: 'sequential/upper'"
    )


def test_a_rule_whose_condition_never_held_says_why(llm):
    """The reason of the last call that was considered is shown."""
    llm.at("ask").when(contains="refund").reply("a")
    llm.at("ask").reply("b")
    (problem,) = unused(llm, ask, "hi")
    assert problem == (
        "llm.at('ask').when(contains='refund').reply('a') was never used: "
        "the text does not contain 'refund'"
    )


@pytest.mark.parametrize(
    ("often", "calls", "expected"),
    [
        (
            lambda rule: rule.times(3),
            2,
            ["answered 2 of 3 calls: no call was left for it"],
        ),
        (lambda rule: rule.times(3).optional(), 2, []),
        (lambda rule: rule.always(), 0, ["was never used"]),
        (lambda rule: rule.always().optional(), 0, []),
        (lambda rule: rule, 1, []),
    ],
)
def test_how_often_a_rule_must_be_used(llm, often, calls, expected):
    """`times(n)` expects n calls, `always()` at least one, `optional()` none."""
    often(llm.reply("a"))
    found = unused(llm, llm.primitive(), *range(calls))
    assert len(found) == len(expected)
    assert all(text in problem for text, problem in zip(expected, found, strict=True))


def test_a_rule_of_a_double_that_nobody_asked_says_so(llm):
    """Without any call the workflow was not run, or the double not listening."""
    llm.reply("a")
    assert llm.verify()[0].endswith(
        "was never used: no workflow was run while the double was listening"
    )


# What it answers


def test_plain_text_is_text(llm):
    """A step that returns text gets text."""
    llm.reply("Hello")
    assert run(llm.primitive(), "Hi")[0] == ["Hello"]


@pytest.mark.parametrize(
    ("options", "response"),
    [
        ({"response": True}, LLMResponse("Hi")),
        ({"finish_reason": "length"}, LLMResponse("Hi", finish_reason="length")),
        ({"usage": Usage(3, 4)}, LLMResponse("Hi", usage=Usage(3, 4))),
        (
            {"tool_calls": [ToolCall("f", {"a": 1})]},
            LLMResponse("Hi", (ToolCall("f", {"a": 1}),), "tool_calls"),
        ),
    ],
)
def test_what_text_cannot_carry_makes_a_response(llm, options, response):
    """Tool calls, usage and finish reasons come in an `LLMResponse`."""
    llm.reply("Hi", **options)
    assert run(llm.primitive(), "Q")[0] == [response]


def test_a_tool_can_be_asked_for_in_one_word(llm):
    """`calls_tool` is a response that asks for one tool."""
    llm.calls_tool("get_weather", city="Paris")
    (answer,) = run(llm.primitive(), "Q")[0]
    call = ToolCall("get_weather", {"city": "Paris"}, id="call_1")
    assert answer == LLMResponse(tool_calls=(call,), finish_reason="tool_calls")


@pytest.mark.parametrize("value", [None, 0, {"a": [1]}, object()])
def test_any_value_can_be_returned(llm, value):
    """`returns` gives the very object."""
    llm.returns(value)
    assert run(llm.primitive(), "Q")[0][0] is value


def test_an_error_can_be_the_reply(llm):
    """An instance is raised itself, a class is made into an error."""
    error = ConnectionError("down")
    llm.raises(error)
    llm.raises(TimeoutError)
    with pytest.raises(ConnectionError, match="down") as caught:
        run(llm.primitive(), "Q")
    assert caught.value is error
    with pytest.raises(TimeoutError, match=r"^$"):
        run(llm.primitive(), "Q")


@pytest.mark.parametrize(
    "function",
    [
        lambda call: f"echo {call.text}",
        lambda call: asyncio.sleep(2, f"echo {call.text}"),
    ],
)
def test_a_function_can_answer(llm, function):
    """What a function makes of the call is awaited if need be."""
    llm.answers(function).always()
    assert run(llm.primitive(), "a", "b")[0] == ["echo a", "echo b"]


@pytest.mark.parametrize(
    "write",
    [
        lambda llm: llm.reply("ok", delay=3600),
        lambda llm: llm.returns("ok", delay=3600),
        lambda llm: llm.answers(lambda _: "ok", delay=3600),
        lambda llm: llm.generates({"const": "ok"}, delay=3600),
        lambda llm: llm.reply(stream="ok", delay=3600),
    ],
)
def test_a_delay_is_exact_virtual_time(llm, write):
    """An hour of thinking takes an hour on the clock, before every kind of reply."""
    write(llm)
    assert run(llm.primitive(), "Q") == (["ok"], 3600.0)


def test_a_delayed_error_is_raised_after_the_delay(llm):
    """A failing model takes its time too."""
    llm.raises(OSError("down"), delay=5)

    @step
    async def measured(question, context):
        start = asyncio.get_running_loop().time()
        with pytest.raises(OSError, match="down"):
            await llm.primitive().execute(question, context)
        return asyncio.get_running_loop().time() - start

    assert run(measured, "Q")[0] == [5.0]


# Streams


def test_tokens_come_at_their_virtual_times(llm):
    """The first after its delay, the others at the model's speed."""
    llm.reply(stream="Hello big world", first_token_after=0.4, tokens_per_second=50)
    assert stream(llm.primitive()) == (
        [(0.4, "Hello "), (0.42, "big "), (0.44, "world")],
        None,
    )


def test_chunks_can_have_explicit_times(llm):
    """Pairs of seconds and chunks say everything, also where the stream breaks."""
    error = ConnectionError("cut")
    llm.reply(stream=[(0.5, "Hel"), (0.5, "lo"), (3.0, error), (4.0, "never")])
    assert stream(llm.primitive()) == ([(0.5, "Hel"), (0.5, "lo")], error)


def test_a_stream_is_joined_when_it_is_executed(llm):
    """`execute` waits for the last token and returns the whole text."""
    llm.reply(stream="Hello world", first_token_after=1, tokens_per_second=2)
    assert run(llm.primitive(), "Q") == (["Hello world"], 1.5)


def test_a_stream_may_carry_a_response(llm):
    """With usage, `execute` returns a response and `stream` still yields text."""
    llm.reply(stream="Hello world", usage=Usage(1, 2)).times(2)
    expected = LLMResponse("Hello world", usage=Usage(1, 2))
    assert run(llm.primitive(), "Q")[0] == [expected]
    assert stream(llm.primitive())[0] == [(0.0, "Hello "), (0.0, "world")]


def test_a_slow_reader_does_not_slow_the_model(llm):
    """Tokens that came meanwhile are there at once."""
    llm.reply(stream=[(1, "a"), (2, "b"), (10, "c")])

    async def main():
        clock = asyncio.get_running_loop()
        start = clock.time()
        times = []
        async for chunk in llm.primitive().stream("Q", WorkflowContext()):
            times += [(chunk, clock.time() - start)]
            await asyncio.sleep(5)
        return times

    assert VirtualClock().run(main()) == [("a", 1.0), ("b", 6.0), ("c", 11.0)]


def test_a_scripted_place_streams_inside_a_chain(llm):
    """The last leaf of a chain streams what is scripted for it."""
    llm.at("tell").reply(stream="Hello world", first_token_after=0.5)
    assert stream(upper >> tell, "q", llm=llm) == (
        [(0.5, "Hello "), (0.5, "world")],
        None,
    )
    assert llm.calls.once.is_stream


def test_a_place_that_cannot_stream_yields_the_joined_text(llm):
    """A step that is no generator gets the whole text when its last token has come."""
    llm.at("ask").reply(stream="Hello world", tokens_per_second=2)
    assert stream(ask, "q", llm=llm) == ([(0.5, "Hello world")], None)


@pytest.mark.parametrize(
    "write",
    [lambda llm: llm.reply("Hi"), lambda llm: llm.reply("Hi", response=True)],
)
def test_a_reply_that_is_no_stream_comes_in_one_chunk(llm, write):
    """Whoever streams gets the text of the whole answer at once."""
    write(llm)
    assert stream(llm.primitive()) == ([(0.0, "Hi")], None)


def test_an_unexpected_stream_is_an_unexpected_call(llm):
    """Streams are as strict as calls."""
    with pytest.raises(UnexpectedCall, match=r"call 1 of 'llm' was not scripted"):
        stream(llm.primitive())


def test_blanks_between_tokens_are_kept():
    """Joined tokens are the text itself."""
    double = LLMDouble()
    double.reply(stream="  Two  blanks\nand a line ")
    chunks = [chunk for _, chunk in stream(double.primitive())[0]]
    assert chunks == ["  ", "Two  ", "blanks\n", "and ", "a ", "line "]


# Data


def test_data_are_valid_against_a_schema(llm):
    """A JSON schema gives plain data, another for each call."""
    llm.generates(INVOICE).always()
    answers = run(llm.primitive(), *range(20))[0]
    assert all(1 <= one["total"] <= 9 for one in answers)
    assert len({one["total"] for one in answers}) > 1


def test_data_repeat_with_the_seed_and_whatever_runs_beside():
    """A call's data depend on seed, path and number, not on the order of calls."""

    def answers(seed, order):
        double = LLMDouble(seed=seed)
        double.generates({"type": "string"}).always()
        run(double.primitive("a") | double.primitive("b"), "Q")
        found = {}
        for name in order:
            found[name] = run(double.primitive(name), "Q")[0][0]
        return found

    assert answers(1, "ab") == answers(1, "ba")
    assert answers(1, "ab") != answers(2, "ab")


def test_a_pydantic_model_gives_an_object(llm):
    """The model's own validation has the last word."""
    pydantic = pytest.importorskip("pydantic")

    class Invoice(pydantic.BaseModel):
        number: str = pydantic.Field(pattern=r"^INV-\d{4}$")
        total: int = pydantic.Field(ge=1, le=9)

    llm.generates(Invoice)
    llm.generates(Invoice, as_text=True)
    made, text = run(llm.primitive(), 1, 2)[0]
    assert isinstance(made, Invoice)
    assert set(json.loads(text)) == {"number", "total"}


def test_the_schema_may_be_that_of_the_request(llm):
    """Without a schema of its own the reply follows the request's."""
    llm.generates().times(2)
    request = LLMRequest.of({"messages": [Message("user", "Q")], "schema": INVOICE})
    (answer,) = run(llm.primitive(), request)[0]
    assert list(answer) == ["total"]
    with pytest.raises(TypeError, match=r"needs a request that has one"):
        run(llm.primitive(), "no schema")


# Records


def test_calls_are_recorded_with_their_requests(llm):
    """Each call has its place, input, request, number and time."""
    llm.at("ask").reply("a", delay=2).times(2)
    run(ask, "one", {"messages": [{"role": "user", "content": "two"}]}, llm=llm)
    first, second = llm.calls
    assert (first.number, first.path, first.input) == (1, "ask", "one")
    assert (second.number, second.text) == (2, "two")
    assert second.request.last_user == "two"
    assert second.at - first.at == 2.0
    assert llm.calls.at("ask").inputs[0] == "one"


def test_the_idempotency_key_is_recorded_where_the_step_could_see_it(llm):
    """It is the same for all attempts; a step that gets no context has none."""
    llm.at("ask").reply("a").times(2)
    llm.raises(OSError).times(2)
    workflow = RetryPrimitive(ask >> llm.primitive(), max_retries=1)
    with pytest.raises(OSError, match="gave up after 2 attempts"):
        run(workflow, "Q", llm=llm)
    keys = [call.idempotency_key for call in llm.calls]
    assert keys == [None, keys[1], None, keys[1]]
    assert len(keys[1]) == 32


def test_h40_recorded_requests_survive_mutation(llm):
    """A conversation that grows later does not change the record."""
    conversation = [{"role": "user", "content": "one"}]
    llm.reply("a")
    run(llm.primitive(), conversation)
    conversation.append({"role": "user", "content": "two"})
    assert llm.calls.once.text == "one"


def test_looking_for_calls_that_were_not_there_fails(llm):
    """A helper that cannot decide fails with what there is, and never passes."""
    llm.reply("a").times(2)
    run(llm.primitive(), 1, 2)
    with pytest.raises(AssertionError, match=r"no call at 'lm'; there were 2 calls:"):
        llm.calls.at("lm")
    with pytest.raises(AssertionError, match=r"expected one call, and there were 2"):
        _ = llm.calls.once


def test_usage_is_added_up(llm):
    """The tokens of all replies that were given, and of no others."""
    llm.reply("a", usage=Usage(10, 5))
    llm.reply(stream="b c", usage=Usage(1, 2))
    llm.reply("c")
    llm.reply("never", usage=Usage(100, 100)).optional()
    run(llm.primitive(), 1, 2, 3)
    assert llm.usage == Usage(11, 7)


# What cannot be written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"reply\(\) needs text, stream= or tool_calls="),
        ({"text": "a", "stream": "b"}, r"either text or stream=, not both"),
        ({"text": 3}, r"text=3 must be text; to return any value, write \.returns"),
        ({"text": "a", "tool_calls": ["f"]}, r"tool_calls: 'f' must be a ToolCall"),
        ({"text": "a", "tokens_per_second": 5}, r"pace a stream; give stream="),
        ({"text": "a", "first_token_after": 5}, r"pace a stream; give stream="),
        ({"stream": [(0, "a")], "tokens_per_second": 5}, r"have their own times"),
        ({"stream": ["a"]}, r"stream: 'a' must be a pair \(seconds, chunk\)"),
        ({"text": "a", "delay": "1"}, r"delay='1' must be a non-negative number"),
    ],
)
def test_replies_of_the_wrong_kind_fail_where_they_are_written(llm, options, message):
    """A script that makes no sense never waits for the workflow to find out."""
    with pytest.raises(TypeError, match=message):
        llm.reply(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "a", "delay": -1}, r"delay=-1 must be a non-negative number"),
        (
            {"text": "a", "finish_reason": "done"},
            r"finish_reason='done' must be",
        ),
        (
            {"stream": "a", "tokens_per_second": 0},
            r"tokens_per_second=0 must be a",
        ),
        ({"stream": [(2, "a"), (1, "b")]}, r"\(1, 'b'\) stands after \(2.0, 'a'\)"),
        ({"stream": [(-1, "a")]}, r"stream: the time=-1 must be a non-negative number"),
    ],
)
def test_replies_out_of_range_fail_where_they_are_written(llm, options, message):
    """Durations, rates and reasons are checked at once."""
    with pytest.raises(ValueError, match=message):
        llm.reply(**options)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (
            lambda llm: llm.raises("down"),
            TypeError,
            r"error='down' must be an ex",
        ),
        (lambda llm: llm.answers("hi"), TypeError, r"function='hi' must be a function"),
        (lambda llm: llm.generates(int), TypeError, r"neither a JSON schema nor a pyd"),
        (
            lambda llm: llm.generates({"not": {}}),
            ValueError,
            r"'not' are not supp",
        ),
    ],
)
def test_other_replies_fail_where_they_are_written_too(llm, write, error, message):
    """So do errors, functions and schemas."""
    with pytest.raises(error, match=message):
        write(llm)


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        (lambda llm: llm.reply("Hi"), "llm.reply('Hi')"),
        (
            lambda llm: llm.at("a").reply(stream="Hi", first_token_after=0.4).always(),
            "llm.at('a').reply(stream='Hi', first_token_after=0.4).always()",
        ),
        (lambda llm: llm.returns(None), "llm.returns(None)"),
        (lambda llm: llm.returns(1, delay=2), "llm.returns(1, delay=2)"),
        (
            lambda llm: llm.raises(TimeoutError, delay=1).times(2).optional(),
            "llm.raises(TimeoutError, delay=1).times(2).optional()",
        ),
        (
            lambda llm: llm.generates(INVOICE, as_text=True),
            f"llm.generates({INVOICE!r}, as_text=True)",
        ),
        (lambda llm: llm.calls_tool("f", n=None), "llm.calls_tool('f', n=None)"),
    ],
)
def test_rules_are_shown_as_they_were_written(llm, write, shown):
    """The repr of a rule can be pasted."""
    assert repr(write(llm)) == shown


def test_the_double_shows_how_much_it_holds(llm):
    """Its repr has the numbers of rules and calls."""
    llm.reply("a")
    run(llm.primitive(), "Q")
    assert repr(llm) == "<LLMDouble rules=1 calls=1>"


def test_its_primitive_is_a_primitive_like_others(llm):
    """It is named, a leaf, and typed as a workflow primitive."""
    model = llm.primitive("model")
    assert isinstance(model, WorkflowPrimitive)
    assert (model.name, model.children()) == ("model", ())
    with pytest.raises(ValueError, match="name='a/b' must be a non-empty text"):
        llm.primitive("a/b")


def test_the_double_itself_is_no_step_and_says_what_is(llm):
    """Whoever passes the double where a model goes is told of primitive()."""
    wanted = (
        r"^<LLMDouble rules=0 calls=0> cannot be a step of a workflow; use what its "
        r"method primitive\(\) returns$"
    )
    with pytest.raises(TypeError, match=wanted):
        RetryPrimitive(llm)
