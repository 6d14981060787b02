"""What clients do wrong silently, each found with the request it is about."""

from __future__ import annotations

import asyncio
import contextlib

import openai
import pytest

from pytest_tta.faults import (
    error_event,
    length,
    quota_exceeded,
    rate_limit,
    server_error,
    stall,
    stream_cut,
)
from pytest_tta.harness import Harness, HarnessError
from pytest_tta.wire.wire import Wire
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

client = openai.AsyncOpenAI(api_key="sk-test")
once = client.with_options(max_retries=0)


async def ask(question, sdk=once):
    """Ask, and look at nothing but the text."""
    answer = await sdk.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


@step
async def naive(question):
    """Ask without any retry of the SDK."""
    return await ask(question)


@step
async def stubborn(question):
    """Ask with the SDK's two retries."""
    return await ask(question, client)


@step
async def partial(question):
    """Take what there is of a stream, whatever ends it."""
    texts = []
    try:
        async for event in await once.chat.completions.create(
            model="gpt-5",
            messages=[{"role": "user", "content": question}],
            stream=True,
        ):
            texts += [one.delta.content or "" for one in event.choices]
    except openai.APIError:
        pass
    return "".join(texts)


@step
async def strict(question):
    """Take a stream only as a whole."""
    texts = []
    async for event in await once.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": question}], stream=True
    ):
        texts += [one.delta.content or "" for one in event.choices]
    return "".join(texts)


@step
async def apologetic(question):
    """Say so when the provider refuses."""
    try:
        return await ask(question)
    except openai.APIStatusError:
        return "sorry"


def found_in(script, workflow, *, times=1):
    """Return the kinds of what was found, and the text that fails the test."""
    kinds = []
    try:
        with Harness() as tta:
            script(tta.wire.openai)
            for _ in range(times):
                with contextlib.suppress(openai.APIError, ExceptionGroup):
                    tta.run(workflow, "question")
            kinds += [one.kind for one in tta.wire.audit()]
    except HarnessError as error:
        return kinds, str(error)
    return kinds, ""


def fine(*faults, said="one two three four"):
    """Script faults, and then a good answer."""

    def script(provider):
        for fault in faults:
            provider.fails(fault, said=said)
        provider.reply("good").optional()

    return script


def eager(workflow):
    """Retry at once, whatever happens."""
    return RetryPrimitive(
        workflow,
        retry_on=Exception,
        initial_delay=0,
        respect_retry_after=False,
    )


@pytest.mark.parametrize(
    ("script", "workflow", "kind", "text"),
    [
        (fine(length()), naive, "accepted_bad_answer", "with length()"),
        (
            fine(stream_cut(after_tokens=2)),
            partial,
            "accepted_bad_answer",
            "its caller went on as if all was well",
        ),
        (fine(error_event()), partial, "accepted_bad_answer", "error_event()"),
        (
            fine(rate_limit(after=30)),
            eager(naive),
            "ignored_retry_after",
            "was asked again after 0 s as request 2; wait for 30 s",
        ),
        (
            fine(quota_exceeded()),
            eager(naive),
            "retried_permanent_error",
            "which will not go away",
        ),
        (
            fine(*[server_error()] * 4),
            RetryPrimitive(stubborn, max_retries=1),
            "multiplied_retries",
            "up to 3 times in each of 2 attempts",
        ),
    ],
    ids=["cut", "stream", "event", "early", "permanent", "multiplied"],
)
def test_each_silent_mistake_fails_the_test_and_is_named(
    script, workflow, kind, text
) -> None:
    """With the kind, the request, and what to do."""
    kinds, told = found_in(script, workflow)
    assert kinds == [kind]
    assert f"{kind}: " in told
    assert text in told
    assert "by '" in told


@pytest.mark.parametrize(
    ("script", "workflow"),
    [
        (fine(), naive),
        (fine(rate_limit(after=30)), RetryPrimitive(naive, jitter="none")),
        (fine(quota_exceeded()), RetryPrimitive(naive)),
        (fine(quota_exceeded()), apologetic),
        (fine(server_error(), server_error()), RetryPrimitive(naive)),
        (fine(server_error(), server_error()), stubborn),
        (
            fine(length()),
            RetryPrimitive(naive, retry_if_result=lambda text: text != "good"),
        ),
        (
            fine(length()),
            FallbackPrimitive(
                naive, [stubborn], fallback_if_result=lambda text: text != "good"
            ),
        ),
        (fine(stream_cut(after_tokens=2)), RetryPrimitive(strict)),
    ],
    ids=[
        "good",
        "waited",
        "gave up",
        "answered instead",
        "retried",
        "retried by the SDK",
        "result retried",
        "result replaced",
        "cut",
    ],
)
def test_a_correct_client_is_told_nothing(script, workflow) -> None:
    """Whatever goes wrong."""
    assert found_in(script, workflow) == ([], "")


def test_the_same_question_in_another_run_is_no_retry() -> None:
    """Nor is it one that no primitive asks again."""
    script = fine(quota_exceeded())
    assert found_in(script, naive, times=2) == ([], "")

    async def outside():
        for _ in range(2):
            with contextlib.suppress(openai.RateLimitError):
                await ask("question")

    with Harness() as tta:
        tta.wire.openai.fails(quota_exceeded())
        tta.wire.openai.reply("good")
        tta.clock.run(outside())
        assert tta.wire.audit() == []


def test_what_the_sdk_itself_retries_in_vain_is_found_outside_of_primitives() -> None:
    """OpenAI's asks three times for a quota that is used up."""
    with Harness() as tta:
        tta.wire.openai.fails(quota_exceeded()).times(3)

        async def outside():
            with pytest.raises(openai.RateLimitError, match="429"):
                await ask("question", client)

        tta.clock.run(outside())
        kinds = [one.kind for one in tta.wire.audit()]
        assert kinds == ["retried_permanent_error"] * 2
        tta.wire.tolerate("retried_permanent_error")


def test_an_answer_that_is_never_closed_is_found() -> None:
    """A stream that is dropped half-read holds its connection."""
    kept = []

    @step
    async def leaking(question):
        stream = await once.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": question}], stream=True
        )
        kept.append(stream)
        return await anext(aiter(stream))

    kinds, told = found_in(lambda one: one.reply(stream="one two"), leaking)
    assert kinds == ["leaked_response"]
    assert "was never closed" in told
    assert kept


def test_a_request_without_a_deadline_is_found() -> None:
    """The SDK's own is ten minutes."""
    kinds, told = found_in(lambda one: one.fails(stall()), strict)
    assert kinds == ["no_deadline"]
    assert "took 600 s, and nobody gave up on it" in told


def test_a_kind_can_be_tolerated_and_must_exist() -> None:
    """By name."""
    with Harness() as tta:
        tta.wire.tolerate("accepted_bad_answer")
        tta.wire.openai.fails(length(), said="one two")
        assert tta.run(naive, "x") in "one two"
        assert [one.kind for one in tta.wire.audit()] == ["accepted_bad_answer"]
    with pytest.raises(ValueError, match="'rude' is no finding; there are accepted_"):
        Wire().tolerate("rude")


def test_parallel_runs_are_told_apart() -> None:
    """Two runs of one workflow at a time, each with its own answers."""
    with Harness() as tta:
        tta.wire.openai.fails(quota_exceeded()).times(2)
        tta.wire.openai.reply("good").optional()

        async def both():
            runs = [naive.execute("x", WorkflowContext()) for _ in range(2)]
            await asyncio.gather(*runs, return_exceptions=True)

        tta.clock.run(both())
        assert tta.wire.audit() == []
