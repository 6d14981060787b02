"""What the vendors' SDKs make of answers, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from tta_primitives.door import closing
from tta_primitives.llm.errors import MalformedResponseError
from tta_primitives.llm.generators import Generators
from tta_primitives.llm.reading import Reading

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tta_primitives.llm.dialect import VendorStream

__all__ = ["events_of", "plain_answer"]

_SHOWN = 60


async def events_of(
    stream: VendorStream, where: str
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield the events of a vendor's stream, and close its response at the end."""
    generators = Generators()
    try:
        async with closing(aiter(stream)) as events:
            while True:
                try:
                    event = await generators.drive(anext(events))
                except StopAsyncIteration:
                    return
                yield plain_answer(event, where)
    finally:
        await generators.aclose()
        await stream.close()


def plain_answer(answer: object, where: str) -> Mapping[str, Any]:
    """Return what an SDK has made of an answer as plain data.

    The SDKs check nothing: what does not fit their types is in them all the same.

    Raises:
        MalformedResponseError: It is no JSON object.
    """
    dump = getattr(answer, "model_dump", None)
    plain = dump(warnings=False, exclude_unset=True) if callable(dump) else answer
    if isinstance(plain, Mapping):
        return cast("Mapping[str, Any]", plain)
    shown = repr(plain)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    msg = (
        f"{where} got status 200 with {shown}, which is no answer of a model; "
        "check base_url, and what stands between here and there"
    )
    raise MalformedResponseError(msg, response=Reading().response())
