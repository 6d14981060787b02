"""The settings of a service, from the environment and `.env`, with no secret shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from tta_primitives.errors import PrimitiveError
from tta_primitives.extras import needs
from tta_primitives.resilient import resilient

with needs("settings", __name__, "pydantic_settings"):
    from pydantic_settings import BaseSettings, SettingsConfigDict
    from pydantic_settings import SettingsError as SourceError

with needs("settings", __name__, "pydantic"):
    from pydantic import Field, SecretStr, ValidationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tta_primitives.primitive import In, Out, WorkflowPrimitive

__all__ = ["SettingsError", "WorkflowSettings"]

_MISSING: Final = "missing"
_SHORTEST_SECRET: Final = 3


class SettingsError(PrimitiveError, ValueError):
    """The environment lacks a setting, or has one that is not valid.

    Attributes:
        variables: The names of the variables that are at fault.
    """

    def __init__(self, message: str, *, variables: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.variables = variables


class WorkflowSettings(BaseSettings):
    """Settings of a service that runs workflows; subclass it with those of your own.

    Each field is read from the variable of its name in upper case, behind `env_prefix`
    if there is one, and then from the file `.env`. A field of type `SecretStr` is shown
    as `**********` wherever it is printed. What is missing or wrong raises a
    `SettingsError` that names the variables, and shows no value.

    Attributes:
        openai_api_key: For `OpenAIPrimitive(api_key=settings.openai_api_key)`.
        anthropic_api_key: For `AnthropicPrimitive`.
        cache_ttl: How long an answer is kept, in seconds; 0 for not at all.
        max_retries: How often a call is tried again.
        attempt_timeout: How long one attempt may take, in seconds.
        total_timeout: How long all attempts and pauses may take, in seconds.
        max_concurrency: How many calls there may be at a time; None for any number.
        rate_per_second: How many calls may start in each second; None for any number.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        # Or errors of an assignment, with `validate_assignment`, show what was given.
        hide_input_in_errors=True,
    )

    openai_api_key: SecretStr | None = None
    anthropic_api_key: SecretStr | None = None
    cache_ttl: float = Field(default=3600.0, ge=0)
    max_retries: int = Field(default=3, ge=0)
    attempt_timeout: float = Field(default=20.0, gt=0)
    total_timeout: float = Field(default=60.0, gt=0)
    max_concurrency: int | None = Field(default=None, ge=1)
    rate_per_second: float | None = Field(default=None, gt=0)

    if not TYPE_CHECKING:  # Type checkers know the fields as arguments.

        def __init__(self, **values: Any) -> None:  # noqa: ANN401 - any field
            try:
                super().__init__(**values)
                return
            except ValidationError as error:
                problems = error.errors(include_url=False, include_context=False)
                raised = _settings_error(type(self), problems)
            except SourceError as error:
                # What cannot be parsed at all; it names the field, not the value.
                raised = SettingsError(f"{type(self).__name__}: {error}")
            # Raised outside the handlers: what they have caught holds what was given.
            raise raised

    def resilient(
        self,
        primitive: WorkflowPrimitive[In, Out] | Callable[[In], Awaitable[Out]],
    ) -> WorkflowPrimitive[In, Out]:
        """Return a primitive in the usual stack, with these settings.

        Args:
            primitive: What is to be protected, as for `tta_primitives.resilient`.
        """
        built: Any = resilient(primitive, **self.layers())
        return built  # type: ignore[no-any-return]

    def layers(self) -> dict[str, Any]:
        """Return the layers that these settings ask for, for `resilient(**layers)`."""
        return {
            "total_timeout": self.total_timeout,
            "cache": self.cache_ttl or None,
            "retry": self.max_retries or None,
            "rate_limit": self.rate_per_second,
            "bulkhead": self.max_concurrency,
            "attempt_timeout": self.attempt_timeout,
        }


def _settings_error(settings: type[BaseSettings], problems: list[Any]) -> SettingsError:
    """Return the error that names variables where pydantic names fields."""
    lines, variables = [], []
    for problem in problems:
        variable = _variable_of(settings, problem["loc"])
        message = problem["msg"]
        if problem["type"] == _MISSING:
            message = "not set"
        given = problem["input"]
        if isinstance(given, (str, SecretStr)):
            text = given if isinstance(given, str) else given.get_secret_value()
            # Shorter ones would be found in any message.
            is_told = len(text) >= _SHORTEST_SECRET and text in message
            message = message.replace(text, "***") if is_told else message
        variables.append(variable)
        lines.append(f"{variable}: {message}")
    file = settings.model_config.get("env_file")
    where = f"in the environment or in {file}" if file else "in the environment"
    joined = "; ".join(lines)
    message = f"{settings.__name__} is not complete: {joined}. Set them {where}"
    return SettingsError(message, variables=tuple(variables))


def _variable_of(settings: type[BaseSettings], place: tuple[int | str, ...]) -> str:
    """Return the variable that a field is read from."""
    config = settings.model_config
    first, *inner = map(str, place) if place else ("",)
    aliases = {
        alias
        for field in settings.model_fields.values()
        for alias in (field.alias, field.validation_alias)
        if isinstance(alias, str)
    }
    name = first if first in aliases else f"{config.get('env_prefix', '')}{first}"
    nested = config.get("env_nested_delimiter")
    if nested:
        name = nested.join((name, *inner))
    return name if config.get("case_sensitive") else name.upper()
