"""What a double keeps of each call: copies, so that nothing can change them later."""

from __future__ import annotations

import sys
from asyncio import get_running_loop
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, overload

from pytest_tta.clock.places import place, user_spot
from pytest_tta.doubles.sites import Site
from pytest_tta.trace.snapshot import shorten, snapshot
from tta_primitives.llm import LLMRequest

if TYPE_CHECKING:
    from typing import Self

    from tta_primitives.context import WorkflowContext

__all__ = ["CallLog", "LLMCall", "RecordedCall", "scripted_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call of a double.

    Attributes:
        number: Which call of this double at this path it was, from 1.
        path: Where in the workflow.
        input: A copy of the input, taken when the call began.
        at: When it began, in seconds of the event loop's clock.
        run_id: Identifies the run that it belongs to.
        correlation_id: Ties the run to a request.
        idempotency_key: The key that is constant over the attempts of one retry.
        is_stream: Whether `stream` was called, rather than `execute`.
    """

    number: int
    path: str
    input: object
    at: float
    run_id: str
    correlation_id: str
    idempotency_key: str | None
    is_stream: bool

    @classmethod
    def of(
        cls,
        number: int,
        path: str,
        input_data: object,
        context: WorkflowContext,
        *,
        is_stream: bool,
    ) -> Self:
        """Record a call that begins now."""
        # A leaf that never looks at its context is given that of its parent.
        has_own_context = context.path in {path, ""}
        return cls(
            number=number,
            path=path,
            input=snapshot(input_data),
            at=get_running_loop().time(),
            run_id=context.run_id,
            correlation_id=context.correlation_id,
            idempotency_key=context.idempotency_key if has_own_context else None,
            is_stream=is_stream,
        )

    @property
    def shown(self) -> str:
        """The input, in a line."""
        return shorten(self.input)

    def __str__(self) -> str:
        return f"{self.path} at {self.at:g} s: {self.shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMCall(RecordedCall):
    """One call that the LLM double answered, or should have."""

    @property
    def request(self) -> LLMRequest:
        """The input as a request.

        Raises:
            TypeError: The input is none of the things that a request can be made of.
        """
        return LLMRequest.of(self.input)  # type: ignore[arg-type]  # checked there

    @property
    def title(self) -> str:
        """What was called, in a few words."""
        return f"call {self.number} of {self.path!r}"

    @property
    def text(self) -> str:
        """All that was said to the model, or the input as text if it is no request."""
        try:
            return self.request.text
        except (TypeError, ValueError):
            return str(self.input)


CallT_co = TypeVar("CallT_co", bound=RecordedCall, covariant=True)


class CallLog(Sequence[CallT_co], Generic[CallT_co]):
    """The calls of a double in the order in which they began.

    Args:
        calls: The list that the double goes on writing to.
    """

    def __init__(self, calls: Sequence[CallT_co]) -> None:
        self._calls = calls

    @overload
    def __getitem__(self, index: int) -> CallT_co: ...
    @overload
    def __getitem__(self, index: slice) -> CallLog[CallT_co]: ...
    def __getitem__(self, index: int | slice) -> CallT_co | CallLog[CallT_co]:
        if isinstance(index, slice):
            return CallLog(self._calls[index])
        return self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def inputs(self) -> list[object]:
        """The inputs, in order."""
        return [one.input for one in self._calls]

    @property
    def paths(self) -> list[str]:
        """The paths, in order."""
        return [one.path for one in self._calls]

    @property
    def times(self) -> list[float]:
        """When each call began, in seconds of the event loop's clock."""
        return [one.at for one in self._calls]

    @property
    def once(self) -> CallT_co:
        """The only call.

        Raises:
            AssertionError: There are none or several.
        """
        __tracebackhide__ = True
        if len(self._calls) != 1:
            msg = f"expected one call, and there were {self}"
            raise AssertionError(msg)
        return self._calls[0]

    def at(self, path: str) -> CallLog[CallT_co]:
        """Return the calls at a place.

        Args:
            path: A path, the end of one, or a pattern such as `answer/*/llm`.

        Raises:
            AssertionError: There was no call at such a place.
        """
        __tracebackhide__ = True
        site = Site.of(path)
        found = [one for one in self._calls if site.rank(one.path, None)]
        if not found:
            msg = f"there was no call at {path!r}; there were {self}"
            raise AssertionError(msg)
        return CallLog(found)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CallLog):
            return list(self._calls) == list(other._calls)
        return list(self._calls) == other if isinstance(other, list) else NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<CallLog {self}>"

    def __str__(self) -> str:
        lines = [f"{number}. {one}" for number, one in enumerate(self._calls, 1)]
        plural = "call" if len(lines) == 1 else "calls"
        head = f"{len(lines) or 'no'} {plural}"
        return "\n  ".join([f"{head}:", *lines]) if lines else head


def scripted_at() -> str:
    """Return the user's file and line that is calling us now."""
    return place(user_spot(sys._getframe(1)))
