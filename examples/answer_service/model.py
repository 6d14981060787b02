"""The language model: any server that speaks OpenAI's chat completions over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from examples.answer_service.errors import (
    ModelNotConfiguredError,
    ModelReplyError,
    ServiceError,
    SettingError,
)
from examples.answer_service.search import Evidence
from tta_primitives import WorkflowPrimitive, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from tta_primitives import WorkflowContext

__all__ = ["ChatModel", "model_from", "unconfigured"]

_BASE_URL = "https://api.openai.com/v1"
_MODEL = "gpt-4o-mini"
_ORDER = (
    "Answer the question in a few sentences, only from the passages of the "
    "documentation that follow it. If they do not answer it, say so."
)


class ChatModel(WorkflowPrimitive[Evidence, str]):
    """Asks a model to answer from the passages that were found.

    Neither retries nor time limits are in here: what is wrapped around this primitive
    decides, in one place. It only says truthfully what happened. The error of
    `raise_for_status` carries the response, and that is where a retry reads the status
    and `Retry-After`.

    Args:
        client: Knows the base address and the key; shared, as it keeps connections.
        model: The model's name.
    """

    name = "model"

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self._client = client
        self._model = model

    def options(self) -> dict[str, Any]:
        """Return what may be shown; the key may not."""
        return {"model": self._model, "base_url": str(self._client.base_url)}

    async def execute(self, evidence: Evidence, context: WorkflowContext, /) -> str:
        """Ask once."""
        response = await self._client.post(
            "chat/completions",
            json={"model": self._model, "messages": _messages(evidence)},
            # The same for all attempts of one retry: a server that has done the work
            # although its answer got lost can tell that it is asked again.
            headers={"Idempotency-Key": context.idempotency_key or context.run_id},
        )
        response.raise_for_status()
        return _text(response)


def _messages(evidence: Evidence) -> list[dict[str, str]]:
    passages = "\n\n".join(
        f"[{match.passage}]\n{match.passage.text}" for match in evidence.matches
    )
    asked = f"Question: {evidence.question}\n\nPassages:\n\n{passages}"
    return [
        {"role": "system", "content": _ORDER},
        {"role": "user", "content": asked},
    ]


def _text(response: httpx.Response) -> str:
    """Return the text of a whole answer; half of one is an error, not an answer."""
    try:
        choice = response.json()["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        msg = f"the model's reply is no chat completion: {response.text[:80]!r}"
        raise ModelReplyError(msg) from error
    if reason not in {"stop", None} or not isinstance(text, str) or not text.strip():
        msg = f"the model's answer is not whole: finish_reason={reason!r}, {text!r:.80}"
        raise ModelReplyError(msg)
    return text.strip()


@step(name="model")
async def unconfigured(evidence: Evidence) -> str:  # noqa: ARG001 - in a model's place
    """Stand in the model's place when there is none."""
    msg = "no model is configured; set OPENAI_API_KEY, or OPENAI_BASE_URL"
    raise ModelNotConfiguredError(msg)


@asynccontextmanager
async def model_from(
    environment: Mapping[str, str],
) -> AsyncIterator[WorkflowPrimitive[Evidence, str]]:
    """Open the model that the environment describes, for the length of a block.

    Args:
        environment: `OPENAI_API_KEY`, `OPENAI_BASE_URL` (for a server of your own that
            may need no key) and `OPENAI_MODEL`, all optional.

    Yields:
        The model, or `unconfigured`.

    Raises:
        SettingError: `OPENAI_BASE_URL` is no address.
        ServiceError: httpx is not installed.
    """
    key = environment.get("OPENAI_API_KEY")
    base_url = environment.get("OPENAI_BASE_URL")
    if not key and not base_url:
        yield unconfigured
        return
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    httpx = _httpx()
    # No timeout of the client's own: TimeoutPrimitive sets the limits, all of them.
    async with httpx.AsyncClient(
        base_url=_checked(base_url or _BASE_URL), headers=headers, timeout=None
    ) as client:
        yield ChatModel(client, environment.get("OPENAI_MODEL") or _MODEL)


def _checked(base_url: str) -> str:
    scheme, _, host = base_url.partition("://")
    if scheme in {"http", "https"} and host.strip("/"):
        return base_url
    msg = f"OPENAI_BASE_URL={base_url!r} must look like 'http://localhost:8000/v1'"
    raise SettingError(msg)


def _httpx() -> Any:  # noqa: ANN401 - a module
    try:
        import httpx
    except ModuleNotFoundError as error:
        msg = (
            "asking a model needs httpx; install it with "
            'pip install "tta-dev-primitives[examples]"'
        )
        raise ServiceError(msg) from error
    return httpx
