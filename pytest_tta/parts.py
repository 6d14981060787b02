"""What a harness makes when a test first asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_tta.doubles.llm import LLMDouble
    from pytest_tta.doubles.watch import DoublesWatch
    from pytest_tta.faults.injector import FaultInjector
    from pytest_tta.fleet.fleet import SimulatedFleet
    from pytest_tta.tape.tape import Tape
    from pytest_tta.wire.wire import Wire

__all__ = ["Made", "Parts"]

Made: TypeAlias = """tuple[
    FaultInjector | None,
    SimulatedFleet | None,
    LLMDouble | None,
    Wire | None,
    Tape | None,
    DoublesWatch | None,
]"""
"""All parts of a harness at one moment."""


class Parts:
    """The parts of a harness, as far as they were made; most tests need few of them.

    Attributes:
        faults: Lets steps fail.
        fleet: Carries steps to workers on a bad network.
        llm: Answers instead of a language model.
        wire: Answers instead of a provider's servers.
        tape: Answers as a provider has answered before.
        watch: Looks at the mocks that a workflow calls.
    """

    __slots__ = ("faults", "fleet", "llm", "tape", "watch", "wire")

    def __init__(self) -> None:
        self.faults: FaultInjector | None = None
        self.fleet: SimulatedFleet | None = None
        self.llm: LLMDouble | None = None
        self.wire: Wire | None = None
        self.tape: Tape | None = None
        self.watch: DoublesWatch | None = None

    @property
    def made(self) -> Made:
        """All of them, None for what was not made."""
        return self.faults, self.fleet, self.llm, self.wire, self.tape, self.watch

    @made.setter
    def made(self, made: Made) -> None:
        self.faults, self.fleet, self.llm, self.wire, self.tape, self.watch = made

    def verify(self, known_paths: Callable[[], Iterable[str]]) -> list[str]:
        """Return what they expected otherwise, each in a sentence.

        Args:
            known_paths: Returns the paths of all steps that a workflow has. To list
                them takes longer than the rest of this, so it is asked if need be.
        """
        found: list[str] = []
        for double in (self.llm, self.wire, self.tape, self.watch):
            if double is not None:
                found += double.verify()
        if self.faults is not None:
            found += self.faults.verify(known_paths() if self.faults.is_waiting else ())
        if self.fleet is not None and self.fleet.is_waiting:
            found += self.fleet.verify(known_paths())
        return found
