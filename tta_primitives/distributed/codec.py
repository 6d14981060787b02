"""Between a step's own types and the JSON that is sent."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from tta_primitives.extras import needs

__all__ = ["Codec", "TypeCodec"]

A = TypeVar("A")
B = TypeVar("B")


class Codec(Protocol):
    """Makes JSON of inputs and outputs, and these of JSON; the same on both sides."""

    def encode_input(self, value: Any, /) -> Any:  # noqa: ANN401 - a step's own types
        """Return an input as JSON; called by the caller."""

    def decode_input(self, data: Any, /) -> Any:  # noqa: ANN401 - as above
        """Return the input; called by the worker."""

    def encode_output(self, value: Any, /) -> Any:  # noqa: ANN401 - as above
        """Return an output as JSON; called by the worker."""

    def decode_output(self, data: Any, /) -> Any:  # noqa: ANN401 - as above
        """Return the output; called by the caller."""


class TypeCodec(Generic[A, B]):
    """Sends values of two types by pydantic: models, dataclasses, dates, tuples.

    Data that does not fit the type is an error of pydantic's, which names the field.

    Args:
        input_type: What the step takes, for instance `Order` or `list[Order]`.
        output_type: What it returns.

    Raises:
        ModuleNotFoundError: pydantic is not installed.
    """

    def __init__(self, input_type: type[A], output_type: type[B]) -> None:
        with needs("pydantic", type(self).__name__):
            from pydantic import TypeAdapter

        self._input = TypeAdapter(input_type)
        self._output = TypeAdapter(output_type)

    def encode_input(self, value: A, /) -> Any:  # noqa: ANN401 - JSON
        """Return an input as JSON."""
        return self._input.dump_python(value, mode="json")

    def decode_input(self, data: Any, /) -> A:  # noqa: ANN401 - JSON
        """Return the input that JSON describes."""
        return self._input.validate_python(data)

    def encode_output(self, value: B, /) -> Any:  # noqa: ANN401 - JSON
        """Return an output as JSON."""
        return self._output.dump_python(value, mode="json")

    def decode_output(self, data: Any, /) -> B:  # noqa: ANN401 - JSON
        """Return the output that JSON describes."""
        return self._output.validate_python(data)
