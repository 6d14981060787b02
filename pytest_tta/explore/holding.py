"""Who holds which lock or semaphore, and who waits for which, in one execution."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Holding"]

_TASK = re.compile(r"( *)(\S+)((?: in primitive '[^']*')?(?: at .*)?)")
_IN_ACQUIRE = re.compile(r", waiting in \w+\.acquire$")
_IN_GROUP = ", waiting in TaskGroup.__aexit__"


class _Holder(NamedTuple):
    """Who has taken a permit, or waits for one.

    Attributes:
        task: The name of the task.
        line: The user's line, as `test_shop.py:12 in pay`; empty if there is none.
    """

    task: str
    line: str

    @property
    def at(self) -> str:
        """The line without its function, in brackets."""
        place = self.line.partition(" in ")[0]
        return f" ({place})" if place else ""


class Holding:
    """Notes who asks for permits, who gets and who returns them.

    Attributes:
        names: What the timeline calls a task, by its name.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._labels: dict[int, str] = {}
        # An id says who is who only as long as the object lives.
        self._permits: list[Any] = []
        self._holders: dict[int, list[_Holder]] = {}
        self._waits: dict[str, tuple[str, _Holder]] = {}

    def asks(self, permit: Any, task: str, line: str) -> None:  # noqa: ANN401 - a lock or a semaphore
        """Note that a task asks for a permit.

        Args:
            permit: The lock or semaphore.
            task: The name of the task.
            line: The user's line.
        """
        if id(permit) not in self._labels:
            kind = type(permit).__name__
            number = 1 + sum(type(one) is type(permit) for one in self._permits)
            self._permits.append(permit)
            self._labels[id(permit)] = f"{kind} #{number}"
        self._waits[task] = self._labels[id(permit)], _Holder(task, line)

    def got(self, permit: Any, task: str, line: str) -> None:  # noqa: ANN401 - as above
        """Note that a task has got what it asked for."""
        self._waits.pop(task, None)
        self._holders.setdefault(id(permit), []).append(_Holder(task, line))

    def returned(self, permit: Any, task: str) -> None:  # noqa: ANN401 - as above
        """Note that a task returns a permit; its own, if it has one."""
        holders = self._holders.get(id(permit), [])
        own = [one for one in holders if one.task == task] or holders
        if own:
            holders.remove(own[-1])

    def kept(self, permits: Iterable[Any]) -> list[str]:
        """Say who holds permits.

        Args:
            permits: Those that are held.
        """
        return [
            f"asyncio.{type(permit).__name__}, taken by {self._name(one.task)}"
            + (f" at {one.line}" if one.line else "")
            for permit in permits
            for one in self._holders.get(id(permit), ())
        ]

    def _name(self, task: str) -> str:
        return self.names.get(task, task)

    def told(self, lines: Iterable[str]) -> list[str]:
        """Return lines of an error about tasks that wait, with what they hold.

        Args:
            lines: Each with a task, its place and what it waits in. Groups, which wait
                for the others, go to the end of the tasks.
        """
        found: list[str] = []
        groups: list[str] = []
        for line in lines:
            is_task = _TASK.fullmatch(line)
            if is_task is None or is_task[2] not in self.names:
                found += groups
                groups = []
                found.append(line)
            elif line.endswith(_IN_GROUP):
                groups.append(self._told(*is_task.groups()))
            else:
                found.append(self._told(*is_task.groups()))
        return found + groups

    def _told(self, indent: str, task: str, rest: str) -> str:
        does = [f"holds {held}" for held in self._held_by(task)]
        waits = self._waits.get(task)
        if waits is not None and _IN_ACQUIRE.search(rest):
            does.append(f"waits for {waits[0]}{waits[1].at}")
            rest = ""
        elif does:
            rest = f", and waits{_without_path(rest)}"
        return f"{indent}{self._name(task)} {' and '.join(does)}".rstrip() + rest

    def _held_by(self, task: str) -> Iterator[str]:
        for permit in self._permits:
            for one in self._holders.get(id(permit), ()):
                if one.task == task:
                    yield f"{self._labels[id(permit)]}{one.at}"

    def is_told(self, lines: Iterable[str]) -> bool:
        """Tell whether lines of an error name all who hold something.

        Args:
            lines: Of the error.
        """
        named = {match[2] for match in map(_TASK.fullmatch, lines) if match}
        holders = {one.task for some in self._holders.values() for one in some}
        return holders <= named


def _without_path(rest: str) -> str:
    """Leave out in which primitive a task is, and what is said already."""
    place = rest[rest.index(" at ") :] if " at " in rest else ""
    return place.replace(", waiting in ", ", in ")
