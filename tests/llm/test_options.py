"""Arguments of the LLM primitives, what they show of themselves, and caches of them."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from tests.llm.bodies import served, whole
from tests.performance.redis_clients import fake_redis
from tta_primitives import WorkflowContext
from tta_primitives.llm import (
    AnthropicPrimitive,
    IncompleteResponseError,
    LLMConfigurationError,
    LLMResponse,
    OpenAIPrimitive,
    ResponseSerializer,
    Tool,
    ToolCall,
    Usage,
)
from tta_primitives.namespace import namespace_of
from tta_primitives.performance import CachePrimitive


class City(BaseModel):
    """What is asked for."""

    name: str


def test_repr_and_description_have_model_and_parameters() -> None:
    """As far as they differ from nothing."""
    llm = OpenAIPrimitive("sk-x", model="gpt-5", temperature=0.2, tools=[Tool("look")])
    shown = repr(llm)
    assert shown.startswith("<OpenAIPrimitive 'openai' model='gpt-5' api='openai.chat'")
    assert "temperature=0.2" in shown
    assert json.loads(json.dumps(llm.describe())) == llm.describe()
    assert llm.describe()["options"]["tools"][0].startswith("look#")


@pytest.mark.parametrize(
    "other",
    [
        {"model": "gpt-6"},
        {"api": "responses"},
        {"base_url": "http://localhost:8000/v1"},
        {"temperature": 0},
        {"max_output_tokens": 9},
        {"tools": [Tool("look")]},
        {"schema": City},
        {"schema": {"type": "object"}},
        {"options": {"seed": 7}},
        {"options": {"extra_headers": {"x-tenant": "a"}}},
        {"on_incomplete": "return"},
    ],
    ids=str,
)
def test_namespaces_differ_where_answers_may(other) -> None:
    """Two models behind one storage never share an answer."""
    usual = OpenAIPrimitive("sk-x", model="gpt-5")
    assert namespace_of(usual) == namespace_of(OpenAIPrimitive("sk-y", model="gpt-5"))
    different = OpenAIPrimitive("sk-x", **{"model": "gpt-5", **other})
    assert namespace_of(usual) != namespace_of(different)


def test_namespaces_differ_by_what_is_inside_of_tools_and_schemas() -> None:
    """A name alone does not tell two versions of a model apart."""

    class Other(BaseModel):
        name: int

    Other.__name__ = Other.__qualname__ = "City"
    first = OpenAIPrimitive("k", model="m", schema=City)
    assert namespace_of(first) != namespace_of(
        OpenAIPrimitive("k", model="m", schema=Other)
    )
    tools = [Tool("look", "a"), Tool("look", "b")]
    one, two = (OpenAIPrimitive("k", model="m", tools=[tool]) for tool in tools)
    assert namespace_of(one) != namespace_of(two)


def test_model_and_url_may_come_from_the_environment(monkeypatch) -> None:
    """The description tells which they are now."""
    monkeypatch.setenv("ANTHROPIC_MODEL", "claude-x")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost:8000")
    shown = AnthropicPrimitive("k").options()
    assert shown == {
        "model": "claude-x",
        "api": "anthropic.messages",
        "base_url": "http://localhost:8000",
    }


async def test_missing_model_says_where_it_may_come_from() -> None:
    """Argument, request, environment."""
    llm = OpenAIPrimitive("k").named("llm")
    with pytest.raises(
        LLMConfigurationError, match=r"llm has no model: .*OPENAI_MODEL"
    ):
        await llm.execute("Hi", WorkflowContext())


@pytest.mark.parametrize(
    ("options", "kind", "shown"),
    [
        ({"model": ""}, TypeError, "model='' must be a text"),
        ({"base_url": 7}, TypeError, "base_url=7 must be a text"),
        ({"api": "legacy"}, ValueError, "api='legacy' must be one of 'chat'"),
        ({"temperature": -1}, ValueError, "temperature=-1 must be a non-negative"),
        ({"max_output_tokens": 0}, ValueError, "max_output_tokens=0 must be a whole"),
        ({"timeout": 0}, ValueError, "timeout=0 must be a positive number of seconds"),
        (
            {"on_incomplete": "x"},
            ValueError,
            "on_incomplete='x' must be one of 'raise'",
        ),
        ({"tools": [{"name": "a"}]}, TypeError, "which is no Tool"),
        ({"schema": 7}, TypeError, "schema=7 must be a pydantic model"),
    ],
)
def test_wrong_arguments_are_told_at_once(options, kind, shown) -> None:
    """Name, value, and what is allowed."""
    with pytest.raises(kind, match=shown):
        OpenAIPrimitive("k", **{"model": "m", **options})


async def test_input_that_is_no_request_is_a_mistake() -> None:
    """It names what may be given."""
    with pytest.raises(TypeError, match="give a text, a message"):
        await OpenAIPrimitive("k", model="m").execute({"text": "Hi"}, WorkflowContext())


async def test_responses_can_be_cached_on_a_server() -> None:
    """With a serializer for them, data of a schema included."""
    redis = fake_redis()
    answer = whole("chat", '{"name": "Paris"}')
    async with served("chat", answer, schema=City) as (llm, seen):
        for _ in range(2):
            cached = CachePrimitive(
                llm,
                ttl=60,
                storage=redis,
                serializer=ResponseSerializer(schema=City),
                fail_open=False,
            )
            response = await cached.execute("?", WorkflowContext())
            assert response.data == City(name="Paris")
    assert len(seen) == 1
    await redis.aclose()


FULL = LLMResponse(
    "Hi",
    tool_calls=(ToolCall("look", {"a": [1]}, "c"), ToolCall("x", broken_arguments="{")),
    finish_reason="tool_calls",
    usage=Usage(1, 2, 1),
    model="m",
)


@pytest.mark.parametrize("response", [FULL, LLMResponse("Hi")], ids=["full", "bare"])
def test_response_comes_back_as_it_was(response) -> None:
    """Every field of it."""
    serializer = ResponseSerializer()
    assert serializer.loads(serializer.dumps(response)) == response


def test_data_without_a_schema_is_not_written() -> None:
    """It would be lost."""
    with pytest.raises(TypeError, match="give ResponseSerializer"):
        ResponseSerializer().dumps(LLMResponse("{}", data={}))
    with pytest.raises(TypeError, match="a str is no LLMResponse"):
        ResponseSerializer().dumps("Hi")


def test_one_name_catches_all_incomplete_answers() -> None:
    """The tree at the top of the module is the tree of the classes."""
    import tta_primitives.llm as face
    from tta_primitives.llm import errors

    drawn = (errors.__doc__ or "").split()
    for name in errors.__all__:
        assert name in drawn
        assert getattr(face, name) is getattr(errors, name)
    kinds = [getattr(errors, name) for name in errors.__all__]
    others = [kind for kind in kinds if not issubclass(kind, IncompleteResponseError)]
    assert others == [LLMConfigurationError]
