"""An engine for the tests of the checks: sound, with places where others break it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.shown import shown_name
from tta_primitives.distributed import InlineEngine
from tta_primitives.distributed.conformance import ENGINE_CHECKS, check_registry


async def expect_failure(name, engine, folder, message) -> None:
    """Expect a check to fail for an engine, with a message that begins so."""
    [check] = [check for check in ENGINE_CHECKS if check.__name__ == name]
    async with engine:
        with pytest.raises(AssertionError, match=f"^{re.escape(message)}") as caught:
            await check(engine, folder)
    assert shown_name(caught) in {name, "bounded"}


class ToyEngine(InlineEngine):
    """Performs calls in this process, and may alter what it is asked and answers.

    Args:
        ask: Returns the task that a worker gets, for the caller's.
        answer: Returns the reply that the caller gets, for the worker's and the task.
    """

    def __init__(self, ask=None, answer=None):
        super().__init__(check_registry())
        self.ask = ask
        self.answer = answer

    async def call(self, task):
        if self.ask is not None:
            task = self.ask(task)
        reply = await super().call(task)
        return reply if self.answer is None else self.answer(reply, task)


def with_context(**changes):
    """Return an `ask` that changes what is told of the context; None leaves it out."""

    def ask(task):
        return replace(task, context={**task.context, **changes})

    return ask


def with_error(kind, **changes):
    """Return an `answer` that changes what is told of the errors of this type."""

    def answer(reply, task):
        if reply.error is None or not reply.error["type"].endswith(kind):
            return reply
        return replace(reply, error={**reply.error, **changes})

    return answer


def with_value(alter):
    """Return an `answer` that alters the outputs."""

    def answer(reply, task):
        return replace(reply, value=alter(reply.value))

    return answer


def with_reply(**changes):
    """Return an `answer` that changes every reply."""

    def answer(reply, task):
        return replace(reply, **changes)

    return answer
