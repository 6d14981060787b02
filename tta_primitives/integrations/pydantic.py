"""Input and output that is validated by pydantic, as steps of a workflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, overload

from tta_primitives.arguments import check_choice, check_flag
from tta_primitives.errors import PrimitiveError
from tta_primitives.extras import needs
from tta_primitives.primitive import WorkflowPrimitive

with needs("pydantic", __name__):
    from pydantic import BaseModel, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tta_primitives.context import WorkflowContext

__all__ = [
    "FieldProblem",
    "InputValidationError",
    "OutputValidationError",
    "ValidatePrimitive",
    "validate",
    "validate_output",
]

ModelT = TypeVar("ModelT", covariant=True)  # noqa: PLC0105 - read in errors of checkers
T = TypeVar("T")

_UNPROCESSABLE: Final = 422
# A client that sends a thousand bad fields needs no more than these to see why.
_MOST_PROBLEMS: Final = 20
_LONGEST_TEXT: Final = 200
# What these say comes from the model, never from the input.
_OWN_WORDS: Final = frozenset(
    {
        *("bool_parsing", "bool_type", "bytes_type", "dict_type", "enum"),
        *("extra_forbidden", "finite_number", "float_parsing", "float_type"),
        *("frozen_field", "greater_than", "greater_than_equal", "int_from_float"),
        *("int_parsing", "int_type", "less_than", "less_than_equal", "list_type"),
        *("literal_error", "missing", "model_attributes_type", "model_type"),
        *("multiple_of", "none_required", "string_pattern_mismatch"),
        *("string_too_long", "string_too_short", "string_type", "too_long"),
        "too_short",
    }
)
# Shorter values would be found in any message.
_SHORTEST_SECRET: Final = 3
_MOST_VALUES: Final = 1000


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field.

    Attributes:
        field: Where it is, as `items.0.price`; "" for the whole.
        message: What is wrong; never what was given.
        kind: What pydantic calls it, such as `missing` or `greater_than`.
    """

    field: str
    message: str
    kind: str


class _ValidationFailedError(PrimitiveError, ValueError):
    """What both errors have."""

    problems: tuple[FieldProblem, ...]

    def __init__(
        self, message: str, *, problems: tuple[FieldProblem, ...] = ()
    ) -> None:
        super().__init__(message)
        self.problems = problems

    def detail(self) -> list[dict[str, str]]:
        """Return the problems as JSON-able data, for the body of an answer."""
        return [
            {"field": one.field, "message": one.message, "kind": one.kind}
            for one in self.problems
        ]


class InputValidationError(_ValidationFailedError):
    """An input is not what the workflow takes; the same input never will be.

    Nothing of the input is in the message, so that it may be logged and sent back. It
    is not retried by default.

    Attributes:
        problems: What is wrong, field by field.
        status_code: 422, for hosts that answer with HTTP.
        retryable: False.
    """

    status_code: int = _UNPROCESSABLE
    retryable: bool = False


class OutputValidationError(_ValidationFailedError):
    """A step has returned what it should not; another attempt may return better.

    It has no HTTP status: that is no fault of the client's. A retry around the step and
    its validation tries again.

    Attributes:
        problems: What is wrong, field by field.
    """


class ValidatePrimitive(WorkflowPrimitive[Any, ModelT]):
    """Turns a dict, JSON text or a model into a validated model, or says what is wrong.

    Text and bytes are read as JSON where the type is a model; a model of another class
    is read by its fields. `validate(Model)` is the same for inputs, and
    `validate_output(Model)` for what a step returned.

    Args:
        model: A pydantic model, or any type that pydantic can validate.
        strict: Whether to refuse what would have to be converted, such as "3" for 3;
            None as the model says.
        of: Whether it is the `"input"` of a workflow or the `"output"` of a step.
        json: Whether text is JSON; None if the type is a model.

    Raises:
        InputValidationError: On execution; an input is not valid.
        OutputValidationError: On execution; an output is not valid.
        TypeError: An argument is of the wrong kind, or pydantic knows no such type.
        ValueError: `of` is another word.
    """

    name = "validate"
    # It looks at nothing but its input.
    _needs_position = True
    _reads_deadline = False

    def __init__(
        self,
        model: type[ModelT],
        *,
        strict: bool | None = None,
        of: Literal["input", "output"] = "input",
        json: bool | None = None,
    ) -> None:
        self._model = model
        self._is_model = isinstance(model, type) and issubclass(model, BaseModel)
        self._adapter: TypeAdapter[Any] = _adapter_of(model)
        self._strict = None if strict is None else check_flag("strict", strict)
        self._of = check_choice("of", of, ("input", "output"))
        self._json = self._is_model if json is None else check_flag("json", json)

    def options(self) -> dict[str, Any]:
        """Return the type, and the options that differ from the usual ones."""
        shown: dict[str, Any] = {"model": _name_of(self._model)}
        if self._strict is not None:
            shown["strict"] = self._strict
        if self._of != "input":
            shown["of"] = self._of
        if self._json != self._is_model:
            shown["json"] = self._json
        return shown

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return nothing: it is a leaf."""
        return ()

    async def execute(
        self,
        input_data: Any,  # noqa: ANN401 - to find out what it is is the task
        context: WorkflowContext,
        /,
    ) -> ModelT:
        """Return the validated model."""
        try:
            return cast("ModelT", self._validated(input_data))
        except ValidationError as error:
            problems = _problems(error, input_data)
        # Raised outside the handler: pydantic's error holds what was given.
        path = context.position_of(self).path
        raise self._failed(problems, path)

    def _validated(self, given: object) -> object:
        if self._json and isinstance(given, (str, bytes, bytearray)):
            return self._adapter.validate_json(given, strict=self._strict)
        if isinstance(given, BaseModel) and not (
            isinstance(self._model, type) and isinstance(given, self._model)
        ):
            given = given.model_dump()
        return self._adapter.validate_python(given, strict=self._strict)

    def _failed(
        self, problems: tuple[FieldProblem, ...], path: str
    ) -> _ValidationFailedError:
        said = "; ".join(
            f"{one.field}: {one.message}" if one.field else one.message
            for one in problems
        )
        message = f"{path}: the {self._of} is no {_name_of(self._model)}: {said}"
        kind = InputValidationError if self._of == "input" else OutputValidationError
        return kind(message, problems=problems)


@overload
def validate(
    model: type[T], *, strict: bool | None = None, json: bool | None = None
) -> ValidatePrimitive[T]: ...
@overload
def validate(
    model: object, *, strict: bool | None = None, json: bool | None = None
) -> ValidatePrimitive[Any]: ...
def validate(
    model: Any,
    *,
    strict: bool | None = None,
    json: bool | None = None,
) -> ValidatePrimitive[Any]:
    """Return a step that validates the input of a workflow.

    Args:
        model: A pydantic model, or any type that pydantic can validate.
        strict: As for `ValidatePrimitive`.
        json: As for `ValidatePrimitive`.
    """
    return ValidatePrimitive(model, strict=strict, json=json)


@overload
def validate_output(
    model: type[T], *, strict: bool | None = None, json: bool | None = None
) -> ValidatePrimitive[T]: ...
@overload
def validate_output(
    model: object, *, strict: bool | None = None, json: bool | None = None
) -> ValidatePrimitive[Any]: ...
def validate_output(
    model: Any,
    *,
    strict: bool | None = None,
    json: bool | None = None,
) -> ValidatePrimitive[Any]:
    """Return a step that validates what the step before it has returned.

    Args:
        model: A pydantic model, or any type that pydantic can validate.
        strict: As for `ValidatePrimitive`.
        json: As for `ValidatePrimitive`.
    """
    return ValidatePrimitive(model, strict=strict, of="output", json=json)


def _adapter_of(model: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - any type
    if isinstance(model, BaseModel):
        msg = f"model must be a class, not an instance: write {type(model).__name__}"
        raise TypeError(msg)
    try:
        return TypeAdapter(model)
    except Exception as error:  # Pydantic has several for what it cannot read.
        msg = f"model={model!r} is nothing that pydantic can validate: {error}"
        raise TypeError(msg) from error


def _name_of(model: Any) -> str:  # noqa: ANN401 - any type
    return model.__name__ if isinstance(model, type) else str(model)


def _problems(error: ValidationError, given: object) -> tuple[FieldProblem, ...]:
    """Return what is wrong, without what was given."""
    found = error.errors(include_url=False, include_context=False)
    problems = []
    for one in found[:_MOST_PROBLEMS]:
        message = one["msg"].removeprefix("Value error, ")
        message = message.removeprefix("Assertion failed, ")
        if one["type"] not in _OWN_WORDS:
            message = _without_values(message, one["input"], given)
        field = ".".join(_shown(part) for part in one["loc"])
        problems.append(FieldProblem(field, message, one["type"]))
    left = len(found) - len(problems)
    if left:
        problems.append(FieldProblem("", f"and {left} more", "more"))
    return tuple(problems)


def _shown(part: int | str) -> str:
    """Return a part of a place; names of unknown fields are the client's own words."""
    text = str(part)
    kept = "".join(c if c.isprintable() else "?" for c in text)
    return kept if len(kept) <= _LONGEST_TEXT else f"{kept[:_LONGEST_TEXT]}..."


def _without_values(message: str, *given: object) -> str:
    """Return a message in which no value stands that was given.

    Some of pydantic's own messages have one, as those about tags of unions; those of
    validators say whatever was written there.
    """
    texts = sorted({t for one in given for t in _texts(one)}, key=len, reverse=True)
    for text in texts:
        if text in message:
            message = message.replace(text, "***")
    if len(message) > _LONGEST_TEXT:
        message = f"{message[:_LONGEST_TEXT]}..."
    return message


def _text_of(one: object) -> str:
    reveal = getattr(one, "get_secret_value", None)
    if callable(reveal):
        one = reveal()
    return one.decode(errors="replace") if isinstance(one, bytes) else str(one)


def _texts(given: object) -> Iterator[str]:
    """Yield the texts of all values that were given, up to a bound."""
    waiting, left = [given], _MOST_VALUES
    while waiting and left:
        one = waiting.pop()
        left -= 1
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting += one
        elif isinstance(one, BaseModel):
            waiting += one.__dict__.values()
        elif one is not None and not isinstance(one, bool):
            text = _text_of(one)
            if len(text) >= _SHORTEST_SECRET:
                yield text
