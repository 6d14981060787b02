"""What all faults of language models share: one object for the primitive and the wire.

At the height of a primitive a fault acts like any other of the catalogue. On the wire
it changes what the provider answers, in bytes: which error that becomes is for the
client to say.
"""

# ruff: noqa: ANN401 - outputs of any primitive

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta.faults.catalogue import Fault, Hang
from pytest_tta.faults.llm_edits import retold
from tta_primitives.llm import LLMResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.faults.catalogue import Chunks, Strike
    from pytest_tta.wire.api import WireStrike
    from pytest_tta.wire.exchange import WireAnswer
    from tta_primitives.door import Call

__all__ = [
    "Alters",
    "Expectation",
    "Harmless",
    "LLMFault",
    "Need",
    "Pauses",
    "Raises",
    "Stalls",
    "Written",
    "answer_of",
    "written",
]

Need = str
Written = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a correct client may do about a fault.

    Attributes:
        may_retry: Whether the same request may be sent again.
        not_before: Seconds after the answer before which it must not be; None if the
            provider does not say.
        may_accept: Whether the content may be handed on as a success.
        delivered: Whether the request may have been executed.
    """

    may_retry: bool
    not_before: float | None = None
    may_accept: bool = False
    delivered: bool = True


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LLMFault(Fault):
    """Something that goes wrong with a call to a language model.

    Attributes:
        source: The name of the function that made it, and what it was given.
        expect: What a correct client may do about it.
        wire: Makes what is answered instead.
        needs: What a request must have for it: `stream`, or the name of a provider.
    """

    source: Written
    expect: Expectation
    wire: Callable[[WireStrike], WireAnswer]
    needs: tuple[Need, ...] = ()

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return self.source[0]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function of that name was given, defaults left out."""
        return dict(self.source[1])

    def applies(self, strike: WireStrike) -> bool:
        """Tell whether a request is one that this can happen to."""
        return self._missing(strike) is None

    def on_wire(self, strike: WireStrike, /) -> WireAnswer:
        """Return what is answered instead.

        Raises:
            ValueError: This cannot happen to such a request.
        """
        missing = self._missing(strike)
        if missing is not None:
            msg = (
                f"{self!r} cannot happen to request {strike.number} to "
                f"{strike.api.name}: {missing}"
            )
            raise ValueError(msg)
        return self.wire(strike)

    def _missing(self, strike: WireStrike) -> str | None:
        for need in self.needs:
            if need != "stream" and strike.api.name.partition(".")[0] != need:
                return f"only {need} has it; script another fault"
            if need == "stream" and not strike.api.streams(strike.body):
                return "it is not streamed; send stream=True, or script another fault"
        return None

    def _arguments(self) -> list[str]:
        return [f"{name}={value!r}" for name, value in self.source[1]]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self._arguments())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LLMFault):
            return NotImplemented
        return self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class Raises(LLMFault):
    """At a primitive: an error instead of the call.

    Attributes:
        error: Makes the error.
    """

    error: Callable[[], Exception]

    async def execute(self, strike: Strike) -> Any:
        """Raise."""
        strike.tell()
        raise self.error()

    async def _act(self, call: Call) -> None:  # noqa: ARG002 - whichever it is
        raise self.error()


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class Alters(LLMFault):
    """At a primitive: another answer than the model gave, which looks like a good one.

    Attributes:
        alter: Makes it of the good one.
        ends: Whether a stream is over after the chunks that come through; otherwise
            what comes instead of the others is the rest of the altered text.
        is_text: Whether a plain text shows it too; otherwise text comes through.
    """

    alter: Callable[[LLMResponse], LLMResponse]
    ends: bool = False
    is_text: bool = True

    async def execute(self, strike: Strike) -> Any:
        """Execute the call, and return what has become of its answer."""
        output = await strike.proceed()
        altered = self._altered(output, strike.call)
        strike.tell()
        return altered

    async def _rest(self, call: Call, chunks: Chunks) -> Chunks:
        rest = [chunk async for chunk in chunks]
        texts = [chunk for chunk in rest if isinstance(chunk, str)]
        responses = [chunk for chunk in rest if isinstance(chunk, LLMResponse)]
        if not self.is_text:
            for text in texts:
                yield text
        elif not self.ends and (texts or not responses):
            yield self._altered("".join(texts), call)
        for one in responses:
            yield self._altered(one, call)
        if not (self.is_text or responses):
            raise self._unfit(str, call)

    def _altered(self, output: Any, call: Call) -> Any:
        if isinstance(output, LLMResponse):
            return self.alter(output)
        if isinstance(output, str) and self.is_text:
            return self.alter(LLMResponse(output)).content
        raise self._unfit(type(output), call)

    def _unfit(self, kind: type, call: Call) -> TypeError:
        wanted = "a text or an LLMResponse" if self.is_text else "an LLMResponse"
        return TypeError(
            f"{self!r} changes {wanted}, and {call.path!r} returned {kind.__name__}; "
            "script "
            "returns(...) with what goes wrong there"
        )


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class Stalls(LLMFault, Hang):
    """At a primitive: no answer, ever, or none beyond the chunks that came through."""


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class Pauses(LLMFault):
    """At a primitive: an answer that comes late.

    Attributes:
        pause: For how many seconds.
    """

    pause: float

    async def execute(self, strike: Strike) -> Any:
        """Wait, then execute the call."""
        strike.tell()
        await self._act(strike.call)
        return await strike.proceed()

    async def _act(self, call: Call) -> None:  # noqa: ARG002 - whichever it is
        await asyncio.sleep(self.pause)


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class Harmless(LLMFault):
    """At a primitive: nothing, as it is about bytes that every client must take."""

    async def execute(self, strike: Strike) -> Any:
        """Execute the call."""
        strike.tell()
        return await strike.proceed()


def written(maker: Callable[..., LLMFault], **given: Any) -> Written:
    """Return how a fault is written down: the function, and what is no default.

    Args:
        maker: The function of the catalogue.
        given: The arguments, as they are kept.
    """
    usual = inspect.signature(maker).parameters
    kept = ((k, v) for k, v in given.items() if v != usual[k].default)
    return maker.__name__, tuple(kept)


def answer_of(
    strike: WireStrike, alter: Callable[[LLMResponse], LLMResponse]
) -> WireAnswer:
    """Return the answer with another response in it."""
    said = retold(strike.said, alter(strike.said.response))
    return strike.api.answer(said, strike.body, strike.number)
