"""What one execution is given: the object that search, shrinker and replay share."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tta_primitives import WorkflowPrimitive

__all__ = [
    "VERSION",
    "Cancellation",
    "FaultAt",
    "Mode",
    "Order",
    "Plan",
    "Schedule",
    "digest_of_trees",
]

VERSION = 1

Mode: TypeAlias = Literal["op", "burst", "harsh"]
Order: TypeAlias = Literal["oldest", "sticky"]


class FaultAt(NamedTuple):
    """One fault at one call.

    Attributes:
        site: The path of the position, or the label of an operation.
        number: Which call at this site it strikes, from 1 in each execution.
        kind: Its name among the kinds of faults that a sweep knows.
    """

    site: str
    number: int
    kind: str


class Cancellation(NamedTuple):
    """A task is cancelled from outside, while everything waits.

    Attributes:
        task: Its name: "main" for what the test runs, else as the loop names it.
        point: At which moment of rest, from 0.
    """

    task: str
    point: int


class Schedule(NamedTuple):
    """Which event of the outside comes next, each time that there is a choice.

    Attributes:
        mode: What may be chosen: completions when everything waits; also while
            something is ready; any callback.
        order: What choice 0 means: the oldest event, or the one that lets the chain go
            on that went on last.
        deviations: Pairs of a choice point, from 0, and an index other than 0.
        early: How many limits may run out although what they limit could complete.
    """

    mode: Mode = "op"
    order: Order = "oldest"
    deviations: tuple[tuple[int, int], ...] = ()
    early: int = 0


class Plan(NamedTuple):
    """One execution, as plain data.

    Attributes:
        faults: What goes wrong, in the order of the calls.
        cancellation: Who is cancelled, and when.
        schedule: Which events come first.
        seed: Of chance, ids and jitter.
        input: Which input, where a test has several; the blob of Hypothesis.
        hash_seed: Of the interpreter that found it, where it matters.
        tree: The digest of the workflows' shape; empty if it is not known.
        version: The format.
    """

    faults: tuple[FaultAt, ...] = ()
    cancellation: Cancellation | None = None
    schedule: Schedule = Schedule()
    seed: int = 0
    input: str = ""
    hash_seed: int | None = None
    tree: str = ""
    version: int = VERSION


def digest_of_trees(roots: Iterable[WorkflowPrimitive[Any, Any]]) -> str:
    """Return eight digits that change with the shape or the options of workflows.

    Args:
        roots: The workflows.
    """
    shapes = [root.describe() for root in roots]
    text = json.dumps(shapes, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
