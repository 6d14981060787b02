"""What is said where an optional library is missing."""

from __future__ import annotations

import pytest

from tta_primitives.extras import missing, needs


def test_a_missing_library_is_told_with_the_command() -> None:
    """The sentence names who asks, what is missing and what to run."""
    expected = r"^the cache needs redis: pip install 'tta-dev-primitives\[redis\]'$"
    with (
        pytest.raises(ModuleNotFoundError, match=expected) as caught,
        needs("redis", "the cache"),
    ):
        raise ModuleNotFoundError(name="redis.asyncio")
    assert caught.value.name == "redis"


def test_the_library_may_have_another_name_than_the_extra() -> None:
    """The extra is what to install, the library is what is missing."""
    error = missing("settings", "Settings", "pydantic_settings")
    assert str(error) == (
        "Settings needs pydantic_settings: pip install 'tta-dev-primitives[settings]'"
    )


def test_a_library_that_is_broken_is_told_as_it_is() -> None:
    """What an installed library fails to import is no matter of our extras."""
    broken = ModuleNotFoundError("No module named 'numpy'", name="numpy")
    with (
        pytest.raises(ModuleNotFoundError, match="No module named 'numpy'") as caught,
        needs("redis", "the cache"),
    ):
        raise broken
    assert caught.value is broken
