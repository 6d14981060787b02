"""The catalogue of LLM faults as the tests go through it."""

from __future__ import annotations

import inspect

from pytest_tta.faults import LLM_FAULTS

__all__ = ["EVERY", "any_of"]


def any_of(maker):
    """Return a fault of the catalogue, whatever it needs."""
    needed = [
        name
        for name, one in inspect.signature(maker).parameters.items()
        if one.default is one.empty
    ]
    return maker(**dict.fromkeys(needed, 60))


EVERY = [any_of(maker) for maker in LLM_FAULTS.values()]
