"""Make sets of tasks iterate in the order in which the tasks were made."""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable
    from contextvars import Context

__all__ = [
    "NumberedTask",
    "Numbering",
    "all_tasks",
    "birth",
    "is_only_task",
    "keep_order",
    "task_of",
]

_FAMILY_BITS = 20
_HASH_MASK = (1 << 60) - 1

# Without `super()`, since tasks are made by the million.
_make = asyncio.Task.__init__

task_of: Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None]
"""Return the task at work on a loop, None if there is none."""
if sys.version_info < (3, 12):
    # What `current_task` asks, which is written in Python there.
    task_of = vars(asyncio.tasks)["_current_tasks"].get
else:
    task_of = asyncio.current_task

# Where asyncio keeps the tasks of a process. Its walk takes as long as for the most
# that there have ever been: 0.2 ms after a test that had twenty thousand. From 3.14 on
# they are in lists, one for each thread.
_kept: tuple[Collection[asyncio.Task[Any]], ...] = tuple(
    vars(asyncio.tasks)[name]
    for name in (
        ("_all_tasks",)
        if sys.version_info < (3, 12)
        else ("_scheduled_tasks", "_eager_tasks")
        if sys.version_info < (3, 14)
        else ()
    )
)


def is_only_task(task: asyncio.Task[Any]) -> bool:
    """Tell at once whether a task is the only one of this process.

    Args:
        task: One that is there.

    Returns:
        Whether it certainly is; False where that would take a walk.
    """
    return sum(map(len, _kept)) == 1 and any(task in kept for kept in _kept)


def all_tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return the tasks of a loop that are not done, as asyncio does, often sooner."""
    task = task_of(loop)
    if task is not None and is_only_task(task):
        return {task}
    return asyncio.all_tasks(loop)


def keep_order() -> None:
    """Let asyncio make tasks of several coroutines in the order in which they came.

    `as_completed` puts them into a set first, which is walked by address. In the
    module's own namespace `set` then means something that is as good, and in order.
    """
    vars(asyncio.tasks)["set"] = _in_order  # pyright: ignore[reportIndexIssue]


def _in_order(members: Iterable[Any] | None = None) -> Any:  # noqa: ANN401 - a set, or a dict
    return set() if members is None else dict.fromkeys(members)


class NumberedTask(asyncio.Task[Any]):
    """Be a task whose hash is its number, not its address.

    `TaskGroup`, `asyncio.wait` and `as_completed` keep tasks in sets. A set is walked
    in the order of the low bits of its members' hashes: with addresses, tasks are
    cancelled in an order that changes from run to run. The low bits here count the
    children of one parent from nought, so that siblings are walked as they were made.

    Attributes:
        born: How many tasks the loop had made before this one.
        own_context: The context in which the task runs.
        brood: How many living siblings its next child will have.
        youngest: The child that was made last.

    """

    __slots__ = ("_key", "born", "brood", "own_context", "youngest")

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        born: int,
        key: int,
        context: Context,
        **options: Any,  # noqa: ANN401 - whatever this interpreter's Task takes
    ) -> None:
        """Make a task; `options` are those of `asyncio.Task`."""
        # The base class puts the task into a set at once: the hash comes first.
        self._key = key
        self.born: int = born
        self.own_context: Context = context
        self.brood: int = 0
        self.youngest: weakref.ref[NumberedTask] | None = None
        _make(self, coro, context=context, **options)

    def __hash__(self) -> int:
        """Give the number."""
        return self._key


class Numbering:
    """Number the tasks of one loop."""

    def __init__(self) -> None:
        """Begin with nought."""
        self.born: int = 0
        self._named_from = self._orphans = 0

    def begin(self) -> None:
        """Begin with nought again."""
        self.born = self._named_from = self._orphans = 0

    def rename(self) -> None:
        """Name tasks from one again, and number them on."""
        self._named_from = self.born
        self._orphans = 0

    def make(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        context: Context,
        options: dict[str, Any],
    ) -> NumberedTask:
        """Make a task with the next number and, if it has none, a name of this loop."""
        born = self.born
        self.born = born + 1
        parent = task_of(loop)
        if name is None:
            name = f"Task-{born + 1 - self._named_from}"
        if not isinstance(parent, NumberedTask):
            self._orphans = key = self._orphans + 1
            return NumberedTask(
                coro, born, key, context, loop=loop, name=name, **options
            )
        key = _key_of_child(parent)
        task = NumberedTask(coro, born, key, context, loop=loop, name=name, **options)
        parent.youngest = weakref.ref(task)
        return task


def _key_of_child(parent: NumberedTask) -> int:
    """Put the family into the high bits, the place among siblings into the low."""
    youngest = None if parent.youngest is None else parent.youngest()
    if youngest is None or youngest.done():
        parent.brood = 0
    place = parent.brood
    parent.brood = place + 1
    return (((parent.born + 1) << _FAMILY_BITS) + place) & _HASH_MASK


def birth(task: asyncio.Task[Any] | None) -> int:
    """Give the number of a task by birth; -1 for none, and for one without a number."""
    return getattr(task, "born", -1)
