"""What the LLM primitives of all vendors have in common."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, get_args

from tta_primitives.arguments import check_choice, check_count, check_number, seconds
from tta_primitives.deadline import bounds, expired, until, within_stream
from tta_primitives.door import closing, emit, is_listening
from tta_primitives.extras import needs
from tta_primitives.llm.api_key import ApiKey
from tta_primitives.llm.clients import Owner, client_for, close_clients
from tta_primitives.llm.errors import LLMConfigurationError
from tta_primitives.llm.judgement import OnIncomplete, judge, named
from tta_primitives.llm.messages import LLMInput, LLMRequest, LLMResponse, Tool
from tta_primitives.llm.plain import events_of, plain_answer
from tta_primitives.llm.reading import Reading
from tta_primitives.llm.shown import mark, public, without_secrets
from tta_primitives.llm.structured import Structure
from tta_primitives.llm.timeouts import limited
from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
    from datetime import timedelta
    from typing import Self

    from tta_primitives.context import WorkflowContext
    from tta_primitives.llm.dialect import Dialect

__all__ = ["LLMOptions", "LLMPrimitive", "LLMStats", "Vendor"]


class LLMOptions(TypedDict, total=False):
    """The keyword arguments that all LLM primitives have; `LLMPrimitive` explains them.

    Attributes:
        model: As above, and so are the others.
        base_url: As above.
        client: As above.
        tools: As above.
        schema: As above.
        temperature: As above.
        max_output_tokens: As above.
        timeout: As above.
        options: As above.
        on_incomplete: As above.
    """

    model: str | None
    base_url: str | None
    client: Any
    tools: Iterable[Tool]
    schema: Mapping[str, Any] | type | None
    temperature: float | None
    max_output_tokens: int | None
    timeout: float | timedelta | None
    options: Mapping[str, Any] | None
    on_incomplete: OnIncomplete


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """What differs between vendors beside their APIs.

    Attributes:
        name: As OpenTelemetry calls it, which is its SDK's and its extra's name too.
        client: The name of the SDK's client class.
        variables: How its variables of the environment begin.
    """

    name: str
    client: str
    variables: str


@dataclass(frozen=True, slots=True)
class LLMStats:
    """What an LLM primitive has done so far.

    Attributes:
        calls: Requests to the provider that were begun.
        answered: Answers to go on with.
        incomplete: Answers that were not whole, whether an error was raised or not.
        input_tokens: Tokens of the requests, those of failed calls included if told.
        output_tokens: Tokens of the answers.
        cached_tokens: Those tokens of the requests that the provider had cached.
    """

    calls: int
    answered: int
    incomplete: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class _Counts:
    """The counters of one primitive and its renamed copies."""

    __slots__ = tuple(LLMStats.__dataclass_fields__)

    def __init__(self) -> None:
        self.calls = self.answered = self.incomplete = 0
        self.input_tokens = self.output_tokens = self.cached_tokens = 0


class LLMPrimitive(WorkflowPrimitive[LLMInput, LLMResponse]):
    """Asks a language model; `OpenAIPrimitive` and `AnthropicPrimitive` are the two.

    The input is a question, a message, a list of messages, a mapping of the fields of
    an `LLMRequest`, or one; what a request says itself outweighs the primitive's own
    arguments. The output is an `LLMResponse`, whose `str()` is the text. A stream gives
    texts; the whole response is in `context.outcomes`, under the primitive's path, when
    it has ended.

    An answer that is not whole is an error of its own (`IncompleteResponseError` and
    those below it). The SDK's own retries are off: put a `RetryPrimitive` around.

    Where the context has a deadline the SDK does not wait longer than until then.

    Observers hear `llm.usage` after each answer, with the names of OpenTelemetry's
    conventions for generative AI.

    Args:
        api_key: The provider's key, or a sync or async function that is asked for it on
            every call; None for the environment.
        model: The model's name; None for the environment (`OPENAI_MODEL`,
            `ANTHROPIC_MODEL`), or for requests that name one.
        base_url: Where the API is; None for the environment (`OPENAI_BASE_URL`,
            `ANTHROPIC_BASE_URL`) or the vendor's own.
        client: An async client of the SDK to use instead, which is not closed.
        tools: The tools that the model may ask for.
        schema: What a structured answer must look like: a pydantic model, another type
            that pydantic knows, or a JSON schema; None for free text.
        temperature: How random answers may be, None for the provider's default.
        max_output_tokens: The most tokens of an answer; None for the provider's
            default, which for Anthropic is 4096.
        timeout: Seconds to wait for the next byte of an answer; None for the client's,
            which is 600.
        options: What else goes to the SDK's method as it is; None as a value takes an
            argument back.
        on_incomplete: `"raise"`, or `"return"` for answers whose `finish_reason` tells
            what they lack.

    Raises:
        ImportError: The SDK is not installed.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a wrong value.
    """

    _vendor: ClassVar[Vendor]
    _dialect: Dialect

    def __init__(
        self,
        api_key: object = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        client: Any = None,  # noqa: ANN401 - the SDKs are not imported
        tools: Iterable[Tool] = (),
        schema: Mapping[str, Any] | type | None = None,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        timeout: float | timedelta | None = None,
        options: Mapping[str, Any] | None = None,
        on_incomplete: OnIncomplete = "raise",
    ) -> None:
        self._sdk = _sdk(self._vendor)
        self._key = ApiKey(api_key, self._variable("API_KEY"), type(self).__name__)
        self._model = _checked_text("model", model)
        self._base_url = _checked_text("base_url", base_url)
        self._client = None if client is None else self._own_client(client)
        if client is not None and not (api_key is None and base_url is None):
            msg = "client= has a key and a base_url of its own; give either it or them"
            raise ValueError(msg)
        self._tools = tuple(map(_checked_tool, tools))
        self._schema = schema
        self._structure = Structure.of(schema)
        if temperature is not None:
            check_number("temperature", temperature, zero=True)
        self._temperature = temperature
        if max_output_tokens is not None:
            check_count("max_output_tokens", max_output_tokens, minimum=1)
        self._max_output_tokens = max_output_tokens
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._options = dict(options or {})
        check_choice("on_incomplete", on_incomplete, get_args(OnIncomplete))
        self._on_incomplete: OnIncomplete = on_incomplete
        self._counts = _Counts()
        self._owner = Owner()

    def _variable(self, name: str) -> str:
        return f"{self._vendor.variables}_{name}"

    def _own_client(self, client: Any) -> Any:  # noqa: ANN401 - as above
        """Return a user's client, without retries of its own."""
        kinds = {kind.__name__ for kind in type(client).__mro__}
        if "SyncAPIClient" in kinds:
            msg = (
                f"client={type(client).__name__} would block the event loop; "
                f"use {self._vendor.client}"
            )
            raise TypeError(msg)
        return client.with_options(max_retries=0)

    def options(self) -> dict[str, Any]:
        """Return what tells this model's answers from those of others."""
        url = self._url()
        shown = {
            "model": self._model or self._environment("MODEL"),
            "api": self._dialect.name,
            "base_url": None if url is None else without_secrets(str(url)),
            "tools": [f"{one.name}#{mark(one)}" for one in self._tools],
            "schema": None if self._structure is None else repr(self._structure),
            "temperature": self._temperature,
            "max_output_tokens": self._max_output_tokens,
            "options": {k: public(k, v) for k, v in self._options.items()},
            "on_incomplete": None if self._on_incomplete == "raise" else "return",
        }
        return {k: v for k, v in shown.items() if v is not None and v not in ([], {})}

    @property
    def stats(self) -> LLMStats:
        """Return what was counted so far, also for renamed twins of this primitive."""
        counts = self._counts
        return LLMStats(*(getattr(counts, name) for name in counts.__slots__))

    async def aclose(self) -> None:
        """Close its connections on the running loop, unless others share them.

        It may be used again, and then opens new ones.
        """
        await close_clients(self._owner)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def execute(
        self, input_data: LLMInput, context: WorkflowContext, /
    ) -> LLMResponse:
        """Ask the model, and return the whole answer."""
        request = self._request(input_data)
        limit, deadline = bounds(math.inf, context)
        if limit <= 0:
            raise expired(limit, self, context)
        answering = self._answer(request, context)
        if limit < math.inf:
            return await until(answering, deadline, limit, self, context)
        return await answering

    async def _answer(
        self, request: LLMRequest, context: WorkflowContext
    ) -> LLMResponse:
        where = self._where(request, context)
        structure = self._structure_of(request)
        body = self._body(request, structure, is_stream=False)
        client = await self._a_client()
        self._counts.calls += 1
        try:
            answer = await self._dialect.call(
                client, **body, timeout=self._patience(client, context)
            )
        except Exception as error:
            renamed = named(error, Reading(), where, is_stream=False)
            if renamed is None:
                raise
            raise renamed from error
        reading = self._dialect.read(plain_answer(answer, where))
        return self._judged(reading, request, context, structure)

    async def stream(
        self, input_data: LLMInput, context: WorkflowContext, /
    ) -> AsyncIterator[str]:
        """Ask the model, and yield the text as it comes."""
        request = self._request(input_data)
        limit, deadline = bounds(math.inf, context)
        if limit <= 0:
            raise expired(limit, self, context)
        async with closing(self._texts(request, context)) as own:
            texts: AsyncIterator[str] = own
            if limit < math.inf:
                texts = within_stream(own, deadline, limit, self, context)
            async with closing(texts) as bounded:
                async for text in bounded:
                    yield text

    async def _texts(
        self, request: LLMRequest, context: WorkflowContext
    ) -> AsyncGenerator[str, None]:
        where = self._where(request, context)
        structure = self._structure_of(request)
        body = self._body(request, structure, is_stream=True)
        collector = self._dialect.collector()
        client = await self._a_client()
        self._counts.calls += 1
        try:
            opened = await self._dialect.call(
                client, **body, timeout=self._patience(client, context)
            )
            if not hasattr(opened, "__aiter__"):
                plain_answer(opened, where)
            async with closing(events_of(opened, where)) as events:
                async for event in events:
                    text = collector.feed(event)
                    if text:
                        yield text
        except Exception as error:
            collector.end()
            renamed = named(error, collector.reading, where, is_stream=True)
            self._note(collector.reading, request, context)
            if renamed is None:
                raise
            self._counts.incomplete += 1
            raise renamed from error
        collector.end()
        response = self._judged(
            collector.reading, request, context, structure, is_stream=True
        )
        context.outcomes[context.position_of(self).path] = response

    def _request(self, input_data: LLMInput) -> LLMRequest:
        """Return what is asked, with what the request itself leaves open filled in."""
        asked = LLMRequest.of(input_data)
        model = asked.model or self._model or self._environment("MODEL")
        if model is None:
            msg = (
                f"{self.name} has no model: give model=, name one in the request, or "
                f"set the environment variable {self._variable('MODEL')}"
            )
            raise LLMConfigurationError(msg)
        warmth, most = asked.temperature, asked.max_output_tokens
        return replace(
            asked,
            model=model,
            tools=asked.tools or self._tools,
            schema=self._schema if asked.schema is None else asked.schema,
            temperature=self._temperature if warmth is None else warmth,
            max_output_tokens=self._max_output_tokens if most is None else most,
            options={**self._options, **asked.options},
        )

    def _structure_of(self, request: LLMRequest) -> Structure | None:
        if request.schema is self._schema:
            return self._structure
        return Structure.of(request.schema)

    def _body(
        self, request: LLMRequest, structure: Structure | None, *, is_stream: bool
    ) -> dict[str, Any]:
        body = self._dialect.body(request, structure, is_stream=is_stream)
        body |= request.options
        return {key: value for key, value in body.items() if value is not None}

    async def _a_client(self) -> Any:  # noqa: ANN401 - the SDKs are not imported
        if self._client is not None:
            return self._client
        key = await self._key.get()
        url = self._url()
        kind = getattr(self._sdk, self._vendor.client)

        def make(key: str) -> Any:  # noqa: ANN401 - as above
            return kind(api_key=key, base_url=url, max_retries=0)

        return await client_for((self._vendor.name, url), key, self._owner, make)

    def _url(self) -> str | None:
        if self._client is not None:
            return str(self._client.base_url)
        return self._base_url or self._environment("BASE_URL")

    def _environment(self, name: str) -> str | None:
        return os.environ.get(self._variable(name), "").strip() or None

    def _patience(
        self,
        client: Any,  # noqa: ANN401 - as above
        context: WorkflowContext,
    ) -> object:
        """Return how long the SDK waits, for the next byte and for what is before."""
        timeout = self._timeout
        usual: object = client.timeout if timeout is None else timeout
        return limited(usual, context.remaining(), self._sdk.Timeout)

    def _where(self, request: LLMRequest, context: WorkflowContext) -> str:
        return f"{context.position_of(self).path}: the answer of {request.model}"

    def _judged(
        self,
        reading: Reading,
        request: LLMRequest,
        context: WorkflowContext,
        structure: Structure | None,
        *,
        is_stream: bool = False,
    ) -> LLMResponse:
        self._note(reading, request, context)
        # Tools that were given in a vendor's words are not known here.
        tools = None if "tools" in request.options else request.tools
        try:
            response = judge(
                reading,
                structure,
                tools,
                self._where(request, context),
                self._on_incomplete,
                is_stream=is_stream,
            )
        except Exception:
            self._counts.incomplete += 1
            raise
        if response.is_complete:
            self._counts.answered += 1
        else:
            self._counts.incomplete += 1
        return response

    def _note(
        self, reading: Reading, request: LLMRequest, context: WorkflowContext
    ) -> None:
        """Count the tokens of an answer, and tell observers of them."""
        usage, counts = reading.usage, self._counts
        if usage is None:
            return
        counts.input_tokens += usage.input_tokens
        counts.output_tokens += usage.output_tokens
        counts.cached_tokens += usage.cached_tokens
        if not is_listening():
            return
        told: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._vendor.name,
            "gen_ai.request.model": request.model,
            "gen_ai.response.model": reading.model,
            "gen_ai.response.finish_reasons": [reading.reason or "unknown"],
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        }
        emit(context, "llm.usage", **told)


def _sdk(vendor: Vendor) -> Any:  # noqa: ANN401 - the SDKs are not imported
    """Import a vendor's SDK: when a primitive is made, not in the first request."""
    with needs(vendor.name, "this primitive"):
        return import_module(vendor.name)


def _checked_text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    msg = f"{name}={value!r} must be a text that is not empty, or None"
    raise TypeError(msg)


def _checked_tool(value: object) -> Tool:
    if isinstance(value, Tool):
        return value
    msg = f"tools= has {value!r}, which is no Tool; vendors' own go into options="
    raise TypeError(msg)
