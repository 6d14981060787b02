"""`AnthropicPrimitive`: the models of Anthropic."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tta_primitives.llm.anthropic_messages import Messages
from tta_primitives.llm.primitive import LLMOptions, LLMPrimitive, Vendor

if TYPE_CHECKING:
    from typing import Unpack

    from tta_primitives.llm.api_key import KeySource

__all__ = ["AnthropicPrimitive"]


class AnthropicPrimitive(LLMPrimitive):
    """Asks a model of Anthropic, through its Messages API.

    System messages, wherever they stand, go into the one system prompt that the API
    has. The arguments that are not explained here are those of `LLMPrimitive`.

    Args:
        api_key: The key, or a function that is asked for it on every call; None for the
            environment variable `ANTHROPIC_API_KEY`.
        options: As for `LLMPrimitive`, for `messages.create`.

    Raises:
        ImportError: The package anthropic is not installed.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a wrong value.
    """

    name = "anthropic"
    _vendor: ClassVar[Vendor] = Vendor(
        name="anthropic", client="AsyncAnthropic", variables="ANTHROPIC"
    )

    def __init__(
        self, api_key: KeySource | None = None, **options: Unpack[LLMOptions]
    ) -> None:
        super().__init__(api_key, **options)
        self._dialect = Messages()
