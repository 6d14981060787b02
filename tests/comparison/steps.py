"""What the probes put into the libraries: steps that fail as told, and a loop."""

from __future__ import annotations

import asyncio
import inspect

__all__ = [
    "Boom",
    "Hinted",
    "NotedLoop",
    "Script",
    "chunks_of",
    "many",
    "outcome_of",
    "settle",
    "took",
]


class Boom(Exception):
    """A failure that may pass."""


class Hinted(Boom):
    """A failure that says when to come back.

    Attributes:
        retry_after: After so many seconds.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class Script:
    """A step that goes through outcomes; the last one is repeated.

    Errors are raised, a number of seconds is slept, and the rest is returned.
    """

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = outcomes
        self.calls = 0

    def step(self):
        """Return it as a plain async function, which is what libraries look for."""

        async def script(value: object = None) -> object:
            self.calls += 1
            outcome = self.outcomes[min(self.calls, len(self.outcomes)) - 1]
            if isinstance(outcome, BaseException):
                raise outcome
            if isinstance(outcome, float):
                await asyncio.sleep(outcome)
            return outcome

        return script

    def stream(self):
        """Return it as an async generator: each outcome is a tuple of chunks."""

        async def script(value: object = None):
            self.calls += 1
            for chunk in self.outcomes[min(self.calls, len(self.outcomes)) - 1]:
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk

        return script


class NotedLoop(asyncio.SelectorEventLoop):
    """An event loop that notes the delays of its timers, which are real ones.

    Attributes:
        delays: The delays in the order in which they began, in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def call_later(self, delay, callback, *args, context=None):
        """Note the delay, rounded to a millisecond."""
        self.delays.append(round(delay, 3))
        return super().call_later(delay, callback, *args, context=context)


def many(number: int, noun: str) -> str:
    """Return so many of something, as one says it."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


async def outcome_of(call) -> object:
    """Return what an awaitable returns or raises, a cancellation too."""
    try:
        return await call
    except asyncio.CancelledError as error:
        return error
    except Exception as error:
        return error


async def chunks_of(stream) -> tuple[list[object], BaseException | None]:
    """Return the chunks of a stream, and the error that ended it."""
    seen: list[object] = []
    try:
        if inspect.isawaitable(stream):
            stream = await stream
        async for chunk in stream:
            seen.append(chunk)  # noqa: PERF401 - what came before an error counts
    except Exception as error:
        return seen, error
    return seen, None


async def settle(turns: int = 10) -> None:
    """Let everybody do what can be done without waiting."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def took(call) -> tuple[object, float]:
    """Return the outcome of an awaitable, and how long it took in real seconds."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    outcome = await outcome_of(call)
    return outcome, loop.time() - begin
