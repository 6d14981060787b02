"""What all state machines have in common: callers, answers, cancellation, time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pytest_tta.properties.machines.world import Caller, World
from pytest_tta.properties.needed import needed_hypothesis
from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.properties.machines.world import Load

needed_hypothesis()

from hypothesis import strategies as st  # noqa: E402 - the error must be ours
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

__all__ = ["Caller", "Machine", "durations"]

_VALUES = 3
_MANY = 7


def durations(machine: Machine) -> Any:  # noqa: ANN401 - a strategy
    """Return a strategy for the times that matter to a machine's primitive.

    Args:
        machine: The machine.
    """
    return st.sampled_from(machine.durations)


class Machine(RuleBasedStateMachine):
    """Callers of one primitive, whose step is answered by Hypothesis.

    A subclass gives `make`, which returns the primitive under test around `step`. Each
    example has a primitive, a loop and a time of its own. The rules:

    - `call`: somebody calls, with a small number;
    - `call_together`: several call in the same instant;
    - `answer`: one of the step's executions returns, or fails with a `ConnectionError`;
    - `cancel`: a caller is cancelled;
    - `advance`: time passes, by what matters to the primitive.

    After each of them, every call must stand where the model of the subclass says.

    Attributes:
        primitive: What `make` returned.
        options: Its options, those that were not given included.
    """

    # The options that the model knows, with the values they have unless given.
    _known: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._answers = 0
        self._unsettled: list[Caller] = []
        self._world = World()
        try:
            self.primitive: WorkflowPrimitive[int, Any] = self._made()
            self.options: dict[str, Any] = self._read_options()
            self.durations: Sequence[float] = self._moments()
        except BaseException:
            self._world.close()
            raise

    def make(self, step: WorkflowPrimitive[int, Any]) -> WorkflowPrimitive[int, Any]:
        """Return the primitive under test, a new one each time.

        Args:
            step: What it is to be around.

        Raises:
            NotImplementedError: The subclass does not say.
        """
        msg = (
            f"{type(self).__name__} must define make(self, step), which returns the "
            f"primitive under test around the step; it was given {step!r}"
        )
        raise NotImplementedError(msg)

    # --- what a model says ---------------------------------------------------

    def _moments(self) -> Sequence[float]:
        """Return the durations that matter, in seconds."""
        raise NotImplementedError

    def _admit(self, caller: Caller) -> None:
        """Say what must become of a new call."""
        raise NotImplementedError

    def _ended(self, load: Load, result: object, *, is_ok: bool) -> None:
        """Say what must follow from an answer of the step."""
        raise NotImplementedError

    def _gone(self, caller: Caller) -> None:
        """Say what must follow from the cancellation of a call."""
        raise NotImplementedError

    def _passed(self) -> None:
        """Say what must have happened by now."""
        raise NotImplementedError

    # --- what happens --------------------------------------------------------

    @rule(value=st.integers(0, _VALUES - 1))
    def call(self, value: int) -> None:
        """Call the primitive."""
        self._called([value])

    @rule(values=st.lists(st.integers(0, _VALUES - 1), min_size=2, max_size=4))
    def call_together(self, values: list[int]) -> None:
        """Call the primitive several times in the same instant."""
        self._called(values)

    @precondition(lambda self: self._world.loads)
    @rule(
        which=st.integers(0, _MANY), is_ok=st.booleans().map(lambda failed: not failed)
    )
    def answer(self, which: int, is_ok: bool) -> None:  # noqa: FBT001 - drawn by name
        """Let one of the step's executions return, or fail."""
        self._answered(which, None if is_ok else ConnectionError("injected"))

    @precondition(lambda self: self._living())
    @rule(which=st.integers(0, _MANY))
    def cancel(self, which: int) -> None:
        """Cancel one of the callers."""
        living = self._living()
        caller = living[which % len(living)]
        caller.task.cancel()
        self._world.settle()
        self._gone(caller)
        caller.expect("cancelled", "it was cancelled")

    @rule(seconds=st.runner().flatmap(durations))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._world.pass_time(seconds)
        self._passed()

    @invariant()
    def everybody_is_where_the_model_says(self) -> None:
        """Compare what happens with the model."""
        __tracebackhide__ = True
        self._compare()

    def _compare(self) -> None:
        __tracebackhide__ = True
        for caller in self._unsettled:
            self._check(caller)
        # What has ended as it must stays as it is.
        self._unsettled = [one for one in self._unsettled if not one.task.done()]

    def teardown(self) -> None:
        """End everything that is left running."""
        self._world.close()

    # --- how -----------------------------------------------------------------

    @property
    def now(self) -> float:
        """The present, in seconds since the machine began."""
        return self._world.now

    def _called(self, values: list[int]) -> None:
        callers = [self._world.call(self.primitive, value) for value in values]
        self._world.settle()
        for caller in callers:
            self._unsettled.append(caller)
            self._admit(caller)

    def _answered(self, which: int, error: ConnectionError | None) -> None:
        """Let one of the step's executions return, or raise an error."""
        loads = self._world.loads
        load = loads[which % len(loads)]
        self._answers += 1
        if error is None:
            load.future.set_result(self._answers)
        else:
            load.future.set_exception(error)
        self._world.settle()
        self._ended(load, self._answers, is_ok=error is None)

    def _living(self) -> list[Caller]:
        return [one for one in self._unsettled if not one.task.done()]

    def _standing(self, caller: Caller) -> str:
        return self._world.standing(caller)

    def _check(self, caller: Caller) -> None:
        __tracebackhide__ = True
        standing = self._standing(caller)
        if standing != caller.expected:
            said = f"must be {caller.expected!r}"
            self._differs(caller, f"is {standing!r} at {self.now:g} s and {said}")
        if standing == "returned" and caller.result is not None:
            result = caller.task.result()
            if result != caller.result:
                self._differs(caller, f"returned {result!r}, not {caller.result!r}")

    def _differs(self, caller: Caller, what: str) -> NoReturn:
        __tracebackhide__ = True
        why = f": {caller.why}" if caller.why else ""
        msg = f"{self.primitive!r}: caller {caller.number} {what}{why}"
        raise AssertionError(msg)

    def _made(self) -> WorkflowPrimitive[int, Any]:
        made = self.make(self._world.step)
        if isinstance(made, WorkflowPrimitive) and self._world.step in made.children():
            return made
        msg = (
            f"{type(self).__name__}.make(step) returned {made!r}, and must return a "
            "primitive around the step that it is given"
        )
        raise TypeError(msg)

    def _read_options(self) -> dict[str, Any]:
        """Return the options, if the model knows them all."""
        given = self.primitive.options()
        unknown = [f"{name}=" for name in given if name not in self._known]
        if unknown:
            msg = (
                f"{type(self).__name__} has no model of {', '.join(unknown)} of "
                f"{self.primitive!r}; it knows {', '.join(self._known)}"
            )
            raise TypeError(msg)
        return {**self._known, **given}
