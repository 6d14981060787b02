"""The table at the end of a session: what no test has noticed, and the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.mutation.ledger import Fate, Ledger
    from pytest_tta.mutation.operators import Mutant

__all__ = ["is_too_low", "score_line", "table"]


def table(ledger: Ledger, *, depth: int) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        ledger: What became of each mutant.
        depth: How many faults the sweep combined that finds equivalent mutants.
    """
    for workflow, rows in ledger.workflows():
        yield f"workflow {workflow}"
        shown = [_cells(mutant, fate) for mutant, fate in rows]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        for cells in shown:
            padded = (cell.ljust(w) for cell, w in zip(cells, widths, strict=True))
            yield f"  {'  '.join(padded)}".rstrip()
    for note in ledger.notes:
        yield f"note: {note}"
    yield score_line(ledger, depth=depth)


def _cells(mutant: Mutant, fate: Fate) -> tuple[str, ...]:
    how: str = fate.state
    if fate.killed_by:
        how = f"killed by {fate.killed_by.rpartition('::')[2]}: {fate.reason}"
    return (mutant.operator, mutant.path, mutant.what, how)


def score_line(ledger: Ledger, *, depth: int) -> str:
    """Return the score in one line.

    Args:
        ledger: What became of each mutant.
        depth: How many faults the sweep combined that finds equivalent mutants.
    """
    killed, survived = ledger.count("killed"), ledger.count("survived")
    equal = ledger.count("equivalent")
    left_out = f"; {equal} equivalent within {_faults(depth)} left out" if equal else ""
    again = f" ({ledger.executions} executions)"
    if ledger.score is None:
        return f"mutation score: no mutant that a test could notice{left_out}{again}"
    return (
        f"mutation score {ledger.score:.0f} %: {killed} killed, "
        f"{survived} survived{left_out}{again}"
    )


def _faults(depth: int) -> str:
    return "1 fault" if depth == 1 else f"{depth} faults"


def is_too_low(ledger: Ledger, least: float | None) -> bool:
    """Tell whether the score is below what was asked for.

    Args:
        ledger: What became of each mutant.
        least: The percentage that was asked for; None for none.
    """
    return least is not None and ledger.score is not None and ledger.score < least
