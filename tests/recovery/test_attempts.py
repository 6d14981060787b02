"""The history of attempts on the error that a retry raises, whatever its class."""

from __future__ import annotations

import copy
import pickle
import traceback
from dataclasses import dataclass

import pytest

from tests.recovery.doubles import Boom, Script, exactly, virtual
from tta_primitives import WorkflowContext
from tta_primitives.recovery import Attempt, RetryPrimitive, attempts_of


@dataclass(frozen=True)
class Frozen(Exception):
    """An error that refuses attributes."""

    code: int


class Slotted(Exception):
    """An error with slots."""

    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class WithAttempts(Exception):
    """An error that has attempts of its own."""

    attempts = "mine"


class Unprintable(Exception):
    """An error whose repr fails."""

    def __repr__(self):
        raise ValueError("no")


async def fail(*errors, **options):
    """Return what came out of a retry over these errors."""
    options.setdefault("max_retries", len(errors) - 1)
    retried = RetryPrimitive(Script(*errors), jitter="none", **options)
    with pytest.raises(type(errors[-1]), match=exactly(errors[-1])) as caught:
        await retried.execute("x", WorkflowContext())
    return caught.value


@pytest.mark.parametrize(
    "kind", [Boom, Frozen, Slotted, WithAttempts, ValueError, OSError]
)
@virtual
async def test_case_05_the_error_carries_a_note_and_its_attempts(clock, kind):
    """Both exist for every kind of exception, and its own fields stay as they are."""
    errors = [kind(1), kind(2), kind(3)]
    error = await fail(*errors)
    assert error is errors[2]
    assert attempts_of(error) == (
        Attempt(1, errors[0], 0.5),
        Attempt(2, errors[1], 1.0),
        Attempt(3, errors[2], None),
    )
    note = (
        "retry gave up after 3 attempts (max_retries=2):\n"
        f"  1. {errors[0]!r}, then 0.5 s\n"
        f"  2. {errors[1]!r}, then 1 s\n"
        f"  3. {errors[2]!r}"
    )
    assert error.__notes__ == [note]
    assert getattr(error, "attempts", "mine") == "mine"
    assert "gave up after 3 attempts" in "".join(traceback.format_exception(error))


@virtual
async def test_case_05_one_object_raised_by_every_attempt(clock):
    """The error stands for itself in its own history, and keeps nothing alive."""
    same = Boom("same")
    error = await fail(same, same, same)
    assert attempts_of(error) == (
        Attempt(1, same, 0.5),
        Attempt(2, same, 1.0),
        Attempt(3, same, None),
    )


@virtual
async def test_case_05_the_note_is_replaced_in_the_next_run(clock):
    """One object raised in two runs has one note, that of the last run."""
    same = Boom("same")
    same.add_note("the user's own")
    await fail(same, same, same)
    error = await fail(same, same)
    assert [note.splitlines()[0] for note in error.__notes__] == [
        "the user's own",
        "retry gave up after 2 attempts (max_retries=1):",
    ]
    assert len(attempts_of(error)) == 2


@virtual
async def test_case_05_a_run_without_a_note_takes_the_old_one_away(clock):
    """What was true in an earlier run is not told again."""
    same = Boom("same")
    await fail(same, same)
    error = await fail(same)
    assert error.__notes__ == []
    assert attempts_of(error) == (Attempt(1, same, None),)


@virtual
async def test_an_error_whose_repr_fails_is_noted_anyway(clock):
    """A note never hides the error."""
    error = await fail(Unprintable(), Unprintable())
    assert "1. <Unprintable, whose repr raised ValueError>" in error.__notes__[0]


@virtual
async def test_long_texts_are_cut_in_the_note(clock):
    """A page of HTML in an error does not fill the log; the object has all of it."""
    error = await fail(Boom("x" * 10_000), Boom("y" * 10_000))
    assert len(error.__notes__[0]) < 600
    assert len(attempts_of(error)[0].error.args[0]) == 10_000


@virtual
async def test_rule_08_the_first_10_and_last_90_of_many_attempts_are_kept(clock):
    """The history is bounded, and the last number tells how many there were."""
    errors = [Boom(n) for n in range(1, 502)]
    error = await fail(*errors)
    numbers = [attempt.number for attempt in attempts_of(error)]
    assert numbers == [*range(1, 11), *range(412, 502)]
    assert attempts_of(error)[-1] == Attempt(501, errors[-1], None)


@virtual
async def test_an_error_that_was_not_retried_has_no_note(clock):
    """There is nothing to tell about a single attempt."""
    error = await fail(TypeError("bug"), max_retries=3)
    assert not hasattr(error, "__notes__")
    assert attempts_of(error) == (Attempt(1, error, None),)


def test_an_error_from_elsewhere_has_no_attempts():
    """Asking is allowed for any error."""
    assert attempts_of(Boom()) == ()
    assert attempts_of(KeyboardInterrupt()) == ()


@virtual
async def test_a_retried_error_can_be_pickled_and_copied(clock):
    """Job queues pickle errors; the history, which may not pickle, stays behind."""
    unpicklable = Boom(lambda: None)
    error = await fail(unpicklable, Boom("last"))
    revived = pickle.loads(pickle.dumps(error))
    assert (str(revived), attempts_of(revived)) == ("last", ())
    assert revived.__notes__ == error.__notes__
    assert str(copy.deepcopy(error)) == "last"
