"""Find what went wrong with doubles that the test itself did not look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.doubles.mock import MockPrimitive
from pytest_tta.doubles.unexpected import UnexpectedCall
from tta_primitives.door import Observer
from tta_primitives.primitive import positions

if TYPE_CHECKING:
    from tta_primitives.door import Call
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["DoublesWatch"]


class DoublesWatch(Observer):
    """Notice every unexpected call, even one that was swallowed, and every mock.

    It is told of each call that ends, so that it need not know the doubles beforehand.
    """

    def __init__(self) -> None:
        self.problems: list[UnexpectedCall] = []
        self._roots: dict[int, WorkflowPrimitive[Any, Any]] = {}

    def started(self, call: Call, /) -> None:
        """Remember the workflow that runs."""
        if call.parent is None:
            self._roots[id(call.primitive)] = call.primitive

    def finished(self, call: Call, /) -> None:
        """Keep an unexpected call where it first passes."""
        for error in _unexpected_in(call.error):
            if not any(error is known for known in self.problems):
                self.problems.append(error)

    def verify(self) -> list[str]:
        """Return the unexpected calls, and what mocks of the workflows did not do."""
        if not MockPrimitive.has_scripts:
            # To walk through all workflows takes longer than a small one itself.
            return [str(one) for one in self.problems]
        mocks = {
            id(primitive): primitive
            for root in self._roots.values()
            for _, primitive in positions(root)
            if isinstance(primitive, MockPrimitive)
        }
        unused = [problem for mock in mocks.values() for problem in mock.verify()]
        return [*map(str, self.problems), *unused]


def _unexpected_in(error: BaseException | None) -> list[UnexpectedCall]:
    if isinstance(error, BaseExceptionGroup):
        return [one for part in error.exceptions for one in _unexpected_in(part)]
    return [error] if isinstance(error, UnexpectedCall) else []
