"""What comes back of values and errors that a journal has kept as text."""

from __future__ import annotations

import pytest

from tta_primitives.durable import values
from tta_primitives.durable.errors import JournalError, StepFailedError
from tta_primitives.durable.values import from_json, known_errors, to_json


class Refused(Exception):
    """An error of an application, with an attribute."""


class Strict(Exception):
    """An error that takes its own arguments and refuses those of others."""

    def __new__(cls, *arguments):
        """Make one of a single number."""
        if len(arguments) != 1 or not isinstance(arguments[0], int):
            raise ValueError("a number is needed")
        return super().__new__(cls, *arguments)


def test_an_error_comes_back_with_arguments_and_attributes():
    """It is of the type that was recorded, and can be caught as that."""
    error = Refused("no", 402)
    error.code = "card"
    back = from_json(to_json(error, "the output"), "the output")
    assert type(back) is Refused
    assert (back.args, back.code) == (("no", 402), "card")


def test_an_error_of_a_type_that_is_gone_keeps_its_name_and_message():
    """A process that does not know the type must go on nevertheless."""
    text = to_json(Refused("no"), "the output")
    gone = text.replace(":Refused", ":Renamed")
    assert gone != text
    back = from_json(gone, "the output")
    assert type(back) is StepFailedError
    assert str(back).endswith(":Renamed: no")


def test_an_error_whose_type_has_changed_keeps_its_name_and_message():
    """What its class no longer takes is not lost."""
    text = to_json(Strict(7), "the output")
    assert type(from_json(text, "the output")) is Strict
    back = from_json(text.replace('"args":[7]', '"args":["seven"]'), "the output")
    assert type(back) is StepFailedError
    assert str(back).endswith(":Strict: 7")


def test_a_type_that_moved_is_known_by_its_registered_name(monkeypatch):
    """`known_errors` tells of types that nothing else has imported."""
    monkeypatch.setattr(values, "_registered", {})
    monkeypatch.setattr(Refused, "__module__", "shop.errors")
    text = to_json(Refused("no"), "the output")
    assert type(from_json(text, "the output")) is StepFailedError
    known_errors(Refused)
    assert type(from_json(text, "the output")) is Refused


def test_a_key_that_is_no_text_is_refused():
    """It would come back as a text."""
    with pytest.raises(TypeError, match="the input has the key 1, which JSON would"):
        to_json({"a": {1: "b"}}, "the input")


@pytest.mark.parametrize("text", ["{", '{"$bytes": 1}', '{"$decimal": "much"}'])
def test_a_text_that_was_not_written_by_it_is_told(text):
    """The error says what could not be read."""
    with pytest.raises(JournalError, match="the input is not what a durable workflow"):
        from_json(text, "the input")
