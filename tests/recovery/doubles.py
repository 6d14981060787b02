"""Steps that fail as told, and how to run a test in virtual time."""

from __future__ import annotations

import asyncio
import functools
import re

from tta_primitives.door import Observer

# A cancellation carries no text.
CANCELLED = r"^$"


def exactly(error):
    """Return the pattern of an error's whole text, after which notes may follow."""
    # pytest leaves out how many errors are in a group.
    text = error.message if isinstance(error, ExceptionGroup) else str(error)
    return rf"^{re.escape(text)}(\n|$)"


class Boom(Exception):
    """A failure that may pass."""

    def __init__(self, *args):
        super().__init__(*(args or ("boom",)))


class Rejected(Exception):
    """A failure with whatever attributes a test gives it."""

    def __init__(self, **attributes):
        super().__init__("rejected")
        vars(self).update(attributes)


class Response:
    """An HTTP answer as an SDK's error carries it."""

    def __init__(self, status_code=429, **headers):
        self.status_code = status_code
        self.headers = {
            name.replace("_", "-"): value for name, value in headers.items()
        }


class Script:
    """A step that goes through outcomes: errors are raised, the rest is returned.

    The last outcome is repeated. A number of seconds in `takes` is slept first.
    """

    __name__ = "script"

    def __init__(self, *outcomes, takes=0):
        self.outcomes = outcomes
        self.takes = takes
        self.calls = 0

    async def __call__(self, value):
        self.calls += 1
        if self.takes:
            await asyncio.sleep(self.takes)
        outcome = self.outcomes[min(self.calls, len(self.outcomes)) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Stream:
    """A streaming step that goes through scripts of chunks, errors among them."""

    __name__ = "stream"

    def __init__(self, *scripts):
        self.scripts = scripts
        self.calls = 0

    async def __call__(self, value):
        self.calls += 1
        for chunk in self.scripts[min(self.calls, len(self.scripts)) - 1]:
            if isinstance(chunk, BaseException):
                raise chunk
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
            else:
                yield chunk


class Events(Observer):
    """Records the events that are emitted."""

    def __init__(self):
        self.seen = []

    def event(self, call, name, detail):
        self.seen.append((name, detail))

    @property
    def names(self):
        return [name for name, _ in self.seen]

    def detail(self, name):
        """Return the details of all events with this name."""
        return [detail for seen, detail in self.seen if seen == name]


def virtual(test):
    """Run an async test in the virtual time of its fixture `clock`."""

    @functools.wraps(test)
    def run(*args, clock, **fixtures):
        return clock.run(test(*args, clock=clock, **fixtures))

    return run


async def chunks_of(primitive, value, context):
    """Return what a stream yielded, and the error that ended it."""
    seen = []
    try:
        async for chunk in primitive.stream(value, context):
            seen.append(chunk)  # noqa: PERF401 - what came before an error counts
    except Exception as error:
        return seen, error
    return seen, None
