"""What the command line and the ini file say about `--tta-mutate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_tta.mutation.operators import chosen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MutationSettings", "read_mutation_settings"]

_ALL = 100


class MutationSettings(NamedTuple):
    """The settings of a session.

    Attributes:
        operators: The names of those to use; None for all.
        depth: How many faults the sweep combines that finds equivalent mutants.
        fail_under: The lowest score with which the session passes; None for any.
    """

    operators: frozenset[str] | None = None
    depth: int = 1
    fail_under: float | None = None


def read_mutation_settings(config: pytest.Config) -> MutationSettings:
    """Read the settings, those of the command line first.

    Raises:
        pytest.UsageError: A value is not allowed.
    """
    return MutationSettings(
        operators=_read(config, "tta_mutate", chosen),
        depth=_read(config, "tta_mutate_depth", _depth),
        fail_under=_read(config, "tta_mutate_fail_under", _percentage),
    )


def _read(config: pytest.Config, name: str, read: Callable[[str], Any]) -> Any:  # noqa: ANN401 - as `read` returns it
    given = config.getoption(name, default=None)
    option = f"--{name.replace('_', '-')}={given}"
    if given is None:
        given = config.getini(name)
        option = f"{name} = {given}"
    try:
        return read(str(given))
    except ValueError as error:
        msg = f"{option}: {error}"
        raise pytest.UsageError(msg) from None


def _depth(text: str) -> int:
    if text not in {"0", "1", "2", "3"}:
        msg = "must be how many faults at once, 0 to 3"
        raise ValueError(msg)
    return int(text)


def _percentage(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _ALL:
        msg = "must be a percentage, 0 to 100"
        raise ValueError(msg)
    return value
