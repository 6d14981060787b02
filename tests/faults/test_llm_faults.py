"""Faults of language models: at primitives, as bytes on the wire, and as data."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from datetime import timedelta

import pytest

from pytest_tta import Harness
from pytest_tta import faults as catalogue
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.errors import ClockDeadlock
from pytest_tta.faults import (
    LLM_FAULTS,
    FaultInjector,
    FaultPlan,
    FaultRule,
    LLMStatusError,
    bad_event,
    bad_gateway_html,
    bad_request,
    bad_utf8,
    connect_refused,
    content_filter,
    context_length,
    cut_event,
    dns,
    empty_choices,
    error_event,
    first,
    html_200,
    keepalives,
    length,
    malformed_json,
    no_finish,
    no_headers,
    nth,
    overloaded,
    pause_turn,
    prose_instead_of_json,
    quota_exceeded,
    rate_limit,
    refusal,
    reset,
    server_error,
    slow_connect,
    slow_first_token,
    spend_limit,
    split_bytes,
    stall,
    stream_cut,
    tool_args,
    wrong_schema,
)
from pytest_tta.faults.llm_base import Raises
from tests.faults.llm_faults import EVERY, any_of
from tta_primitives import StepPrimitive, WorkflowContext
from tta_primitives.door import listening
from tta_primitives.llm import LLMResponse, ToolCall
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive
from tta_primitives.recovery.classify import is_retryable
from tta_primitives.recovery.hints import header, retry_after, status

TEXT = "one two three four"
ANSWER = LLMResponse(TEXT, model="m")
CALLS = LLMResponse("", (ToolCall("get", {"city": "Paris"}),), "tool_calls")


class Model:
    """A step that answers, as a whole or in words, one each second."""

    __name__ = "llm"

    def __init__(self, answer=ANSWER):
        self.answer = answer
        self.calls = 0

    async def __call__(self, question):
        self.calls += 1
        return self.answer


async def words(question):
    """Stream the words of the answer."""
    for word in ("one ", "two ", "three ", "four"):
        yield word


def struck(fault, answer=ANSWER, *, schedule=None, wrap=lambda step: step):
    """Execute a step that a fault strikes; return the output, the model, the faults."""
    faults = FaultInjector()
    faults.at("llm").inject(fault, when=schedule)
    model = Model(answer)

    async def main():
        step = wrap(StepPrimitive(model, name="llm"))
        return await step.execute("q", WorkflowContext())

    with listening(interceptors=(faults,)):
        return VirtualClock().run(main()), model, faults


def streamed(fault, answer=words):
    """Stream a step that a fault strikes; return the chunks and what was raised."""
    faults = FaultInjector()
    faults.at("llm").inject(fault)
    chunks = []

    async def main():
        step = StepPrimitive(answer, name="llm")
        try:
            async for chunk in step.stream("q", WorkflowContext()):
                chunks.append(chunk)  # noqa: PERF401 - what came before an error counts
        except Exception as error:
            return error
        return None

    with listening(interceptors=(faults,)):
        return chunks, VirtualClock().run(main())


VARIANTS = [
    rate_limit(after=30),
    rate_limit(after=0.5, after_ms=1500, should_retry=True, message="slow down"),
    rate_limit(after="soon"),
    rate_limit(date=30),
    overloaded(in_stream=True, after_tokens=3),
    server_error(503),
    bad_gateway_html(520),
    content_filter("prompt"),
    context_length("answer", after_tokens=2),
    refusal("cyber", text="No."),
    tool_args("name"),
    stream_cut(7, "reset"),
    cut_event(at="blank_line"),
    error_event("overloaded", message="full"),
    slow_first_token(8),
    split_bytes(3),
]


@pytest.mark.parametrize("fault", [*EVERY, *VARIANTS], ids=repr)
def test_fault_prints_as_what_makes_an_equal_one(fault) -> None:
    """What a failure prints can be pasted, and means the same."""
    again = eval(repr(fault), vars(catalogue))
    assert again == fault
    assert hash(again) == hash(fault)
    assert again.expect == fault.expect


@pytest.mark.parametrize("fault", [*EVERY, *VARIANTS], ids=repr)
def test_plan_with_it_goes_to_json_and_back(fault) -> None:
    """A plan keeps all arguments."""
    plan = FaultPlan(FaultRule("llm", fault, nth(2)))
    again = FaultPlan.from_plain(json.loads(json.dumps(plan.to_plain())))
    assert again == plan
    assert repr(again) == repr(plan)


def test_faults_with_other_arguments_are_not_equal() -> None:
    """Neither are other faults, nor numbers and truths that Python takes for equal."""
    assert rate_limit(after=30) != rate_limit(after=31)
    assert rate_limit() != overloaded()
    assert rate_limit(after=1) != catalogue.hang()
    assert repr(rate_limit(after=30)) == "rate_limit(after=30)"


def test_every_fault_is_exported() -> None:
    """The catalogue and the face of the package hold the same functions."""
    for name, maker in LLM_FAULTS.items():
        assert getattr(catalogue, name) is maker
        assert name in catalogue.__all__
        assert any_of(maker).name == name


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: rate_limit(after=30, date=30), ValueError, "give after= for seconds"),
        (lambda: rate_limit(after=[]), TypeError, r"after=\[\] must be a number"),
        (lambda: rate_limit(after=True), TypeError, "after=True must be a number"),
        (lambda: rate_limit(after_ms=()), TypeError, r"after_ms=\(\) must be"),
        (lambda: rate_limit(date=-1), ValueError, "date=-1 must be a non-negative"),
        (lambda: rate_limit(message=3), TypeError, "message=3 must be a text"),
        (lambda: quota_exceeded(should_retry=1), TypeError, "should_retry=1 must be"),
        (lambda: server_error(429), ValueError, "status=429 must be that of a server"),
        (lambda: server_error(500.0), ValueError, "status=500.0 must be that"),
        (lambda: bad_gateway_html(200), ValueError, "from 500 to 599"),
        (lambda: overloaded(in_stream="yes"), TypeError, "in_stream='yes' must be"),
        (lambda: error_event("dns"), ValueError, "kind='dns' must be one of"),
        (lambda: length(-1), ValueError, "after_tokens=-1 must be a whole number"),
        (lambda: content_filter("both"), ValueError, "where='both' must be one of"),
        (lambda: context_length("both"), ValueError, "where='both' must be one of"),
        (lambda: refusal(3), TypeError, "category=3 must be a text"),
        (lambda: refusal(text=None), TypeError, "text=None must be a text"),
        (lambda: tool_args("xml"), ValueError, "bad='xml' must be one of 'json'"),
        (lambda: stream_cut(1, "fin"), ValueError, "how='fin' must be one of 'closed'"),
        (lambda: stream_cut(1.5), ValueError, "after_tokens=1.5 must be a whole"),
        (lambda: cut_event(at="end"), ValueError, "at='end' must be one of"),
        (lambda: stall("x"), ValueError, "after_tokens='x' must be a whole"),
        (lambda: slow_first_token(0), ValueError, "seconds=0 must be a positive"),
        (lambda: keepalives(0), ValueError, "every=0 must be a whole number"),
        (lambda: split_bytes(-1), ValueError, "seed=-1 must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_written(make, error, words) -> None:
    """The message names the argument, shows it, and says what is allowed."""
    with pytest.raises(error, match=words):
        make()


def raised(fault):
    """Return what a step that a fault strikes raises."""
    try:
        struck(fault)
    except Exception as error:
        return error
    raise AssertionError(fault)


def test_status_error_says_what_an_sdk_would_say() -> None:
    """Status, headers and body are where the runtime looks for them."""
    error = raised(rate_limit(after=30, should_retry=True))
    assert isinstance(error, LLMStatusError)
    assert (error.status_code, status(error), retry_after(error)) == (429, 429, 30)
    assert header(error, "x-should-retry") == "true"
    assert error.body["error"]["code"] == "rate_limit_exceeded"
    assert str(error) == "429: Too many requests."


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (rate_limit(after=30), 30),
        (rate_limit(after=timedelta(minutes=1)), 60),
        (rate_limit(after=2, after_ms=1500), 1.5),
        (rate_limit(date=30), 30),
        (rate_limit(date=30.5), 31),
        (rate_limit(), None),
        (rate_limit(after="soon"), None),
        (rate_limit(after=-1), None),
    ],
    ids=repr,
)
def test_hint_of_a_rate_limit_is_read_as_it_is_meant(fault, wait) -> None:
    """Seconds, milliseconds and dates tell how long to wait; garbage tells nothing."""

    async def main():
        step = StepPrimitive(Model(), name="llm")
        try:
            await step.execute("q", WorkflowContext())
        except LLMStatusError as error:
            # A date is read while the clock that it was written by is there.
            return retry_after(error)

    faults = FaultInjector()
    faults.at("llm").inject(fault)
    with listening(interceptors=(faults,)):
        assert VirtualClock().run(main()) == wait


@pytest.mark.parametrize(
    ("fault", "late"),
    [(slow_first_token(8), 8), (keepalives(), 0), (split_bytes(3), 0)],
)
def test_a_fault_of_bytes_leaves_a_whole_answer_as_it_is(fault, late) -> None:
    """At most it comes later; the strike counts as any other."""
    when = []

    async def timed(question):
        when.append(asyncio.get_running_loop().time())
        return ANSWER

    faults = FaultInjector()
    faults.at("llm").inject(fault)

    async def main():
        began = asyncio.get_running_loop().time()
        step = StepPrimitive(timed, name="llm")
        return await step.execute("q", WorkflowContext()), when[0] - began

    with listening(interceptors=(faults,)):
        assert VirtualClock().run(main()) == (ANSWER, late)
    assert [one.path for one in faults.injected] == ["llm"]


def test_expectation_waits_as_long_as_is_told() -> None:
    """What cannot be understood tells nothing; milliseconds are the exact word."""
    told = [
        rate_limit(after=30),
        rate_limit(after=2, after_ms=1500),
        rate_limit(date=30),
        rate_limit(after=0),
        rate_limit(after=-1),
        rate_limit(after="soon"),
        rate_limit(after="nan", after_ms="inf"),
    ]
    waits = [fault.expect.not_before for fault in told]
    assert waits == [30, 1.5, 30, None, None, None, None]


RAISING = [fault for fault in EVERY if isinstance(fault, Raises)]


@pytest.mark.parametrize("fault", RAISING, ids=repr)
def test_runtime_retries_only_what_may_be_retried(fault) -> None:
    """What the catalogue calls permanent, `is_retryable` does, too."""
    assert not is_retryable(raised(fault)) or fault.expect.may_retry


def test_runtime_retries_what_passes() -> None:
    """The rest is retried, but for a tool call that only another answer can mend."""
    given_up = [
        fault.name
        for fault in RAISING
        if fault.expect.may_retry and not is_retryable(raised(fault))
    ]
    assert given_up == ["bad_tool_call"]


def test_should_retry_outweighs_the_status() -> None:
    """What the header says is what may be done."""
    assert bad_request(should_retry=True).expect.may_retry
    assert not server_error(should_retry=False).expect.may_retry
    assert is_retryable(raised(bad_request(should_retry=True)))
    assert not is_retryable(raised(server_error(should_retry=False)))


def test_error_can_be_copied_and_sent_to_another_process() -> None:
    """Copies and pickles say the same."""
    error = raised(rate_limit(after=30))
    for twin in (copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (str(twin), retry_after(twin), twin.body) == (str(error), 30, error.body)


def test_spend_limit_is_told_as_anthropic_tells_it() -> None:
    """The code stands among the details."""
    details = raised(spend_limit()).body["error"]["details"]
    assert details == {"error_code": "enforced_spend_limit_reached"}


def test_retry_waits_for_the_hint_at_a_primitive() -> None:
    """A rate limit of 30 s strikes twice, and the answer comes after 60 s."""
    model = StepPrimitive(Model(), name="llm")
    with Harness() as tta:
        tta.faults.at("llm").inject(rate_limit(after=30), when=first(2))
        retry = RetryPrimitive(model, max_retries=2, jitter="none")
        assert tta.run(retry, "q") == ANSWER
        assert tta.elapsed == 60


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (connect_refused(), ConnectionRefusedError, "refused"),
        (dns(), ConnectionError, "no address"),
        (reset(), ConnectionResetError, "reset"),
        (slow_connect(), TimeoutError, "not accepted in time"),
        (no_headers(), TimeoutError, "no answer began"),
        (malformed_json(), json.JSONDecodeError, "Expecting value"),
        (bad_utf8(), UnicodeDecodeError, "invalid start byte"),
        (bad_event(), json.JSONDecodeError, "Expecting value"),
        (stream_cut(), ConnectionError, "broke within the stream"),
        (bad_gateway_html(), LLMStatusError, "502 Bad Gateway"),
    ],
    ids=repr,
)
def test_primitive_raises_what_callers_catch(fault, error, words) -> None:
    """The errors are Python's own where clients raise theirs; no call is made."""
    faults = FaultInjector()
    faults.at("llm").inject(fault)
    model = Model()

    async def main():
        step = StepPrimitive(model, name="llm")
        await step.execute("q", WorkflowContext())

    with listening(interceptors=(faults,)), pytest.raises(error, match=words):
        VirtualClock().run(main())
    assert model.calls == 0
    assert [one.fault for one in faults.injected] == [fault]


def test_stall_hangs_until_a_limit_ends_it() -> None:
    """Without one, the clock says which fault keeps the call waiting."""
    tta = Harness()
    tta.faults.at("llm").inject(stall())
    step = StepPrimitive(Model(), name="llm")
    with (
        pytest.raises(ClockDeadlock, match=r"hangs, as stall\(\) scripted at"),
        tta,
    ):
        tta.run(step, "q")
    with pytest.raises(TimeoutError, match="10"):
        struck(stall(), wrap=lambda step: TimeoutPrimitive(step, timeout_seconds=10))


@pytest.mark.parametrize(
    ("fault", "content", "reason"),
    [
        (length(2), "one two", "length"),
        (length(9), TEXT[: len(TEXT) // 2], "length"),
        (length(0), "", "length"),
        (content_filter(), "one", "content_filter"),
        (context_length("answer", after_tokens=3), "one two three", "length"),
        (refusal(text="No."), "No.", "refusal"),
        (pause_turn(), "one", "unknown"),
        (empty_choices(), "", "unknown"),
        (stream_cut(2, "clean"), "one two", "unknown"),
        (cut_event(2), "one two", "unknown"),
        (no_finish(), TEXT, "unknown"),
        (wrong_schema(), '{"unexpected": true}', "stop"),
    ],
    ids=repr,
)
def test_content_is_altered_at_a_primitive(fault, content, reason) -> None:
    """The call is made, and what comes back is not what the model said."""
    output, model, faults = struck(fault)
    assert (output.content, output.finish_reason) == (content, reason)
    assert (output.model, model.calls, len(faults.injected)) == ("m", 1, 1)


def test_plain_text_is_altered_too() -> None:
    """A step that returns text returns the altered text."""
    assert struck(length(2), TEXT)[0] == "one two"
    assert struck(empty_choices(), TEXT)[0] == ""
    assert struck(html_200(), TEXT)[0].startswith("<html>")
    assert struck(prose_instead_of_json(), '{"a": 1}')[0].startswith("Sure!")


@pytest.mark.parametrize(
    ("bad", "call"),
    [
        ("json", ToolCall("get", {}, "", '{"city": "Paris",}')),
        ("schema", ToolCall("get", {"unexpected": True})),
        ("name", ToolCall("no_such_tool", {"city": "Paris"})),
        ("truncated", ToolCall("get", {}, "", '{"city":')),
    ],
)
def test_tool_calls_are_broken_at_a_primitive(bad, call) -> None:
    """Each kind breaks another part of the call."""
    output, _, _ = struck(tool_args(bad), CALLS)
    assert output.tool_calls == (call,)
    assert output.finish_reason == ("length" if bad == "truncated" else "tool_calls")


def test_model_that_calls_nothing_is_made_to_call() -> None:
    """There is always a broken call to see."""
    output, _, _ = struck(tool_args("name"))
    assert [call.name for call in output.tool_calls] == ["no_such_tool"]


@pytest.mark.parametrize(
    ("fault", "answer", "words"),
    [
        (tool_args(), TEXT, "changes an LLMResponse, and 'llm' returned str"),
        (no_finish(), TEXT, "changes an LLMResponse, and 'llm' returned str"),
        (length(), {"a": 1}, "changes a text or an LLMResponse, and 'llm' returned"),
    ],
)
def test_output_that_cannot_show_a_fault_is_an_error(fault, answer, words) -> None:
    """A test must not pass because the fault had no effect."""
    with pytest.raises(TypeError, match=words):
        struck(fault, answer)


@pytest.mark.parametrize(
    ("fault", "chunks", "error"),
    [
        (stream_cut(2), ["one ", "two "], ConnectionError),
        (stream_cut(2, "reset"), ["one ", "two "], ConnectionResetError),
        (stream_cut(2, "clean"), ["one ", "two "], None),
        (length(3), ["one ", "two ", "three "], None),
        (content_filter(after_tokens=1), ["one "], None),
        (bad_event(1), ["one "], json.JSONDecodeError),
        (error_event(after_tokens=2), ["one ", "two "], LLMStatusError),
        (overloaded(in_stream=True), ["one "], LLMStatusError),
        (rate_limit(), [], LLMStatusError),
        (refusal(text="No."), ["No."], None),
        (empty_choices(), [""], None),
        (keepalives(), ["one ", "two ", "three ", "four"], None),
        (slow_first_token(8), ["one ", "two ", "three ", "four"], None),
        (no_finish(), ["one ", "two ", "three ", "four"], TypeError),
    ],
    ids=repr,
)
def test_streams_are_struck_after_so_many_tokens(fault, chunks, error) -> None:
    """What came before comes through; then it breaks, ends, or is another text."""
    found, raised = streamed(fault)
    assert found == chunks
    assert type(raised) is (error or type(None))


def test_stream_that_ends_with_a_response_shows_it_altered() -> None:
    """Text comes through, and the response at the end is the broken one."""

    async def answer(question):
        yield "one "
        yield CALLS

    chunks, error = streamed(no_finish(), answer)
    assert (chunks[0], chunks[1].finish_reason, error) == ("one ", "unknown", None)


def test_error_within_a_stream_has_the_status_that_was_given_before() -> None:
    """The head said 200; what went wrong stands in the body."""
    _, error = streamed(overloaded(in_stream=True))
    assert (error.status_code, error.body["error"]["type"]) == (200, "overloaded_error")
    assert is_retryable(error)
