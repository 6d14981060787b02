"""The application: `uvicorn examples.fastapi_service.service:app`."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, Field

from examples.fastapi_service.workflow import answer, tell
from tta_primitives.integrations.fastapi import Context, EventStream, integrate
from tta_primitives.runtime import Lifecycle

__all__ = ["app", "lifecycle"]

lifecycle = Lifecycle(drain_seconds=25, workflows={"answer": answer})
app = integrate(
    FastAPI(title="Answers"),
    lifecycle,
    health="/health",
    request_timeout=20,
    timeout_header="x-request-timeout",
)


class Question(BaseModel):
    """What somebody asks."""

    text: str = Field(min_length=1, max_length=1000)


class Answer(BaseModel):
    """What they are answered, and the id under which it is in the logs."""

    text: str
    correlation_id: str


@app.post("/answers")
async def ask(question: Question, context: Context) -> Answer:
    """Answer a question."""
    text = await answer.execute(question.text, context)
    return Answer(text=text, correlation_id=context.correlation_id)


@app.get("/answers/stream")
async def stream(question: str, context: Context) -> EventStream:
    """Answer a question word by word, as server-sent events."""
    return EventStream(tell.stream(question, context))
