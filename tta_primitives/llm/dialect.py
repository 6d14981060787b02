"""What the generic primitive has to know of one API of a vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from tta_primitives.llm.messages import LLMRequest
    from tta_primitives.llm.reading import Reading
    from tta_primitives.llm.structured import Structure

__all__ = ["Collector", "Dialect", "VendorStream"]


class VendorStream(Protocol):
    """A stream of a vendor's SDK."""

    response: Any

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over its events."""
        ...

    async def close(self) -> None:
        """Close the HTTP response."""
        ...


class Collector(Protocol):
    """Makes one reading out of the events of a stream.

    Attributes:
        reading: What was read until now.
    """

    reading: Reading

    def feed(self, event: Mapping[str, Any], /) -> str:
        """Take an event in; return the text that it adds, "" if none."""
        ...

    def end(self) -> None:
        """Put together what came in pieces, after the last event."""
        ...


class Dialect(Protocol):
    """One API of a vendor.

    Attributes:
        name: The vendor and the API, such as `openai.chat`.
    """

    name: str

    def body(
        self, request: LLMRequest, structure: Structure | None, /, *, is_stream: bool
    ) -> dict[str, Any]:
        """Return the arguments for the SDK's method, without those that are unset.

        Args:
            request: What is asked.
            structure: What a structured answer must look like.
            is_stream: Whether the answer is to be streamed.
        """
        ...

    def call(self, client: Any, /, **body: Any) -> Awaitable[Any]:  # noqa: ANN401 - the SDKs are not imported
        """Call the SDK's method."""
        ...

    def read(self, answer: Mapping[str, Any], /) -> Reading:
        """Read a whole answer."""
        ...

    def collector(self) -> Collector:
        """Return what reads a stream."""
        ...
