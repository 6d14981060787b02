"""What is asked of a language model and what it answers, in no vendor's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from tta_primitives.arguments import check_choice, check_count

__all__ = [
    "FinishReason",
    "LLMInput",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "Role",
    "Tool",
    "ToolCall",
    "Usage",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "refusal", "unknown"
]
MessageInput: TypeAlias = "Message | Mapping[str, Any]"
LLMInput: TypeAlias = (
    "str | LLMRequest | MessageInput | list[MessageInput] | tuple[MessageInput, ...]"
)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to be called.

    Attributes:
        name: The tool's name.
        arguments: The arguments by name; empty when they were broken.
        id: What ties the tool's result to this call, as the provider chose it.
        broken_arguments: The arguments as the model wrote them, when they were no JSON
            object; None when they are sound.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    broken_arguments: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no name or no mapping."""
        _check_text("name", self.name, empty=False)
        _check_mapping("arguments", self.arguments)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: Who speaks: system, user, assistant or tool.
        content: What is said.
        tool_calls: The tools that an assistant's message wants to be called.
        tool_call_id: Which call the message of a tool answers.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown role and content that is no text."""
        check_choice("role", self.role, get_args(Role))
        _check_text("content", self.content)
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))

    @classmethod
    def of(cls, value: Message | Mapping[str, Any]) -> Message:
        """Return a message for a message or a mapping of its fields.

        Args:
            value: A message, or a mapping such as `{"role": "user", "content": "Hi"}`.

        Raises:
            TypeError: It is neither, or has a field that messages do not have.
        """
        if isinstance(value, Message):
            return value
        _check_mapping("message", value)
        return cls(**_known_fields(cls, value))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may ask to be called.

    Attributes:
        name: The tool's name.
        description: What it does, in words for the model.
        parameters: The JSON schema of its arguments.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no name or no schema."""
        _check_text("name", self.name, empty=False)
        _check_mapping("parameters", self.parameters)


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a call was charged for.

    Attributes:
        input_tokens: Tokens of the request, the cached ones included.
        output_tokens: Tokens of the response, its hidden reasoning included.
        cached_tokens: Those tokens of the request that came from the provider's cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        for one in fields(self):
            check_count(one.name, getattr(self, one.name))

    @property
    def total_tokens(self) -> int:
        """The tokens of request and response together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return the usage of two calls together."""
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """What is asked of a model.

    Attributes:
        messages: The conversation so far, at least one message.
        model: The model's name, None for the one that the primitive was built with.
        tools: The tools that it may ask for.
        schema: What a structured answer must look like: a JSON schema or a pydantic
            model; None for free text.
        temperature: How random the answer may be, None for the provider's default.
        max_output_tokens: The most tokens that the answer may have.
        options: Whatever else goes to the provider as it is.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    tools: tuple[Tool, ...] = ()
    schema: Mapping[str, Any] | type | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take messages and tools as tuples; refuse an empty conversation."""
        object.__setattr__(self, "messages", tuple(map(Message.of, self.messages)))
        object.__setattr__(self, "tools", tuple(self.tools))
        if not self.messages:
            msg = "messages=() must hold at least one message"
            raise ValueError(msg)
        if self.max_output_tokens is not None:
            check_count("max_output_tokens", self.max_output_tokens, minimum=1)
        _check_mapping("options", self.options)

    @classmethod
    def of(cls, value: LLMInput) -> LLMRequest:
        """Return a request for what an LLM primitive accepts as input.

        Args:
            value: A question, a message, a list of messages, a mapping of the request's
                fields, or a request.

        Raises:
            TypeError: It is none of these.
        """
        if isinstance(value, LLMRequest):
            return value
        if isinstance(value, str):
            return cls((Message("user", value),))
        if isinstance(value, Message) or (
            isinstance(value, Mapping) and "role" in value
        ):
            return cls((Message.of(value),))
        if isinstance(value, Mapping) and "messages" in value:
            return cls(**_known_fields(cls, value))
        if isinstance(value, (list, tuple)):
            return cls(tuple(Message.of(one) for one in value))
        msg = (
            f"{value!r} is no request to a model; give a text, a message, a list of "
            "messages, a mapping with 'messages', or an LLMRequest"
        )
        raise TypeError(msg)

    @property
    def text(self) -> str:
        """The content of all messages, one below the other."""
        return "\n".join(one.content for one in self.messages if one.content)

    @property
    def last_user(self) -> str:
        """What the user said last, "" if nothing."""
        said = (one.content for one in reversed(self.messages) if one.role == "user")
        return next(said, "")


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """What a model answered.

    Attributes:
        content: The text of the answer, "" if it only calls tools.
        tool_calls: The tools that it wants to be called.
        finish_reason: Why it ended; anything but `stop` and `tool_calls` means that the
            answer is not whole.
        usage: The tokens it took, None if the provider did not tell.
        model: The model that answered, as the provider names it.
        data: The structured answer, parsed by the request's schema.
    """

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    model: str | None = None
    data: Any = None

    def __post_init__(self) -> None:
        """Refuse content that is no text and reasons that are not known."""
        _check_text("content", self.content)
        check_choice("finish_reason", self.finish_reason, get_args(FinishReason))
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))

    @property
    def is_complete(self) -> bool:
        """Whether the model ended of its own accord, and its tool calls are sound."""
        is_broken = any(one.broken_arguments is not None for one in self.tool_calls)
        return self.finish_reason in {"stop", "tool_calls"} and not is_broken

    def __str__(self) -> str:
        return self.content


def _check_text(name: str, value: object, *, empty: bool = True) -> None:
    if not isinstance(value, str):
        msg = f"{name}={value!r} must be text, not {type(value).__name__}"
        raise TypeError(msg)
    if not (value or empty):
        msg = f"{name}={value!r} must not be empty"
        raise ValueError(msg)


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        msg = f"{name}={value!r} must be a mapping, not {type(value).__name__}"
        raise TypeError(msg)


def _known_fields(cls: type, value: Mapping[str, Any]) -> dict[str, Any]:
    known = [one.name for one in fields(cls)]
    unknown = [name for name in value if name not in known]
    if unknown:
        msg = (
            f"{cls.__name__} has no field {', '.join(map(repr, unknown))}; "
            f"its fields are: {', '.join(known)}"
        )
        raise TypeError(msg)
    return dict(value)
