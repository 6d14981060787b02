"""What spans remember and say of errors, and whom a provider stands for."""

from __future__ import annotations

import pytest

from tests.span_memory import remembering
from tta_primitives import WorkflowContext, step
from tta_primitives.observability.exceptions import Told
from tta_primitives.observability.provider import Switch


def raised(number):
    """Return an error that was raised."""
    try:
        raise ValueError(number)
    except ValueError as error:
        return error


def test_memory_of_told_errors_is_bounded():
    """Of very many it forgets the first, and never the one that came last."""
    told, errors = Told(), [raised(number) for number in range(600)]
    for error in errors:
        told.add(error)
        assert error in told
    known = sum(error in told for error in errors)
    assert 1 <= known <= 256


def test_an_error_that_was_never_raised_is_known_as_well():
    """By what it is; another one of its kind is not taken for it."""
    told, error, other = Told(), ValueError("a"), ValueError("a")
    told.add(error)
    assert error in told
    assert other not in told
    assert raised(1) not in told


@pytest.mark.parametrize(("length", "end"), [(288, "x"), (289, "x..."), (9000, "x...")])
async def test_a_long_message_is_cut_in_the_status_of_a_span(length, end):
    """A status is a line that people read, of 300 characters at most."""

    @step
    async def bad(value):
        raise ValueError("x" * length)

    with remembering() as memory, pytest.raises(ValueError, match="xxx"):
        await bad.execute(1, WorkflowContext())
    said = memory.named("bad").status.description
    assert said == "ValueError: " + "x" * min(length, 288) + end[1:]


def test_a_provider_that_stands_for_another_passes_its_methods_on():
    """While there is one; then it says what it has not, as any object does."""

    class Provider:
        def force_flush(self, timeout):
            return timeout

    switch = Switch()
    switch.inner = Provider()
    assert switch.force_flush(5) == 5
    switch.inner = None
    with pytest.raises(AttributeError, match="'Switch' object has no attribute 'force"):
        switch.force_flush(5)
    assert not hasattr(Switch(), "__deepcopy__")
