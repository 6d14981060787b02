"""Keys: where they come from, and that nobody gets to see them."""

from __future__ import annotations

import logging
import pickle
import traceback

import pytest
from pydantic import SecretStr

from pytest_tta.wire.exchange import WireAnswer
from tests.llm.bodies import APIS, KEY, MODELS, primitive, served, texts, whole
from tests.wire.loopback import loopback
from tta_primitives import WorkflowContext
from tta_primitives.door import Observer, listening
from tta_primitives.llm import (
    AnthropicPrimitive,
    LLMConfigurationError,
    OpenAIPrimitive,
)
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.stats import stats_of

VARIABLES = {
    "chat": "OPENAI_API_KEY",
    "responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
}


@pytest.mark.parametrize("api", APIS)
async def test_key_comes_from_the_environment_when_it_is_needed(
    api, monkeypatch
) -> None:
    """It may be set after the primitive was made."""
    monkeypatch.delenv(VARIABLES[api], raising=False)
    async with served(api, whole(api), api_key=None) as (llm, seen):
        with pytest.raises(
            LLMConfigurationError, match=f"environment variable {VARIABLES[api]}"
        ):
            await llm.execute("Hi", WorkflowContext())
        monkeypatch.setenv(VARIABLES[api], KEY)
        await llm.execute("Hi", WorkflowContext())
    assert len(seen) == 1
    assert KEY in seen[0].head


async def test_missing_key_is_not_retried(monkeypatch) -> None:
    """The next attempt would not have one either."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    retry = RetryPrimitive(OpenAIPrimitive(model="gpt-5"))
    with pytest.raises(LLMConfigurationError, match="OPENAI_API_KEY"):
        await retry.execute("Hi", WorkflowContext())
    assert retry.stats.retries == 0


@pytest.mark.parametrize("api", APIS)
async def test_key_from_a_function_is_asked_for_on_every_call(api) -> None:
    """A key that rotates is the present one; sync and async functions will do."""
    keys = iter([KEY, SecretStr("sk-second"), "sk-third"])

    async def fetch():
        return next(keys)

    async with served(api, whole(api), api_key=fetch) as (llm, seen):
        await llm.execute("Hi", WorkflowContext())
        await llm.execute("Hi", WorkflowContext())
    async with served(api, whole(api), api_key=lambda: next(keys)) as (llm, third):
        await llm.execute("Hi", WorkflowContext())
    heads = [one.head for one in [*seen, *third]]
    assert [KEY in heads[0], "sk-second" in heads[1], "sk-third" in heads[2]] == [
        True
    ] * 3
    assert KEY not in heads[1]


async def test_keys_that_rotate_leave_no_client_behind() -> None:
    """A copy of the client is kept for a few keys, and shares its connections."""
    keys = iter(range(100))
    from tta_primitives.llm import clients

    async def fetch():
        return f"sk-{next(keys)}"

    async with served("chat", whole("chat"), api_key=fetch) as (llm, _):
        for _ in range(12):
            await llm.execute("Hi", WorkflowContext())
        (servers,) = [one for one in clients._clients.values() if one]
        (shared,) = servers.values()
        assert len(shared.by_key) == 8


async def test_keys_of_two_primitives_do_not_mix() -> None:
    """One server and one pool of connections, and each has its own key."""
    async with loopback(lambda *_: whole("chat")) as server:
        one = primitive("chat", server.url, api_key="sk-one")
        two = primitive("chat", server.url, api_key="sk-two")
        async with one, two:
            for llm in (one, two, one):
                await llm.execute("Hi", WorkflowContext())
    found = [seen.header("authorization") for seen in server.seen]
    assert found == ["Bearer sk-one", "Bearer sk-two", "Bearer sk-one"]


@pytest.mark.parametrize(
    ("given", "kind", "shown"),
    [
        (7, TypeError, "api_key= must be text or a function, not int"),
        ("", LLMConfigurationError, "api_key= is empty"),
        ("  ", ValueError, "api_key= is empty"),
        (SecretStr(""), ValueError, "api_key= is empty"),
    ],
)
def test_what_is_no_key_is_refused(given, kind, shown) -> None:
    """At construction, and without showing it."""
    with pytest.raises(kind, match=shown):
        OpenAIPrimitive(given, model="gpt-5")


async def test_function_that_returns_no_key_is_told_by_type() -> None:
    """Its value may be the key after all, so it is not shown."""
    llm = OpenAIPrimitive(lambda: {"key": KEY}, model="gpt-5")
    with pytest.raises(TypeError, match=r"has returned must be text .* not dict") as e:
        await llm.execute("Hi", WorkflowContext())
    assert KEY not in str(e.value)


class Ear(Observer):
    """Notes all that observers are told, as traces and spans show it."""

    def __init__(self):
        self.heard = []

    def event(self, call, name, detail):
        self.heard.append(f"{call.path} {name} {detail!r}")

    def finished(self, call):
        told = (call.input_data, call.output, call.error, call.context)
        self.heard.append(f"{call.path} {told!r}")


def everything_shown(llm, error=None):
    """Return all that a primitive and an error tell of themselves."""
    told = [repr(llm), str(llm.describe()), llm.to_mermaid(), str(stats_of(llm))]
    told += [repr(llm._key), repr(llm._owner), str(llm.options())]
    if error is not None:
        told += ["".join(traceback.format_exception(error)), repr(error)]
        told.append(str(getattr(error, "__notes__", "")))
    return "\n".join(told)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(whole, id="good"),
        pytest.param(lambda api: whole(api, ""), id="empty"),
        pytest.param(
            lambda api: WireAnswer.of_json(
                {"error": {"message": "bad key"}}, status=401
            ),
            id="401",
        ),
        pytest.param(lambda api: WireAnswer(has_head=False, ending="closed"), id="cut"),
    ],
)
async def test_key_is_found_nowhere(api, answer, caplog) -> None:
    """Not in logs of any level and library, traces, descriptions, errors."""
    caplog.set_level(logging.DEBUG)
    context, error, ear = WorkflowContext(), None, Ear()
    headers = {"extra_headers": {"x-tenant-key": "sk-header-secret"}}
    async with served(api, answer(api), options=headers) as (llm, seen):
        retry = RetryPrimitive(llm, max_retries=1, initial_delay=0.001)
        for run in (retry.execute, texts_of(retry)):
            try:
                with listening(observers=[ear]):
                    await run("Hi", context)
            except Exception as raised:
                error = raised
        shown = everything_shown(llm, error)
    assert KEY in seen[0].head
    told = [shown, caplog.text, repr(context), str(context.outcomes)]
    told += [str(record.__dict__) for record in caplog.records]
    told += ear.heard
    assert not [text for text in told if KEY in text]
    # Our own words; what a library logs of other headers is for it to say.
    assert "sk-header-secret" not in shown


def texts_of(llm):
    """Return a function that streams, to be called like `execute`."""

    async def run(question, context):
        return await texts(llm, question, context)

    return run


def test_secrets_of_a_url_and_of_options_are_not_shown() -> None:
    """User, password, query and headers may let somebody in."""
    llm = OpenAIPrimitive(
        KEY,
        model="gpt-5",
        base_url="https://ada:pw-secret@llm.example/v1?token=q-secret",
        options={"extra_headers": {"x-key": "h-secret"}, "seed": 7},
    )
    assert llm.options()["base_url"] == "https://llm.example/v1"
    assert llm.options()["options"]["seed"] == 7
    assert set(llm.options()["options"]["extra_headers"]) == {"x-key"}
    assert "secret" not in everything_shown(llm)


@pytest.mark.parametrize("api", APIS)
async def test_named_errors_travel_without_the_key(api) -> None:
    """A pickled error, as a task queue has it, knows the response and no key."""
    async with served(api, whole(api, "")) as (llm, _):
        with pytest.raises(Exception, match="is empty") as caught:
            await llm.execute("Hi", WorkflowContext())
    data = pickle.dumps(caught.value)
    assert KEY.encode() not in data
    again = pickle.loads(data)
    assert again.response == caught.value.response
    assert again.response.model in {*MODELS.values(), "gpt-5-2026-01-01"}


@pytest.mark.parametrize("kind", [OpenAIPrimitive, AnthropicPrimitive])
def test_client_and_key_exclude_each_other(kind) -> None:
    """A client has a key already; which one counts would be a guess."""

    class Client:
        base_url = "https://llm.example"

        def with_options(self, **options):
            return self

    with pytest.raises(ValueError, match="client= has a key and a base_url"):
        kind(KEY, model="m", client=Client())
