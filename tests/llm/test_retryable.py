"""An error may say itself whether another attempt makes sense."""

from __future__ import annotations

import pytest

from tta_primitives import WorkflowContext
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.recovery.classify import is_retryable
from tta_primitives.recovery.hints import is_mute


class Final(Exception):
    """Says so for all of its kind."""

    retryable = False


class Status(Exception):
    """Has an HTTP status, and perhaps a word of its own."""

    def __init__(self, status_code, retryable=None):
        self.status_code = status_code
        self.retryable = retryable


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (Final(), False),
        (Status(400), False),
        (Status(400, retryable=True), True),
        (Status(503), True),
        (Status(503, retryable=False), False),
        (Status(400, retryable="yes"), False),
        (ExceptionGroup("both", [OSError(), Final()]), False),
    ],
    ids=lambda value: getattr(value, "status_code", type(value).__name__),
)
def test_word_of_an_error_outweighs_its_status(error, retryable) -> None:
    """True and False count, and nothing else."""
    assert is_retryable(error) is retryable


def test_word_of_a_type_is_one() -> None:
    """Such an error has something to say, though its type says it."""
    assert not is_mute(Final())


async def test_retry_leaves_what_is_final(tta) -> None:
    """One attempt, and no wait."""

    async def fail(_):
        raise Final("no")

    retry = RetryPrimitive(fail)
    with pytest.raises(Final, match="no"):
        await retry.execute("?", WorkflowContext())
    assert (retry.stats.retries, tta.elapsed) == (0, 0)
