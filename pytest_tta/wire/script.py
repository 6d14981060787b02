"""Where a test writes down what a provider answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.doubles.llm import Script
from pytest_tta.doubles.replies import Fixed
from pytest_tta.wire.saying import Faulted
from tta_primitives.llm import LLMResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from pytest_tta.doubles.calls import LLMCall
    from pytest_tta.doubles.rules import Rule
    from pytest_tta.doubles.sites import Place
    from pytest_tta.wire.api import WireFault

__all__ = ["UNACCEPTABLE", "WireScript", "check_fault"]

_ANY: Any = object()
UNACCEPTABLE = "This answer must never be taken for a good one."
"""What a model says, or begins to say, where a fault is all that a test scripts."""


class WireScript(Script):
    """Where a test writes down what a provider answers."""

    def at(self, place: Place) -> WireScript:
        """Write for the requests of one place of a workflow; see `Script.at`."""
        narrowed = super().at(place)
        return WireScript(self._rules, narrowed._scope)

    def when(
        self,
        holds: Callable[[LLMCall], object] | None = None,
        *,
        contains: str | None = None,
        input: object = _ANY,  # noqa: A002 - what the user calls it
    ) -> WireScript:
        """Write for the requests for which all of this holds; see `Script.when`."""
        given = {} if input is _ANY else {"input": input}
        narrowed = super().when(holds, contains=contains, **given)
        return WireScript(self._rules, narrowed._scope)

    def fails(self, fault: WireFault, *, said: str | LLMResponse | None = None) -> Rule:
        """Answer as a provider does when something goes wrong.

        Args:
            fault: What goes wrong, such as `rate_limit(after=30)`.
            said: What the model says if the fault lets some of it through; a sentence
                unless given.

        Raises:
            TypeError: One of them is of another kind.
        """
        check_fault(fault)
        if said is not None and not isinstance(said, (str, LLMResponse)):
            msg = f"said={said!r} must be a text or an LLMResponse"
            raise TypeError(msg)
        shown = f".fails({fault!r}{'' if said is None else f', said={said!r}'})"
        reply = Fixed(UNACCEPTABLE if said is None else said)
        return self._add(Faulted(fault, reply), shown)

    def raises(
        self,
        error: BaseException | type[BaseException],
        *,
        delay: float | timedelta = 0.0,
    ) -> Rule:
        """Refuse: nothing that a provider does is an exception.

        Raises:
            TypeError: Always; `fails` is what is meant.
        """
        msg = (
            f".raises({error!r}, delay={delay!r}): a provider sends bytes, and the SDK "
            "makes an exception of them; write .fails(server_error()), for instance"
        )
        raise TypeError(msg)


def check_fault(fault: object) -> None:
    """Refuse what is no fault that a provider can have.

    Raises:
        TypeError: It is none.
    """
    if not callable(getattr(fault, "on_wire", None)):
        msg = (
            f"fault={fault!r} must be a fault that a provider can have, such as "
            "rate_limit(after=30) of pytest_tta.faults"
        )
        raise TypeError(msg)
