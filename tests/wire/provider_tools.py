"""What the tests of the providers' APIs share: servers, readers and inputs."""

from __future__ import annotations

import json

import anthropic
import httpx2
import openai
from hypothesis import settings
from hypothesis import strategies as st

from pytest_tta.wire.api import Said
from tests.wire.loopback import loopback
from tta_primitives.llm import LLMResponse, ToolCall, Usage

EXAMPLES = settings(database=None, max_examples=40, deadline=None)

REASONS = ("stop", "length", "tool_calls", "content_filter", "refusal", "unknown")

WEATHER = ToolCall("get_weather", {"city": "Paris", "days": 3}, "call_weather")
CLOCK = ToolCall("get_time", {}, "call_time")

RICH = LLMResponse(
    "It is näher than you think. 🚀",
    (WEATHER, CLOCK),
    "tool_calls",
    Usage(120, 34, 20),
    "model-of-the-answer",
)


class Server:
    """Answers with what is made of the JSON of each request and its number.

    `seen` has the JSON of each request, `paths` where it went. Bodies come in pieces of
    so many bytes as `piece` tells.
    """

    def __init__(self, api, answer, *, piece=1 << 20):
        self.api = api
        self.seen = []
        self.paths = []
        self._answer = answer
        self._piece = piece

    def _played(self, request):
        assert self.api.serves(request.method, request.url.path)
        self.seen.append(json.loads(request.content))
        self.paths.append(request.url.path)
        answer = self._answer(self.seen[-1], len(self.seen))
        data, size = answer.data, self._piece
        return answer, [data[at : at + size] for at in range(0, len(data), size)]

    def sync(self, request):
        answer, pieces = self._played(request)
        headers = list(answer.headers)
        return httpx2.Response(answer.status, headers=headers, content=iter(pieces))

    async def asynchronous(self, request):
        answer, pieces = self._played(request)

        async def body():
            for piece in pieces:
                yield piece

        headers = list(answer.headers)
        return httpx2.Response(answer.status, headers=headers, content=body())


def says(api, response, **options):
    """Return a server that always says the same."""
    said = Said(response=response)
    answer = lambda body, number: api.answer(said, body, number)  # noqa: E731
    return Server(api, answer, **options)


def fails(api, kind, **options):
    """Return a server that always fails."""
    return Server(api, lambda body, number: api.error(kind, **options))


def openai_client(server, kind=openai.OpenAI, **options):
    """Return a client of OpenAI's SDK that talks to a server in this process."""
    options = {"base_url": "http://test/v1"} | options
    return kind(
        api_key="k", max_retries=0, http_client=_http(server, kind, openai), **options
    )


def anthropic_client(server, kind=anthropic.Anthropic):
    """Return a client of Anthropic's SDK that talks to a server in this process."""
    http = _http(server, kind, anthropic)
    return kind(api_key="k", base_url="http://test", max_retries=0, http_client=http)


def _http(server, kind, sdk):
    if kind.__name__.startswith("Async"):
        handler = httpx2.MockTransport(server.asynchronous)
        return httpx2.AsyncClient(transport=handler)
    return httpx2.Client(transport=httpx2.MockTransport(server.sync))


def on_loopback(api, said):
    """Return a server on a real socket, which says the same to every request."""
    return loopback(lambda n, seen: api.answer(said, json.loads(seen.body), n))


def failing_loopback(answer):
    """Return a server on a real socket, which answers every request the same."""
    return loopback(lambda n, seen: answer)


def events_of(answer):
    """Return the JSON of each event of a stream, and its name; None for no JSON."""
    found = []
    for _, part in answer.body:
        fields = dict(line.split(": ", 1) for line in part.decode().strip().split("\n"))
        assert part.endswith(b"\n\n")
        data = fields["data"]
        value = None if data == "[DONE]" else json.loads(data)
        found.append((fields.get("event"), value))
    return found


def call_of(name, text, call_id):
    """Return a tool call for arguments as text."""
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return ToolCall(name, arguments, call_id)
    return ToolCall(name, {}, call_id, broken_arguments=text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def responses(draw):
    """Draw any answer of a model whose usage is told."""
    reason = draw(st.sampled_from(REASONS))
    cached = draw(st.integers(0, 50))
    calls = draw(
        st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3)
    )
    return LLMResponse(
        draw(st.text(min_size=int(reason == "refusal"))),
        tuple(
            ToolCall(f"tool_{place}", arguments, f"call_{place}")
            for place, arguments in enumerate(calls)
        ),
        reason,
        Usage(cached + draw(st.integers(0, 500)), draw(st.integers(0, 500)), cached),
        draw(st.sampled_from(["one-model", "another"])),
    )


@st.composite
def damaged(draw, body):
    """Draw a request in which one value, wherever it stands, is another one."""
    places = [()]

    def walk(value, path):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            places.append((*path, key))
            if isinstance(inner, dict | list):
                walk(inner, (*path, key))

    body = json.loads(json.dumps(body))
    walk(body, ())
    *path, last = draw(st.sampled_from(places[1:]))
    holder = body
    for key in path:
        holder = holder[key]
    holder[last] = draw(json_values | st.sampled_from(["", "text", 0, -1, [], {}]))
    return body
