"""MockPrimitive: outcomes that are given, calls that are recorded."""

from __future__ import annotations

import asyncio

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.doubles import DoublesWatch, MockPrimitive, UnexpectedCall
from tta_primitives import WorkflowContext, step
from tta_primitives.door import listening


def run(workflow, input_data="in", context=None):
    """Execute a workflow in virtual time and return its output."""

    async def main():
        return await workflow.execute(input_data, context or WorkflowContext())

    return VirtualClock().run(main())


def stream(workflow, input_data="in"):
    """Stream a workflow in virtual time; return its chunks and how it ended."""

    async def main():
        chunks = []
        try:
            async for chunk in workflow.stream(input_data, WorkflowContext()):
                chunks += [chunk]
        except Exception as error:
            return chunks, error
        return chunks, None

    return VirtualClock().run(main())


def test_a_return_value_is_returned_by_every_call():
    """The very object that was given comes back, as often as it is asked for."""
    value = {"answer": 42}
    mock = MockPrimitive("llm", return_value=value)
    assert run(mock) is value
    assert run(mock) is value
    assert mock.call_count == 2


@pytest.mark.parametrize("value", [None, False, 0, "", []])
def test_an_empty_value_is_a_value(value):
    """None and its like are outcomes that were given."""
    assert run(MockPrimitive(return_value=value)) == value


def test_an_exception_is_raised_by_every_call():
    """An instance is raised itself, and its traceback does not grow."""
    error = ConnectionError("down")
    mock = MockPrimitive(side_effect=error)
    depths = []
    for _ in range(3):
        with pytest.raises(ConnectionError, match="down") as caught:
            run(mock)
        assert caught.value is error
        depths.append(len(caught.traceback))
    assert depths[0] == depths[2]


def test_a_class_of_exceptions_is_raised_new():
    """A class is made into an exception for each call."""
    with pytest.raises(TimeoutError, match=r"^$"):
        run(MockPrimitive(side_effect=TimeoutError))


async def doubled_later(value):
    await asyncio.sleep(1)
    return value * 2


@pytest.mark.parametrize(
    "function",
    [
        lambda value: value * 2,
        lambda value, context: value * 2 if context else None,
        doubled_later,
        lambda value, ctx: doubled_later(value),
    ],
)
def test_a_function_is_called_with_the_input(function):
    """Sync and async functions answer, with the context if they ask for it."""
    assert run(MockPrimitive(side_effect=function), 21) == 42


def test_a_list_has_an_outcome_for_each_call():
    """Exceptions are raised, functions called and values returned in turn."""
    mock = MockPrimitive(side_effect=[OSError("first"), "second", lambda x: f"{x}!"])
    with pytest.raises(OSError, match="first"):
        run(mock)
    assert run(mock) == "second"
    assert run(mock, "third") == "third!"


def test_one_call_too_many_is_unexpected():
    """The error says which call, which mock, where it was written and the input."""
    mock = MockPrimitive("llm", side_effect=["only"])
    run(mock)
    with pytest.raises(
        UnexpectedCall,
        match=r"(?s)call 2 of 'llm' was not expected: MockPrimitive\('llm', "
        r"side_effect=\['only'\]\), written in tests/doubles/test_mock\.py:\d+ .*"
        r"no more side effects.*input: 'again'",
    ):
        run(mock, "again")


def test_a_delay_takes_virtual_time():
    """A call takes its delay on the loop's clock, before the outcome."""

    async def main():
        clock = asyncio.get_running_loop()
        start = clock.time()
        with pytest.raises(OSError, match="down"):
            await MockPrimitive(side_effect=OSError("down"), delay=90).execute(
                1, WorkflowContext()
            )
        return clock.time() - start

    assert VirtualClock().run(main()) == 90.0


def test_chunks_are_streamed_and_joined():
    """The chunks come one by one from `stream` and as one text from `execute`."""
    mock = MockPrimitive(stream=["Hel", "lo"])
    assert stream(mock) == (["Hel", "lo"], None)
    assert run(mock) == "Hello"
    assert run(MockPrimitive(stream=[1, 2])) == [1, 2]


def test_an_exception_among_chunks_ends_the_stream():
    """A stream that breaks has given its first chunks."""
    error = ConnectionError("cut")
    assert stream(MockPrimitive(stream=["Hel", error, "lo"])) == (["Hel"], error)


async def two_chunks(value):
    yield value
    yield "!"


def test_an_async_generator_streams():
    """A generator as side effect streams; between others it takes its turn."""
    mock = MockPrimitive(side_effect=[OSError("down"), two_chunks, two_chunks, "end"])
    chunks, error = stream(mock, "Hi")
    assert (chunks, str(error)) == ([], "down")
    assert stream(mock, "Hi") == (["Hi", "!"], None)
    assert run(mock, "Hi") == "Hi!"
    assert stream(mock, "Hi") == (["end"], None)


def test_calls_are_recorded_with_where_and_when():
    """A record has input, path, time, ids and whether it was a stream."""
    mock = MockPrimitive("llm", return_value="out")

    async def main():
        await asyncio.sleep(2.5)
        context = WorkflowContext("corr-1", idempotency_key="order-7")
        await ((lambda x: x) >> mock).execute("question", context)
        return context.run_id, asyncio.get_running_loop().time()

    run_id, now = VirtualClock().run(main())
    call = mock.last_call
    assert (call.number, call.path, call.input) == (1, "sequential/llm", "question")
    assert (call.run_id, call.correlation_id) == (run_id, "corr-1")
    assert call.at == now
    assert call.idempotency_key == "order-7"
    assert call.is_stream is False


def test_h40_recorded_inputs_survive_mutation():
    """What the workflow does to an input later does not change the record."""
    question = {"messages": ["one"]}
    mock = MockPrimitive(return_value=None)
    run(mock, question)
    question["messages"].append("two")
    assert mock.calls.inputs == [{"messages": ["one"]}]


def test_an_input_that_cannot_be_copied_is_kept_as_its_picture():
    """A lock or a client does not fail the call; its repr is kept."""
    mock = MockPrimitive(return_value="ok")

    async def main():
        generator = (x for x in "ab")
        return await mock.execute(generator, WorkflowContext())

    assert VirtualClock().run(main()) == "ok"
    assert "<not copied: <generator object" in repr(mock.last_call.input)


def test_assertions_pass_when_they_hold():
    """Each helper is silent about what is so."""
    mock = MockPrimitive(return_value=None)
    mock.assert_not_called()
    run(mock, "a")
    mock.assert_called()
    mock.assert_called_once()
    mock.assert_called_once_with("a")
    run(mock, "b")
    mock.assert_called(2)
    mock.assert_called_with("b")
    mock.assert_inputs("a", "b")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda m: m.assert_not_called(), r"llm: expected 0 calls, and there were 2"),
        (lambda m: m.assert_called(3), r"llm: expected 3 calls, and there were 2"),
        (lambda m: m.assert_called_once(), r"llm: expected 1 calls"),
        (lambda m: m.assert_called_with("a"), r"llm: expected the last call with 'a'"),
        (lambda m: m.assert_called_once_with("b"), r"llm: expected one call with 'b'"),
        (lambda m: m.assert_inputs("b", "a"), r"llm: expected calls with 'b', 'a'"),
    ],
)
def test_a_failing_assertion_shows_the_calls(check, message):
    """The message has what was expected, and all calls with place, time and input."""
    mock = MockPrimitive("llm", return_value=None)
    run(mock, "a")
    run(mock, "b")
    shown = r"(?s).*\n  1\. llm at \S+ s: 'a'\n  2\. llm at \S+ s: 'b'$"
    with pytest.raises(AssertionError, match=message) as caught:
        check(mock)
    assert caught.match(shown)


def test_the_last_of_no_calls_fails():
    """Without a call there is nothing to look at."""
    mock = MockPrimitive("llm", return_value=None)
    with pytest.raises(AssertionError, match="expected a call, and there were no call"):
        _ = mock.last_call


def test_reset_forgets_calls_and_begins_the_list_again():
    """A mock of a wider scope can be used for one more test."""
    mock = MockPrimitive(side_effect=["a", "b"])
    assert (run(mock), run(mock)) == ("a", "b")
    mock.reset()
    assert mock.call_count == 0
    assert run(mock) == "a"


def helper(value):
    return value


@pytest.mark.parametrize(
    ("mock", "shown"),
    [
        (
            MockPrimitive("llm", return_value="Hi"),
            "MockPrimitive('llm', return_value='Hi')",
        ),
        (
            MockPrimitive("llm", side_effect=[OSError("x"), TimeoutError, helper, 3]),
            "MockPrimitive('llm', side_effect=[OSError('x'), TimeoutError, helper, 3])",
        ),
        (
            MockPrimitive(stream=["a", "b"], delay=0.5, idempotent=False),
            "MockPrimitive('mock', stream=['a', 'b'], delay=0.5, idempotent=False)",
        ),
    ],
)
def test_the_repr_can_be_pasted(mock, shown):
    """What a failing example prints makes the same mock again."""
    assert repr(mock) == shown
    assert repr(eval(shown)) == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs one of return_value, side_effect, stream, and nothing was given"),
        ({"return_value": 1, "stream": []}, r"stream, not return_value and stream"),
        ({"side_effect": 3}, r"side_effect=3 must be an exception, a function or a li"),
        ({"side_effect": lambda: 3}, r"cannot be a step: it has no first parameter"),
        ({"side_effect": [lambda: 3]}, r"cannot be a step: it has no first parameter"),
        (
            {"stream": "Hello"},
            r"stream='Hello' must be a list, such as \['Hel', 'lo'\]",
        ),
        ({"return_value": 1, "delay": "1"}, r"delay='1' must be a non-negative number"),
        ({"return_value": 1, "idempotent": 1}, r"idempotent=1 must be True or False"),
    ],
)
def test_wrong_kinds_fail_at_construction(options, message):
    """A mock that could not work is never made."""
    with pytest.raises(TypeError, match=message):
        MockPrimitive(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"return_value": 1, "delay": -1}, r"delay=-1 must be a non-negative number"),
        (
            {"side_effect": []},
            r"side_effect=\[\] must have an outcome for at least one",
        ),
        ({"return_value": 1, "name": "a/b"}, r"name='a/b' must be a non-empty text"),
    ],
)
def test_bad_values_fail_at_construction(options, message):
    """A mock that could not work is never made."""
    with pytest.raises(ValueError, match=message):
        MockPrimitive(**options)


def test_a_mock_composes_like_any_primitive():
    """It stands in chains and parallels under its name."""
    a = MockPrimitive("a", return_value=1)
    b = MockPrimitive("b", return_value=2)
    assert run(a | b) == (1, 2)
    assert [a.last_call.path, b.last_call.path] == ["parallel/a", "parallel/b"]
    assert a.describe()["options"] == {"return_value": 1}
    assert a.children() == ()


def test_the_watch_finds_unexpected_calls_that_were_swallowed():
    """A call too many fails the test although the workflow went on."""
    mock = MockPrimitive("llm", side_effect=["only"])

    async def careless(value, context):
        for _ in range(2):
            try:
                await mock.execute(value, context)
            except BaseException:
                return "swallowed"
        return None

    watch = DoublesWatch()
    with listening(observers=(watch,)):
        assert run(step(careless)) == "swallowed"
    assert len(watch.problems) == 1
    assert watch.verify()[0].startswith("call 2 of 'careless")


def test_the_watch_tells_each_unexpected_call_once():
    """However many calls it passes on its way out, in groups too, it is one problem."""
    a, b = (MockPrimitive(name, side_effect=["only"]) for name in "ab")
    workflow = (a | b) >> step(lambda x: x)
    watch = DoublesWatch()
    with listening(observers=(watch,)):
        run(workflow)
        with pytest.raises(BaseExceptionGroup, match=r"branches of .* failed"):
            run(workflow)
    assert [problem.split(" was")[0] for problem in watch.verify()] == [
        "call 2 of 'sequential/parallel/a'",
        "call 2 of 'sequential/parallel/b'",
    ]


def test_the_watch_finds_mocks_that_did_not_do_all():
    """What of a list was not used is told with the line that wrote it."""
    mock = MockPrimitive("llm", side_effect=["one", OSError("two")])
    watch = DoublesWatch()
    with listening(observers=(watch,)):
        run((lambda x: x) >> mock)
    (problem,) = watch.verify()
    assert problem.startswith("tests/doubles/test_mock.py:")
    assert problem.endswith("was called 1 of 2 times; unused: OSError('two')")
    with listening(observers=(watch,)), pytest.raises(OSError, match="two"):
        run((lambda x: x) >> mock)
    assert watch.verify() == []
