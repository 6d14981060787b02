"""What a harness returns: the type of the workflow that it runs."""

from __future__ import annotations

from typing import assert_type

from pytest_tta import Harness
from tta_primitives import step


@step
async def length(text: str) -> int:
    return len(text)


def plain(text: str) -> bytes:
    return text.encode()


async def coroutine(text: str) -> float:
    return float(text)


with Harness(seed=1) as tta:
    assert_type(tta, Harness)
    assert_type(tta.run(length, "x"), int)
    assert_type(tta.run(length >> str, "x"), str)
    assert_type(tta.run(plain, "x"), bytes)
    assert_type(tta.run(coroutine, "1"), float)
    tta.run(length, 1)  # type: ignore[arg-type]  # pyright: ignore
