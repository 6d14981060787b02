"""The workflow: a letter for each subscriber, written and sent by a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.distributed import remote
from tta_primitives.recovery import RetryPrimitive

if TYPE_CHECKING:
    from tta_primitives import WorkflowPrimitive
    from tta_primitives.distributed import Engine

__all__ = ["Letter", "Mail", "Subscriber", "build_newsletter", "letter"]


class Subscriber(TypedDict):
    """Who gets a letter. Only JSON crosses to a worker, so it is a dict."""

    name: str
    address: str
    topics: list[str]


class Letter(TypedDict):
    """What is sent."""

    to: str
    text: str


class Mail(Protocol):
    """Sends letters, each key once: most providers take such a key."""

    async def send(self, letter: Letter, *, key: str) -> None:
        """Send a letter, unless one with this key was sent."""


@step
async def write(subscriber: Subscriber) -> Letter:
    """Write the letter of one subscriber."""
    topics = ", ".join(sorted(subscriber["topics"])) or "everything"
    text = f"Dear {subscriber['name']}, this week about {topics}."
    return {"to": subscriber["address"], "text": text}


@step
async def send(letter: Letter, context: WorkflowContext) -> str:
    """Send it; the key is the same for each delivery and each attempt."""
    mail: Mail = context.deps["mail"]
    await mail.send(letter, key=str(context.idempotency_key))
    return letter["to"]


letter = (write >> send).named("letter")


@step
async def summary(sent: list[str]) -> dict[str, Any]:
    """Tell how many letters were sent."""
    return {"sent": len(sent), "last": sent[-1] if sent else None}


def build_newsletter(
    engine: Engine,
) -> WorkflowPrimitive[list[Subscriber], dict[str, Any]]:
    """Return the workflow, with the letters on the engine's workers."""
    on_a_worker = remote(letter, engine=engine, timeout_seconds=300)
    retried = RetryPrimitive(on_a_worker, max_retries=3)
    return MapPrimitive(retried, max_concurrency=50) >> summary
