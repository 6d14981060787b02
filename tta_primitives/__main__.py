"""Say what is installed, and whether it works: `python -m tta_primitives`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from tta_primitives.context import WorkflowContext
from tta_primitives.installation import describe
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print versions, extras and the result of the self-check.

    Args:
        arguments: Those of the command line unless given.

    Returns:
        The exit status: 0 if a small workflow does what it should, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tta_primitives",
        description="Show the version, the extras that are installed, and whether a "
        "small workflow does what it should. Needs no network.",
    )
    parser.parse_args(arguments)
    wrong = check()
    result = f"FAILED: {wrong}" if wrong else "ok"
    sys.stdout.write("\n".join([*describe(), f"self-check: {result}"]) + "\n")
    return 1 if wrong else 0


def check() -> str:
    """Run a small workflow that fails, recovers and is cached.

    Returns:
        What is wrong, in a sentence; empty if nothing is.
    """
    try:
        return asyncio.run(_check())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return f"the workflow has raised {error!r}"


async def _check() -> str:
    calls: list[str] = []

    @step
    async def flaky(question: str) -> str:
        calls.append(question)
        if len(calls) < 3:  # noqa: PLR2004 - two failures, then an answer
            msg = "on purpose"
            raise ConnectionError(msg)
        return question.upper()

    retry = RetryPrimitive(TimeoutPrimitive(flaky, timeout_seconds=10), initial_delay=0)
    workflow = CachePrimitive(FallbackPrimitive(retry, fallbacks=["?"]), ttl=60)
    answers = [await workflow.execute("ok", WorkflowContext()) for _ in range(2)]
    if answers != ["OK", "OK"]:
        return f"two executions have answered {answers!r} instead of ['OK', 'OK']"
    if len(calls) != 3:  # noqa: PLR2004 - and the second execution comes from the cache
        return f"the step was called {len(calls)} times instead of 3"
    return ""


if __name__ == "__main__":
    sys.exit(main())
