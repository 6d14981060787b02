"""The real client of the model, against HTTP that is answered in this process.

Nothing here is patched: httpx itself takes a transport. Its own errors reach the retry,
which reads status and headers from them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from examples.answer_service.answer import build_workflow
from examples.answer_service.errors import ServiceError, SettingError
from examples.answer_service.model import ChatModel, model_from
from examples.answer_service.search import Index, search
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from examples.answer_service.answer import Answer
    from pytest_tta import Harness

QUESTION = "How do I test a retry?"


def completion(text: str | None, finish_reason: str = "stop") -> httpx.Response:
    """Return what a server answers when all goes well, or nearly so."""
    choice = {"message": {"content": text}, "finish_reason": finish_reason}
    return httpx.Response(200, json={"choices": [choice]})


class Server:
    """Gives the replies in turn, the last one for ever, and keeps the requests."""

    def __init__(self, *replies: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self._replies = replies

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        return self._replies[min(len(self.requests), len(self._replies)) - 1]


async def ask(index: Index, server: Server) -> Answer:
    """Run the workflow with the real client of the model."""
    transport = httpx.MockTransport(server)
    client = httpx.AsyncClient(transport=transport, base_url="http://model/v1")
    async with client:
        workflow = build_workflow(
            search=search(index), model=ChatModel(client, "small")
        )
        return await workflow.execute(QUESTION, WorkflowContext())


async def test_whole_answer_is_taken(index: Index) -> None:
    """The request names model and question, and the text of the reply is the answer."""
    server = Server(completion(" In virtual time.\n"))

    result = await ask(index, server)

    assert result.text == "In virtual time."
    [request] = server.requests
    assert request.url == "http://model/v1/chat/completions"
    assert b'"model":"small"' in request.content
    assert QUESTION.encode() in request.content


async def test_rate_limit_of_an_hour_is_not_waited_for(
    index: Index, tta: Harness
) -> None:
    """Told to come back in an hour, the service answers by itself, at once."""
    server = Server(httpx.Response(429, headers={"Retry-After": "3600"}))

    result = await ask(index, server)

    assert result.answered_by == "extract"
    assert result.reason is not None
    assert "429 Too Many Requests" in result.reason
    assert len(server.requests) == 1
    assert tta.elapsed == 0.0


async def test_rate_limit_of_some_seconds_is_respected(
    index: Index, tta: Harness
) -> None:
    """Told to come back in 5 s, the retry waits so long, and never less."""
    limited = httpx.Response(429, headers={"Retry-After": "5"})
    server = Server(limited, completion("In virtual time."))

    result = await ask(index, server)

    assert result.answered_by == "model"
    assert 5.0 <= tta.elapsed <= 5.5


@pytest.mark.parametrize(
    ("reply", "requests"),
    [
        (httpx.Response(500), 4),
        (httpx.Response(503), 4),
        (httpx.Response(401), 1),
        (httpx.Response(404), 1),
        (completion("It is ", "length"), 4),
        (completion(None), 4),
        (httpx.Response(200, text="<html>Welcome"), 4),
    ],
    ids=["500", "503", "401", "404", "cut off", "empty", "no completion"],
)
async def test_only_what_may_pass_is_asked_again(
    index: Index, reply: httpx.Response, requests: int
) -> None:
    """A wrong key stays wrong, a bad gateway may recover; half an answer is none."""
    server = Server(reply)
    result = await ask(index, server)
    assert result.answered_by == "extract"
    assert len(server.requests) == requests


async def test_all_attempts_carry_one_key(index: Index) -> None:
    """A server that keeps such keys never does the same work twice."""
    server = Server(httpx.Response(500), completion("In virtual time."))
    await ask(index, server)
    keys = [request.headers["Idempotency-Key"] for request in server.requests]
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        (
            {"OPENAI_API_KEY": "secret"},
            {"model": "gpt-4o-mini", "base_url": "https://api.openai.com/v1/"},
        ),
        (
            {"OPENAI_BASE_URL": "http://localhost:8000/v1", "OPENAI_MODEL": "small"},
            {"model": "small", "base_url": "http://localhost:8000/v1/"},
        ),
        ({}, {}),
    ],
    ids=["key", "server", "nothing"],
)
async def test_environment_chooses_the_model(
    environment: dict[str, str], options: dict[str, Any]
) -> None:
    """A key or an address is enough, and the key is shown nowhere."""
    async with model_from(environment) as model:
        assert model.name == "model"
        assert model.options() == options


async def test_address_that_is_none_is_refused() -> None:
    """A setting that cannot work is told before anybody waits for it."""
    with pytest.raises(SettingError, match="OPENAI_BASE_URL='localhost' must look"):
        async with model_from({"OPENAI_BASE_URL": "localhost"}):
            pass


async def test_missing_httpx_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a model needs it, and only then is it asked for."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    async with model_from({}) as model:
        assert model.name == "model"
    with pytest.raises(
        ServiceError, match=r'pip install "tta-dev-primitives\[examples'
    ):
        async with model_from({"OPENAI_API_KEY": "secret"}):
            pass
