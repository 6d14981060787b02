"""Small doubles that the tests of the core share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tta_primitives import WorkflowPrimitive
from tta_primitives.door import Observer
from tta_primitives.primitive import Wrapper, as_operand

if TYPE_CHECKING:
    from tta_primitives.door import Call


class Tag(Wrapper[Any, Any]):
    """A wrapper that puts its tag around the output of what it wraps."""

    def __init__(self, tag: str, primitive: Any = None) -> None:
        self.tag = tag
        if primitive is not None:
            self._wrap(as_operand(primitive))

    def options(self) -> dict[str, Any]:
        return {"tag": self.tag}

    async def execute(self, input_data: Any, context: Any) -> str:
        one = self._wrapped()
        view = context.below(self, one, one.name)
        return f"{self.tag}({await one.execute(input_data, view)})"


class Paths(WorkflowPrimitive[Any, Any]):
    """A leaf that answers with its own path."""

    async def execute(self, input_data: Any, context: Any) -> str:
        return context.path


class Log(Observer):
    """An observer that keeps what it is told as plain lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, call: Call) -> None:
        self.lines.append(f"> {call.path}")

    def event(self, call: Call, name: str, detail: dict[str, Any]) -> None:
        told = "".join(f" {key}={value!r}" for key, value in detail.items())
        self.lines.append(f"! {call.path} {name}{told}")

    def finished(self, call: Call) -> None:
        self.lines.append(f"< {call.path} {call.status}")
