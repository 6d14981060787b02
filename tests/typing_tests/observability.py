"""What checkers know of turning observability on."""

from __future__ import annotations

from typing import assert_type

from tta_primitives.observability import (
    Observability,
    Redactor,
    SpanCounts,
    initialize_observability,
)

observability = initialize_observability(
    "shop",
    prometheus_port=None,
    log_format="json",
    sample_ratio=0.5,
    resource_attributes={"deployment.environment": "test"},
    redact=Redactor(names=["iban"]),
)
assert_type(observability, Observability)
assert_type(observability.spans, SpanCounts)
assert_type(observability.prometheus_port, int | None)
assert_type(observability.flush(), bool)

initialize_observability("shop", log_format="xml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
initialize_observability("shop", sample_ratio="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
initialize_observability("shop", endpoint="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def lifespan() -> None:
    with observability as entered:
        assert_type(entered, Observability)
    await observability.aclose(timeout=1.0)
