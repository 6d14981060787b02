"""Validation by pydantic, as a step."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from pytest_tta import MockPrimitive
from tta_primitives import WorkflowContext, step
from tta_primitives.integrations.pydantic import (
    FieldProblem,
    InputValidationError,
    OutputValidationError,
    ValidatePrimitive,
    validate,
    validate_output,
)
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, attempts_of

SECRET = "sk-live-4242424242"


class WorkflowInput(BaseModel):
    text: str
    max_length: int

    @field_validator("max_length")
    @classmethod
    def check_max_length(cls, value: int) -> int:
        """Refuse lengths that no model can give."""
        if value > 10_000:
            raise ValueError("max_length too large")
        return value


async def run(primitive, value):
    return await primitive.execute(value, WorkflowContext())


@pytest.mark.parametrize(
    "given",
    [
        {"text": "hi", "max_length": 5},
        {"text": "hi", "max_length": "5"},
        '{"text": "hi", "max_length": 5}',
        b'{"text": "hi", "max_length": 5}',
        WorkflowInput(text="hi", max_length=5),
    ],
    ids=["dict", "converted", "text", "bytes", "model"],
)
async def test_a_model_comes_out(given) -> None:
    """Dicts, JSON and models are all good."""
    assert await run(validate(WorkflowInput), given) == WorkflowInput(
        text="hi", max_length=5
    )


async def test_model_of_another_class_is_read_by_its_fields() -> None:
    """What one workflow returns may be what the next one takes."""

    class Draft(BaseModel):
        text: str
        max_length: int
        author: str

    draft = Draft(text="hi", max_length=5, author="ada")
    assert (await run(validate(WorkflowInput), draft)).text == "hi"


async def test_error_lists_all_fields() -> None:
    """Each field is named with what is wrong, and the path says where."""
    workflow = validate(WorkflowInput) >> step(len)
    with pytest.raises(InputValidationError, match="text: Field") as caught:
        await run(workflow, {"max_length": 20_000})
    assert str(caught.value) == (
        "sequential/validate: the input is no WorkflowInput: text: Field required; "
        "max_length: max_length too large"
    )
    assert caught.value.problems == (
        FieldProblem("text", "Field required", "missing"),
        FieldProblem("max_length", "max_length too large", "value_error"),
    )
    assert json.loads(json.dumps(caught.value.detail()))[0]["field"] == "text"
    assert caught.value.status_code == 422
    assert caught.value.retryable is False
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


class Card(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: SecretStr = Field(max_length=8)
    pin: int
    kind: Literal["debit", "credit"] = "debit"
    issued: str = ""

    @field_validator("issued")
    @classmethod
    def check_issued(cls, value: str) -> str:
        """Say more than one should."""
        if value:
            raise ValueError(f"cannot read {value!r} of the card")
        return value


class Tagged(BaseModel):
    card: Annotated[Visa | Amex, Field(discriminator="kind")]


class Visa(BaseModel):
    kind: Literal["visa"]


class Amex(BaseModel):
    kind: Literal["amex"]


Tagged.model_rebuild()


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (Card, {"number": SECRET, "pin": 1}),
        (Card, {"number": "1", "pin": SECRET}),
        (Card, {"number": "1", "pin": 1, "kind": SECRET}),
        (Card, {"number": "1", "pin": 1, "issued": SECRET}),
        (Card, {"number": "1", "pin": 1, "cvc": SECRET}),
        (Card, f'{{"number": "1", "pin": {SECRET}}}'),
        (Card, SECRET),
        (Card, [SECRET]),
        (Tagged, {"card": {"kind": SECRET}}),
    ],
    ids=["long", "type", "choice", "validator", "extra", "json", "text", "list", "tag"],
)
async def test_nothing_that_was_given_is_told(model, given, caplog) -> None:
    """Neither the message, the problems, the traceback nor a log shows the secret."""
    with pytest.raises(InputValidationError, match="the input is no") as caught:
        await run(validate(model), given)
    logging.getLogger("app").error("refused", exc_info=caught.value)
    told = [str(caught.value), repr(caught.value), repr(caught.value.problems)]
    told += traceback.format_exception(caught.value)
    assert SECRET not in "\n".join(told) + caplog.text
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_limits_that_are_equal_to_another_value_stay_readable() -> None:
    """A message about the model's own limits is not blacked out."""

    class Limited(BaseModel):
        first: int
        second: int = Field(ge=1000)

    with pytest.raises(InputValidationError, match="greater than or equal to 1000"):
        await run(validate(Limited), {"first": 1000, "second": 5})


async def test_many_problems_are_cut() -> None:
    """A client that sends rubbish does not fill the log with it."""
    with pytest.raises(InputValidationError, match="and 980 more") as caught:
        await run(validate(list[int]), ["x"] * 1000)
    assert len(caught.value.problems) == 21


async def test_strict_refuses_to_convert() -> None:
    """A number in quotes is none."""
    with pytest.raises(InputValidationError, match="max_length: Input should be a val"):
        await run(validate(WorkflowInput, strict=True), {"text": "", "max_length": "5"})


async def test_any_type_can_be_validated() -> None:
    """Text is JSON for models alone, unless it is said to be."""
    assert await run(validate(list[int]), ["1", 2]) == [1, 2]
    assert await run(validate(str), "[1]") == "[1]"
    assert await run(validate(list[int], json=True), "[1]") == [1]


async def test_invalid_input_is_not_retried(tta) -> None:
    """The same input would be refused again, also behind a fallback."""
    workflow = RetryPrimitive(validate(WorkflowInput) >> step(len), max_retries=3)
    with pytest.raises(InputValidationError, match="Field required") as caught:
        await run(workflow, {})
    assert len(attempts_of(caught.value)) == 1
    assert tta.elapsed == 0.0


async def test_invalid_output_is_retried(tta) -> None:
    """A model that answers badly is asked again; its answer was nobody's input."""
    llm = MockPrimitive("llm", side_effect=['{"text": 1}', '{"text": "hi"}'])

    class Answer(BaseModel):
        text: str

    workflow = RetryPrimitive(llm >> validate_output(Answer), max_retries=3)
    assert await run(workflow, "why?") == Answer(text="hi")
    assert llm.call_count == 2


async def test_output_error_says_so() -> None:
    """It has no status of a client's fault, and is a ValueError as well."""
    check = validate_output(WorkflowInput)
    with pytest.raises(OutputValidationError, match="the output is no WorkflowInput"):
        await run(check, {})
    assert not hasattr(OutputValidationError, "status_code")
    assert issubclass(OutputValidationError, ValueError)
    rescued = FallbackPrimitive(check, ["sorry"])
    assert await run(rescued, {}) == "sorry"


def test_options_are_shown() -> None:
    """What tells two validations apart is in the repr, and in a cache's namespace."""
    made = ValidatePrimitive(WorkflowInput, strict=True, of="output")
    assert repr(made) == (
        "<ValidatePrimitive 'validate' model='WorkflowInput' strict=True of='output'>"
    )
    assert repr(validate(list[int], json=True)) == (
        "<ValidatePrimitive 'validate' model='list[int]' json=True>"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: validate(WorkflowInput(text="", max_length=1)), "write WorkflowInput"),
        (lambda: validate(object()), "nothing that pydantic can validate"),
        (lambda: validate(int, strict=1), "strict=1 must be True or False"),
        (lambda: validate(int, json="yes"), "json='yes' must be True or False"),
        (lambda: ValidatePrimitive(int, of="it"), "of='it' must be one of"),
    ],
    ids=["instance", "object", "strict", "json", "of"],
)
def test_arguments_are_checked(make, message) -> None:
    """What is wrong is said where the step is made."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()
