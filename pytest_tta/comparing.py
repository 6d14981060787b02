"""What the two sides of a comparison are, in a lambda that has returned false."""

from __future__ import annotations

import ast
import linecache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FunctionType

__all__ = ["sides_of"]

_LONGEST = 200


def sides_of(check: Callable[[], object]) -> str:
    """Return what a lambda has compared, such as `len(bank.charges) is 2`.

    Its operands are evaluated once more, so nothing is told of any other function.

    Args:
        check: A function without arguments.

    Returns:
        The operands that are no constants, with their values; empty if it is no lambda
        that compares, or its source is not there.
    """
    code: CodeType | None = getattr(check, "__code__", None)
    if code is None or code.co_name != "<lambda>":
        return ""
    try:
        compared = _comparison(code)
        if compared is None:
            return ""
        function: FunctionType = check  # type: ignore[assignment]  # it has code
        return " and ".join(_told(compared, function))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - also what pytest.fail raises in an operand
        return ""


def _comparison(code: CodeType) -> ast.Compare | None:
    """Return the body of the only lambda of a line, if it compares."""
    lines = linecache.getlines(code.co_filename)
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Lambda) and _stands_at(node, code):
            return node.body if isinstance(node.body, ast.Compare) else None
    return None


def _stands_at(node: ast.Lambda, code: CodeType) -> bool:
    """Tell whether the code is that of a lambda: all of it is inside its body."""
    body = node.body
    begin = body.lineno, body.col_offset
    end = body.end_lineno or body.lineno, body.end_col_offset or 0
    spans = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and column is not None and end_column
    ]
    extent = (min(spans)[0], max(last for _, last in spans)) if spans else None
    return extent == (begin, end)


def _told(compared: ast.Compare, check: FunctionType) -> Iterator[str]:
    cells = zip(check.__code__.co_freevars, check.__closure__ or (), strict=True)
    held = {name: cell.cell_contents for name, cell in cells}
    # As globals, since comprehensions see no locals of who evaluates them.
    names = {**check.__globals__, **held}
    for side in (compared.left, *compared.comparators):
        if not _is_literal(side):
            code = compile(ast.Expression(side), "<check>", "eval")
            value = repr(eval(code, names))  # noqa: S307 - the test's own code
            yield f"{ast.unparse(side)} is {_cut(value)}"


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
