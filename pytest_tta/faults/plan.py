"""Which faults strike where and when: plain data that can be pasted, compared, sent."""

# ruff: noqa: ANN401 - plain data of any shape

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pytest_tta.faults import catalogue, schedules
from pytest_tta.faults.catalogue import Fault
from pytest_tta.faults.llm import LLM_FAULTS
from pytest_tta.faults.llm_base import LLMFault
from pytest_tta.faults.schedules import Schedule
from pytest_tta.paths import check_place, matches
from tta_primitives.primitive import WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tta_primitives.door import Call

__all__ = ["FaultPlan", "FaultRule", "Place"]

M = TypeVar("M")

Place: TypeAlias = "str | WorkflowPrimitive[Any, Any] | Callable[[Call], bool]"


@dataclass(frozen=True, slots=True, repr=False)
class FaultRule:
    """One fault, where it strikes and when.

    Args:
        place: The path of a position, the end of one (`llm`), or a pattern (`*` for any
            characters of a label, `**` for any labels); a primitive; the async function
            of a step; or a function of the `Call` that returns True or False.
        fault: What goes wrong.
        schedule: Which calls at a site it strikes.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: The path is none.
    """

    place: Place
    fault: Fault
    schedule: Schedule = field(default_factory=schedules.always)

    def __post_init__(self) -> None:
        _check_place(self.place)
        _check_kind("fault", self.fault, Fault, "fail(TimeoutError())")
        _check_kind("when", self.schedule, Schedule, "first(2)")

    def names(self, call: Call, path: str) -> bool:
        """Tell whether a call stands at this rule's place.

        Raises:
            TypeError: The function that should tell returned no bool.
        """
        place = self.place
        if isinstance(place, str):
            return matches(place, path)
        if isinstance(place, WorkflowPrimitive):
            return place is call.primitive or _is_same_step(place, call.primitive)
        if _is_function_of(place, call.primitive):
            return True
        return not inspect.iscoroutinefunction(place) and _answer(place, call)

    @property
    def place_text(self) -> str:
        """The place as a message shows it."""
        if isinstance(self.place, (str, WorkflowPrimitive)):
            return repr(self.place)
        return _name_of(self.place)

    def __repr__(self) -> str:
        shown = [self.place_text, repr(self.fault)]
        if self.schedule != schedules.always():
            shown.append(repr(self.schedule))
        return f"FaultRule({', '.join(shown)})"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class FaultPlan:
    """Rules that hold together: what a search generates and a failure prints.

    Args:
        rules: In the order in which they act on a call that several of them strike.

    Raises:
        TypeError: One is no rule.
    """

    rules: tuple[FaultRule, ...]

    def __init__(self, *rules: FaultRule) -> None:
        for rule in rules:
            _check_kind("rule", rule, FaultRule, "FaultRule('llm', hang())")
        object.__setattr__(self, "rules", rules)

    def __iter__(self) -> Iterator[FaultRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __repr__(self) -> str:
        return f"FaultPlan({', '.join(map(repr, self.rules))})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002, FBT001 - IPython's protocol
        # Hypothesis would print the field of the dataclass, which is no code.
        printer.text(repr(self))

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the plan as JSON-able data.

        Raises:
            TypeError: A rule holds what has no plain form: a function, a primitive, or
                a value that JSON does not know.
        """
        return [
            {
                "place": _plain_text(rule.place, rule),
                "fault": _plain_fault(rule.fault),
                "schedule": _plain_schedule(rule.schedule),
            }
            for rule in self.rules
        ]

    @classmethod
    def from_plain(cls, data: Sequence[Mapping[str, Any]]) -> FaultPlan:
        """Return the plan that `to_plain` described.

        The modules of its exceptions are imported, so the data must come from a source
        that may run code.

        Raises:
            TypeError: The data is not of that form.
            ValueError: The data names what does not exist.
        """
        return cls(
            *(
                FaultRule(
                    one["place"],
                    _fault_from(one["fault"]),
                    _schedule_from(one["schedule"]),
                )
                for one in data
            )
        )


def _check_place(place: object) -> None:
    if isinstance(place, str):
        check_place("place", place)
    elif isinstance(place, type) or not (
        isinstance(place, WorkflowPrimitive) or callable(place)
    ):
        msg = (
            f"place={place!r} must be a path such as 'retry/llm', a primitive, the "
            "async function of a step, or a function of the call that returns a bool"
        )
        raise TypeError(msg)


def _check_kind(name: str, value: object, kind: type, example: str) -> None:
    if not isinstance(value, kind):
        msg = f"{name}={value!r} must be a {kind.__name__}, for instance {example}"
        raise TypeError(msg)


def _is_same_step(
    place: WorkflowPrimitive[Any, Any], primitive: WorkflowPrimitive[Any, Any]
) -> bool:
    """Tell whether both are steps of one function: binding extras copies a step."""
    function = getattr(place, "__wrapped__", None)
    return function is not None and _is_function_of(function, primitive)


def _is_function_of(place: object, primitive: WorkflowPrimitive[Any, Any]) -> bool:
    return getattr(primitive, "__wrapped__", None) is place


def _answer(predicate: Callable[[Call], bool], call: Call) -> bool:
    answer = predicate(call)
    if not isinstance(answer, bool):
        name = _name_of(predicate)
        msg = (
            f"place={name} returned {answer!r} for the call at {call.path!r}; it is "
            "asked about each call and must return True or False; to name a step, give "
            "its path"
        )
        raise TypeError(msg)
    return answer


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", repr(function))


def _plain_text(place: Place, rule: FaultRule) -> str:
    if isinstance(place, str):
        return place
    msg = f"{rule!r} has no plain form: name its place by a path"
    raise TypeError(msg)


def _plain_fault(fault: Fault) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": fault.name}
    if isinstance(fault, LLMFault):
        return plain | fault.arguments
    if fault.after_chunks:
        plain["after_chunks"] = fault.after_chunks
    if isinstance(fault, catalogue.Fail):
        plain["error"] = _plain_error(fault.error)
    elif isinstance(fault, catalogue.Slow):
        plain["delay"] = fault.delay
    elif isinstance(fault, catalogue.Returns):
        plain["value"] = _plain_value(fault.value)
    return plain


def _plain_error(error: object) -> dict[str, Any]:
    if isinstance(error, type):
        return {"type": f"{error.__module__}:{error.__qualname__}"}
    if not isinstance(error, BaseException):
        msg = f"fail({_name_of(error)}) has no plain form: give an exception or a class"
        raise TypeError(msg)
    return {**_plain_error(type(error)), "args": _plain_value(list(error.args))}


def _plain_value(value: Any) -> Any:
    """Return a value that JSON gives back as it was."""
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if type(value) is list:
        return [_plain_value(item) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _plain_value(item) for key, item in value.items()}
    msg = f"{value!r} has no plain form: JSON would not give it back as it is"
    raise TypeError(msg)


def _plain_schedule(schedule: Schedule) -> dict[str, Any]:
    if isinstance(schedule, (schedules.Both, schedules.Either)):
        name = "and" if isinstance(schedule, schedules.Both) else "or"
        sides = [_plain_schedule(schedule.left), _plain_schedule(schedule.right)]
        return {"name": name, "of": sides}
    if isinstance(schedule, schedules.Not):
        return {"name": "not", "of": [_plain_schedule(schedule.inner)]}
    for kind, (name, fields) in _SCHEDULES.items():
        if isinstance(schedule, kind):
            return {"name": name, **{one: getattr(schedule, one) for one in fields}}
    msg = f"{schedule!r} has no plain form: it asks a function"
    raise TypeError(msg)


_SCHEDULES: dict[type[Schedule], tuple[str, tuple[str, ...]]] = {
    schedules.Always: ("always", ()),
    schedules.First: ("first", ("n",)),
    schedules.Nth: ("nth", ("n",)),
    schedules.Every: ("every", ("n",)),
    schedules.Chance: ("chance", ("p",)),
    schedules.AtTime: ("at_time", ("begin", "until")),
}
_MAKERS: dict[str, Callable[..., Schedule]] = {
    **{name: getattr(schedules, name) for name, _ in _SCHEDULES.values()},
    "and": lambda of: _schedule_from(of[0]) & _schedule_from(of[1]),
    "or": lambda of: _schedule_from(of[0]) | _schedule_from(of[1]),
    "not": lambda of: ~_schedule_from(of[0]),
}
_FAULTS: dict[str, Callable[..., Fault]] = {
    "fail": catalogue.fail,
    "lost_ack": catalogue.lost_ack,
    "hang": catalogue.hang,
    "slow": catalogue.slow,
    "cancel": catalogue.cancel,
    "returns": catalogue.returns,
    **LLM_FAULTS,
}


def _schedule_from(plain: Mapping[str, Any]) -> Schedule:
    arguments = dict(plain)
    return _maker(_MAKERS, "schedule", arguments.pop("name", None))(**arguments)


def _fault_from(plain: Mapping[str, Any]) -> Fault:
    arguments = dict(plain)
    if "error" in arguments:
        arguments["error"] = _error_from(arguments["error"])
    return _maker(_FAULTS, "fault", arguments.pop("name", None))(**arguments)


def _maker(
    makers: Mapping[str, Callable[..., M]], what: str, name: object
) -> Callable[..., M]:
    if not isinstance(name, str) or name not in makers:
        msg = f"{what}={name!r} must be one of {', '.join(map(repr, makers))}"
        raise ValueError(msg)
    return makers[name]


def _error_from(plain: Mapping[str, Any]) -> Any:
    module, _, name = plain["type"].partition(":")
    kind: Any = import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        msg = f"type={plain['type']!r} must name a class of exceptions, 'module:Class'"
        raise ValueError(msg)  # noqa: TRY004 - the text is wrong, not its type
    return kind(*plain["args"]) if "args" in plain else kind
