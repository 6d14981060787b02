"""The inline engine: conformance, and what only an engine in this process can show."""

from __future__ import annotations

import pytest

from tta_primitives.distributed import InlineEngine
from tta_primitives.distributed.conformance import ENGINE_CHECKS, check_registry


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
async def test_the_inline_engine_conforms(tta, tmp_path, check) -> None:
    """Whatever holds for a fleet holds in one process as well."""
    async with InlineEngine(check_registry()) as engine:
        await check(engine, tmp_path)
