"""The recordings of one run: how often each was used, and what a test does to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_tta.tape.tokens import TapedApi, api_for, marked, said_of
from pytest_tta.wire.api import WireStrike

if TYPE_CHECKING:
    from pytest_tta.tape.recording import Recording
    from pytest_tta.wire.api import WireFault
    from pytest_tta.wire.exchange import WireAnswer, WireRequest

__all__ = ["Edits", "Slot"]


class Edits:
    """What a test does to one exchange.

    Attributes:
        faults: What goes wrong with it, one for each time that it is asked for.
        delay: Seconds by which it is late.
    """

    def __init__(self) -> None:
        self.faults: list[WireFault] = []
        self.delay: float = 0.0


class Slot:
    """One place of a tape.

    Args:
        recording: What is there; None while it is being recorded.
    """

    def __init__(self, recording: Recording | None = None) -> None:
        self.recording = recording
        self.used: int = 0
        self.struck: int = 0

    @property
    def is_free(self) -> bool:
        """Whether it can answer a request."""
        one = self.recording
        return one is not None and (one.repeat is None or self.used < one.repeat)

    @property
    def is_unused(self) -> bool:
        """Whether it was neither used nor struck by a fault."""
        one = self.recording
        if one is None or self.struck:
            return False
        return self.used < (1 if one.repeat is None else one.repeat)

    def answer(self, request: WireRequest, edits: Edits, speed: float) -> WireAnswer:
        """Return what a request is answered, and count it.

        What is struck by a fault is not used up: whoever asks again is answered. A
        fault that every client has to bear is no reason to ask again.

        Args:
            request: The request.
            edits: What the test does to this exchange.
            speed: How fast it is played; 0 for at once.

        Raises:
            ValueError: The fault cannot happen to it.
        """
        recording: Any = self.recording
        answer = _at_speed(recording.answer, speed)
        if self.struck < len(edits.faults):
            fault = edits.faults[self.struck]
            self.struck += 1
            expect = getattr(fault, "expect", None)
            if expect is not None and expect.may_accept:
                self.used += 1
            answer = struck(fault, request, answer)
        else:
            self.used += 1
        return answer.delayed(edits.delay) if edits.delay else answer


def _at_speed(answer: WireAnswer, speed: float) -> WireAnswer:
    def at(seconds: float) -> float:
        return seconds / speed if speed else 0.0

    if speed == 1:
        return answer
    body = tuple((at(when), part) for when, part in answer.body)
    return replace(answer, head_after=at(answer.head_after), body=body)


def struck(fault: WireFault, request: WireRequest, answer: WireAnswer) -> WireAnswer:
    """Return what a fault makes of a recorded answer.

    Args:
        fault: What goes wrong.
        request: What was asked.
        answer: What was recorded.

    Raises:
        ValueError: The fault cannot happen to it.
    """
    api = api_for(request.method, request.url)
    body = request.json if api is not None else None
    if api is None or not isinstance(body, dict):
        msg = (
            f"{fault!r} cannot happen to {request.method} {request.url}: faults know "
            "chat completions and responses of OpenAI, and messages of Anthropic"
        )
        raise ValueError(msg)
    answer = marked(api, answer)
    said = said_of(api, answer)
    taped = TapedApi(api, said, body, answer)
    strike = WireStrike(api=taped, body=body, number=request.number, said=said)
    return fault.on_wire(strike)
