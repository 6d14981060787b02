"""Fallback: who is tried after whom, and what comes out."""

from __future__ import annotations

import asyncio

import pytest

from tests.recovery.doubles import (
    CANCELLED,
    Boom,
    Rejected,
    Script,
    chunks_of,
    virtual,
)
from tests.recovery.doubles import Stream as Chunks
from tta_primitives import WorkflowContext, step
from tta_primitives.errors import (
    CircuitOpenError,
    FallbackExhaustedError,
    OpenWrapperError,
)
from tta_primitives.recovery import FallbackOutcome, FallbackPrimitive, RetryPrimitive


@virtual
async def test_the_primary_answers_and_no_fallback_runs(clock):
    """Without a failure nothing else is tried, and no outcome is filed."""
    backup = Script("backup")
    context = WorkflowContext()
    answer = await FallbackPrimitive(Script("ok"), [backup]).execute("x", context)
    assert (answer, backup.calls, context.outcomes) == ("ok", 0, {})


@virtual
async def test_case_52_when_all_fail_the_errors_come_in_order(clock):
    """The group has each error, and the first one is its cause."""
    errors = [Boom(1), Boom(2), Boom(3)]
    fallback = FallbackPrimitive(Script(errors[0]), list(map(Script, errors[1:])))
    with pytest.raises(
        FallbackExhaustedError, match="and all fallbacks failed"
    ) as caught:
        await fallback.execute("x", WorkflowContext())
    assert list(caught.value.exceptions) == errors
    assert caught.value.__cause__ is errors[0]
    assert [error.__context__ for error in errors] == [None, None, None]


@virtual
async def test_case_53_a_cancelled_primary_leads_to_no_fallback(clock):
    """Cancellation passes, whatever the filter says."""
    backup = Script("backup")
    fallback = FallbackPrimitive(
        Script("ok", takes=60), [backup], fallback_on=BaseException
    )
    task = asyncio.create_task(fallback.execute("x", WorkflowContext()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert backup.calls == 0


@virtual
async def test_case_54_other_errors_pass_untouched(clock):
    """An error that is not listed comes out itself, and no fallback runs."""
    error, backup = ValueError("bad input"), Script("backup")
    fallback = FallbackPrimitive(Script(error), [backup], fallback_on=(Boom,))
    with pytest.raises(ValueError, match="bad input") as caught:
        await fallback.execute("x", WorkflowContext())
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert backup.calls == 0


@virtual
async def test_case_54_another_error_of_a_fallback_passes_as_well(clock):
    """The filter is asked about each alternative."""
    fallback = FallbackPrimitive(
        Script(Boom()), [Script(ValueError("bug")), "never"], fallback_on=Boom
    )
    with pytest.raises(ValueError, match="bug"):
        await fallback.execute("x", WorkflowContext())


@pytest.mark.parametrize("kind", [TypeError, AttributeError, NameError, AssertionError])
@virtual
async def test_programming_errors_lead_to_no_fallback_by_default(clock, kind):
    """A bug is not hidden behind a cached answer."""
    with pytest.raises(kind, match="bug"):
        await FallbackPrimitive(Script(kind("bug")), ["cached"]).execute(
            "x", WorkflowContext()
        )


@pytest.mark.parametrize(
    "error", [Rejected(status_code=401), CircuitOpenError("open"), OSError()], ids=repr
)
@virtual
async def test_other_errors_lead_to_the_fallback_by_default(clock, error):
    """Another service may answer what this one refuses."""
    fallback = FallbackPrimitive(Script(error), ["cached"])
    assert await fallback.execute("x", WorkflowContext()) == "cached"


@virtual
async def test_case_55_a_refused_result_leads_to_the_next(clock):
    """An empty answer is worth another try elsewhere."""
    search = FallbackPrimitive(
        Script([]), [Script([]), Script(["hit"])], fallback_if_result=lambda r: not r
    )
    context = WorkflowContext()
    assert await search.execute("x", context) == ["hit"]
    assert context.outcomes["fallback"] == FallbackOutcome(2, "script", (None, None))


@virtual
async def test_case_55_if_all_are_refused_the_first_result_is_returned(clock):
    """A poor answer is better than none, also when a fallback raises."""
    first = []
    for rest in ([Script([])], [Script(Boom())]):
        search = FallbackPrimitive(
            Script(first), rest, fallback_if_result=lambda r: not r
        )
        assert await search.execute("x", WorkflowContext()) is first


class Closable:
    """A result that counts how often it was closed."""

    closed = 0

    async def aclose(self):
        self.closed += 1


@virtual
async def test_case_55_results_that_nobody_gets_are_closed(clock):
    """All but the returned one are closed exactly once."""
    results = [Closable(), Closable(), Closable()]
    for good, closed in [(2, [1, 1, 0]), (None, [1, 2, 1])]:
        await FallbackPrimitive(
            Script(results[0]),
            [Script(results[1]), Script(results[2])],
            fallback_if_result=lambda r, good=good: (
                good is None or r is not results[good]
            ),
        ).execute("x", WorkflowContext())
        assert [result.closed for result in results] == closed


@virtual
async def test_case_57_the_outcome_tells_who_answered_and_why(clock):
    """It is filed under the fallback's path, and shared along the run."""
    errors = [Boom(1), Boom(2)]
    answer = FallbackPrimitive(
        Script(errors[0]), [Script(errors[1]), step(name="local")(Script("ok"))]
    )
    context = WorkflowContext()
    workflow = (step(str) >> answer.named("answer")).named("service")
    assert await workflow.execute("x", context) == "ok"
    assert context.outcomes == {
        "service/answer": FallbackOutcome(2, "local", (errors[0], errors[1]))
    }


@virtual
async def test_a_plain_value_may_be_the_last_alternative(clock):
    """A list is copied, so that no caller changes the answer of the next."""
    fallback = FallbackPrimitive(Script(Boom()), [{"answer": []}])
    first = await fallback.execute("x", WorkflowContext())
    first["answer"].append("changed")
    assert await fallback.execute("x", WorkflowContext()) == {"answer": []}


@virtual
async def test_none_may_be_the_last_alternative(clock):
    """No answer is an answer too."""
    assert (
        await FallbackPrimitive(Script(Boom()), [None]).execute("x", WorkflowContext())
        is None
    )


@pytest.mark.parametrize(
    ("isolate", "seen"), [(True, ["x"]), (False, ["x", "primary"])]
)
@virtual
async def test_isolated_input_is_not_changed_by_those_before(clock, isolate, seen):
    """With isolate_input each alternative gets a copy of the input."""

    async def spoils(messages):
        messages.append("primary")
        raise Boom

    fallback = FallbackPrimitive(spoils, [step(list)], isolate_input=isolate)
    given = ["x"]
    assert await fallback.execute(given, WorkflowContext()) == seen
    assert given == seen


@virtual
async def test_events_tell_which_fallback_is_tried_and_why(clock, events):
    """One event for each alternative after the primary."""
    errors = [Boom(1), Boom(2)]
    await FallbackPrimitive(Script(errors[0]), [Script(errors[1]), "value"]).execute(
        "x", WorkflowContext()
    )
    assert events.seen == [
        ("fallback.used", {"index": 1, "error": errors[0]}),
        ("fallback.used", {"index": 2, "error": errors[1]}),
    ]


@virtual
async def test_case_23_a_stream_that_fails_before_its_first_chunk_falls_back(clock):
    """Nothing was passed on yet, so the next alternative may stream."""
    context = WorkflowContext()
    fallback = FallbackPrimitive(Chunks([Boom()]), [Chunks(["b1", "b2"])])
    assert await chunks_of(fallback, "x", context) == (["b1", "b2"], None)
    assert context.outcomes["fallback"].index == 1


@virtual
async def test_case_58_a_stream_that_fails_later_is_not_begun_anew(clock):
    """After the first chunk the error propagates and no fallback runs."""
    error, backup = Boom(), Chunks(["b1"])
    fallback = FallbackPrimitive(Chunks(["a1", error]), [backup])
    assert await chunks_of(fallback, "x", WorkflowContext()) == (["a1"], error)
    assert backup.calls == 0


@virtual
async def test_case_58_a_stream_is_begun_anew_on_request(clock):
    """restart_stream=True passes on the whole stream of the next alternative."""
    fallback = FallbackPrimitive(
        Chunks(["a1", Boom()]), [Chunks(["b1", "b2"])], restart_stream=True
    )
    seen = await chunks_of(fallback, "x", WorkflowContext())
    assert seen == (["a1", "b1", "b2"], None)


@virtual
async def test_streams_that_all_fail_end_in_the_group(clock):
    """The same error as without streaming."""
    fallback = FallbackPrimitive(Chunks([Boom(1)]), [Chunks([Boom(2)])])
    seen, error = await chunks_of(fallback, "x", WorkflowContext())
    assert (seen, type(error)) == ([], FallbackExhaustedError)


@virtual
async def test_an_open_fallback_wraps_what_follows(clock):
    """FallbackPrimitive(fallbacks=...) >> step is FallbackPrimitive(step, ...)."""
    opened = FallbackPrimitive(fallbacks=["cached"])
    assert await (opened >> Script(Boom())).execute("x", WorkflowContext()) == "cached"
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await opened.execute("x", WorkflowContext())


@virtual
async def test_a_rejected_rejection_of_the_primary_reaches_the_fallback_after_retries(
    clock,
):
    """Retry inside fallback: the alternatives come after the attempts."""
    llm = Script(Boom())
    fallback = FallbackPrimitive(RetryPrimitive(llm, jitter="none"), ["cached"])
    assert await fallback.execute("x", WorkflowContext()) == "cached"
    assert (llm.calls, clock.elapsed) == (4, 3.5)


def test_children_are_the_primary_and_the_fallbacks():
    """The description shows all alternatives in order."""
    fallback = FallbackPrimitive(step(str), [step(repr), "value"])
    described = fallback.describe()
    assert [child["name"] for child in described["children"]] == [
        "str",
        "repr",
        "value",
    ]
    assert described["children"][2]["options"] == {"value": "value"}
    assert repr(fallback) == "<FallbackPrimitive 'str'>"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "fallbacks must have at least one alternative"),
        ({"fallbacks": []}, ValueError, "fallbacks must have at least one alternative"),
        ({"fallbacks": "cached"}, TypeError, "fallbacks='cached' must be a list"),
        ({"fallbacks": ["v", str]}, ValueError, "the plain value 'v' must be the last"),
        ({"fallbacks": [RetryPrimitive()]}, OpenWrapperError, "wraps nothing yet"),
        ({"fallbacks": [1], "fallback_on": 3}, TypeError, "fallback_on=3 must be"),
        (
            {"fallbacks": [1], "fallback_if_result": 3},
            TypeError,
            "fallback_if_result=3",
        ),
        ({"fallbacks": [1], "isolate_input": 1}, TypeError, "isolate_input=1 must be"),
        (
            {"fallbacks": [1], "restart_stream": 0},
            TypeError,
            "restart_stream=0 must be",
        ),
    ],
)
def test_wrong_arguments_are_refused_at_construction(options, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        FallbackPrimitive(Script("ok"), **options)
