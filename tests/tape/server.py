"""A provider on the loopback, in a thread of its own, which has real time."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers import AnthropicMessages, OpenAIChat, OpenAIResponses
from tests.wire.loopback import loopback
from tta_primitives.llm import LLMResponse

APIS = (OpenAIChat(), OpenAIResponses(), AnthropicMessages())


def says(text, *, timeline=None, delay=0.0, **more):
    """Return a function that says the same to every request, whichever API is asked."""
    said = Said(response=LLMResponse(text, **more), timeline=timeline, delay=delay)
    return lambda number, seen: api_of(seen).answer(said, json.loads(seen.body), number)


def each(*answers):
    """Return a function that answers one request after the other."""
    return lambda number, seen: answers[number - 1](number, seen)


def always(answer):
    """Return a function that answers the same bytes."""
    return lambda number, seen: answer


def echoes(number, seen):
    """Answer with the last message, and the number of the request."""
    body = json.loads(seen.body)
    said = body["messages"][-1]["content"]
    answer = Said(response=LLMResponse(f"{number}: {said}"))
    return api_of(seen).answer(answer, body, number)


def api_of(seen):
    """Return the API that a request is for."""
    method, target, _ = seen.head.split(" ", 2)
    path = target.partition("?")[0]
    return next(api for api in APIS if api.serves(method, path))


@contextmanager
def serving(answer, *, speed=0.0):
    """Serve in a thread of its own; `url` and `seen` as `loopback` has them."""
    loop = asyncio.new_event_loop()
    ready, served = threading.Event(), []
    over = asyncio.Event()

    async def main() -> None:
        async with loopback(answer, speed=speed) as server:
            served.append(server)
            ready.set()
            await over.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield served[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
