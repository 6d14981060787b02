"""`OpenAIPrimitive`: OpenAI, and every server that speaks its API."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from tta_primitives.arguments import check_choice
from tta_primitives.llm.openai_chat import ChatCompletions
from tta_primitives.llm.openai_responses import Responses
from tta_primitives.llm.primitive import LLMOptions, LLMPrimitive, Vendor

if TYPE_CHECKING:
    from typing import Unpack

    from tta_primitives.llm.api_key import KeySource

__all__ = ["OpenAIApi", "OpenAIPrimitive"]

OpenAIApi: TypeAlias = Literal["chat", "responses"]

_OWN_HOSTS = ("openai.com", "azure.com")


class OpenAIPrimitive(LLMPrimitive):
    """Asks a model of OpenAI, or of any server that speaks its API.

    With `base_url=` that is vLLM, Ollama, OpenRouter, Groq and many more. The arguments
    that are not explained here are those of `LLMPrimitive`.

    Args:
        api_key: The key, or a function that is asked for it on every call; None for the
            environment variable `OPENAI_API_KEY`.
        api: `"chat"` for the Chat Completions, which every server has, `"responses"`
            for OpenAI's newer Responses API.
        options: As for `LLMPrimitive`, for `chat.completions.create` or
            `responses.create`.

    Raises:
        ImportError: The package openai is not installed.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a wrong value.
    """

    name = "openai"
    _vendor: ClassVar[Vendor] = Vendor(
        name="openai", client="AsyncOpenAI", variables="OPENAI"
    )

    def __init__(
        self,
        api_key: KeySource | None = None,
        *,
        api: OpenAIApi = "chat",
        **options: Unpack[LLMOptions],
    ) -> None:
        super().__init__(api_key, **options)
        check_choice("api", api, get_args(OpenAIApi))
        if api == "responses":
            self._dialect = Responses()
        else:
            host = urlsplit(self._url() or "").hostname
            is_own = host is None or host.endswith(_OWN_HOSTS)
            self._dialect = ChatCompletions(
                "max_completion_tokens" if is_own else "max_tokens"
            )
