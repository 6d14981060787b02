"""A provider's key, which nobody gets to see."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.llm.errors import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ApiKey", "KeySource"]

KeySource: TypeAlias = "str | Callable[[], str | Awaitable[str]]"


class ApiKey:
    """Where a key comes from: an argument, a function, or the environment.

    Args:
        given: A key, something with `get_secret_value()` as pydantic has it, a sync or
            async function that returns one of these, or None for the environment.
        variable: The variable of the environment.
        owner: Who needs it, for the error.

    Raises:
        TypeError: It is none of these.
        ValueError: It is empty.
    """

    __slots__ = ("_given", "_owner", "_variable")

    def __init__(self, given: object, variable: str, owner: str) -> None:
        self._variable = variable
        self._owner = owner
        if given is not None and not callable(given):
            given = self._checked(given, "api_key=")
        self._given: Any = given

    def __repr__(self) -> str:
        return "<ApiKey>"

    async def get(self) -> str:
        """Return the key.

        Raises:
            LLMConfigurationError: There is none in the environment.
            TypeError: The function has returned something else.
        """
        if isinstance(self._given, str):
            return self._given
        if self._given is not None:
            answer = self._given()
            if inspect.isawaitable(answer):
                answer = await answer
            return self._checked(answer, "what api_key=<function> has returned")
        found = os.environ.get(self._variable, "").strip()
        if found:
            return found
        msg = (
            f"{self._owner} has no API key: set the environment variable "
            f"{self._variable}, or give api_key= (any text if the server wants none)"
        )
        raise LLMConfigurationError(msg)

    @staticmethod
    def _checked(given: object, what: str) -> str:
        reveal = getattr(given, "get_secret_value", None)
        key = reveal() if callable(reveal) else given
        # What is wrong is shown by its type only: it may be the key after all.
        if not isinstance(key, str):
            msg = f"{what} must be text or a function, not {type(key).__name__}"
            raise TypeError(msg)
        if not key.strip():
            msg = f"{what} is empty"
            raise LLMConfigurationError(msg)
        return key.strip()
