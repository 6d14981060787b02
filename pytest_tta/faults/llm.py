"""The catalogue of what goes wrong with language models, at all heights.

Each name is a function that returns one fault. At a primitive it acts like any other
fault (`tta.faults.at("llm").inject(rate_limit(after=30))`); under a vendor's SDK it is
bytes on the wire (`tta.wire.openai.fails(rate_limit(after=30))`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.faults import (
    llm_bodies,
    llm_connection,
    llm_content,
    llm_status,
    llm_streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_tta.faults.llm_base import LLMFault

__all__ = ["LLM_FAULTS"]

_MODULES = (llm_status, llm_connection, llm_bodies, llm_content, llm_streams)

LLM_FAULTS: Mapping[str, Callable[..., LLMFault]] = {
    name: getattr(module, name)
    for module in _MODULES
    for name in module.__all__
    if name.islower()
}
"""The functions of the catalogue, by their names."""
