"""What a test says holds at the end of every execution, and what some must reach."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.clock.places import caller_spot, place
from pytest_tta.comparing import sides_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.clock.places import Spot

__all__ = ["Broken", "Invariant", "Promises"]

_OURS = (__name__, "pytest_tta.harness")


class Broken(NamedTuple):
    """An invariant that did not hold.

    Attributes:
        text: What is wrong, in a sentence.
        where: The user's line that stated it.
        error: What the check raised; None if it returned false.
    """

    text: str
    where: str
    error: BaseException | None


class Invariant(NamedTuple):
    """Something that holds at the end, whatever went wrong before.

    Attributes:
        check: Returns whether it holds, or raises an AssertionError.
        sentence: What holds.
        spot: Where the test stated it.
    """

    check: Callable[[], object]
    sentence: str
    spot: Spot | None

    def broken(self) -> Broken | None:
        """Return in which way it does not hold; None if it does."""
        __tracebackhide__ = True
        try:
            held = self.check()
        except Exception as error:  # noqa: BLE001 - the check is the user's own
            said = str(error)
            if not isinstance(error, AssertionError):
                said = f"{type(error).__name__}: {said}"
            return self._not_held(said.strip(), error)
        if held is None or held:
            return None  # A check that consists of asserts returns nothing.
        return self._not_held(sides_of(self.check), None)

    def _not_held(self, said: str, error: BaseException | None) -> Broken:
        where = place(self.spot)
        more = f": {said}" if said else ""
        text = f"invariant does not hold: {self.sentence}, stated at {where}{more}"
        return Broken(text, where, error)


class Promises:
    """What one execution of a test has stated.

    Attributes:
        invariants: What holds at the end.
        reached: What at least one execution reaches, and whether this one has.
    """

    __slots__ = ("invariants", "reached")

    def __init__(self) -> None:
        self.invariants: list[Invariant] = []
        self.reached: dict[str, bool] = {}

    def always(self, check: Callable[[], object], sentence: str) -> None:
        """Note an invariant; see `Harness.always`.

        Raises:
            TypeError: The check cannot be called without an event loop, or the sentence
                is none.
        """
        if not callable(check) or inspect.iscoroutinefunction(check):
            msg = (
                f"check={check!r} must be a plain function without arguments that "
                "returns whether it holds, such as lambda: bank.total() == 100"
            )
            raise TypeError(msg)
        if not isinstance(sentence, str) or not sentence:
            msg = f"sentence={sentence!r} must say what holds, such as 'paid once'"
            raise TypeError(msg)
        self.invariants.append(Invariant(check, sentence, caller_spot(*_OURS)))

    def sometimes(self, name: str, condition: object) -> None:
        """Note whether something was reached; see `Harness.sometimes`.

        Raises:
            TypeError: The name is none.
        """
        if not isinstance(name, str) or not name:
            msg = f"name={name!r} must say what is reached, such as 'stale served'"
            raise TypeError(msg)
        self.reached[name] = bool(condition) or self.reached.get(name, False)

    def broken(self) -> list[Broken]:
        """Return what does not hold now, in the order in which it was stated."""
        found = (invariant.broken() for invariant in self.invariants)
        return [broken for broken in found if broken is not None]
