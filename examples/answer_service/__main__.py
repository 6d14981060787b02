"""The command: `python -m examples.answer_service "How do I test a retry?"`."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from typing import TYPE_CHECKING

from examples.answer_service.answer import build_workflow
from examples.answer_service.corpus import read_corpus
from examples.answer_service.errors import QuestionError, ServiceError
from examples.answer_service.model import model_from
from examples.answer_service.search import Index, search
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from examples.answer_service.answer import Answer
    from tta_primitives import WorkflowPrimitive

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer what the command line asks; return the exit code.

    0: answered. 1: not answered, and why. 2: the question or a setting is wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except ServiceError as error:
        return _tell(error)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.answer_service",
        description="Answer a question from the project's documentation.",
        epilog=(
            "With OPENAI_API_KEY or OPENAI_BASE_URL (and OPENAI_MODEL) set, a model is "
            "asked; otherwise, and when it fails, the documentation is quoted."
        ),
    )
    parser.add_argument(
        "question", nargs="*", help="the question; - reads one from each line of input"
    )
    parser.add_argument(
        "--deadline",
        type=_seconds,
        default=20.0,
        metavar="SECONDS",
        help="how long the model may take with all attempts (default: 20)",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the workflow as a Mermaid flowchart"
    )
    return parser


def _seconds(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdecimal() else math.nan
    if not value > 0:
        msg = f"{text!r} is not a number of seconds above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


async def _run(options: argparse.Namespace) -> int:
    with Index(read_corpus()) as index:
        async with model_from(os.environ) as model:
            workflow = build_workflow(
                search=search(index), model=model, deadline_seconds=options.deadline
            )
            if options.show:
                print(workflow.to_mermaid(), end="")
                return 0
            return await _answer(_questions(options.question), workflow)


async def _answer(
    questions: Iterable[str], workflow: WorkflowPrimitive[str, Answer]
) -> int:
    """Answer one question after the other; return the worst exit code."""
    exit_code = 0
    for question in questions:
        try:
            print(await workflow.execute(question, WorkflowContext()), flush=True)
        except ServiceError as error:
            exit_code = max(exit_code, _tell(error))
    return exit_code


def _tell(error: ServiceError) -> int:
    print(f"answer_service: {error}", file=sys.stderr)
    return error.exit_code


def _questions(given: list[str]) -> Iterable[str]:
    if not given:
        msg = "ask a question, such as 'How do I test a retry?'"
        raise QuestionError(msg)
    if given == ["-"]:
        return filter(str.strip, sys.stdin)
    return [" ".join(given)]


if __name__ == "__main__":
    sys.exit(main())
