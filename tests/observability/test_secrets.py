"""One run with secrets everywhere: they are in no span, no metric and no log line."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from tta_primitives import WorkflowContext, step
from tta_primitives.door import emit
from tta_primitives.errors import FallbackExhaustedError
from tta_primitives.observability import initialize_observability, metrics_wsgi_app
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

if TYPE_CHECKING:
    from tests.otlp_receiver import Receiver

KEY = "sk-planted-0123456789abcdef"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJl"
BASIC = base64.b64encode(b"planted:opaque-word").decode()
PLANTED = [KEY, JWT, BASIC, "opaque-word", "hunter2", "swordfish"]
log = logging.getLogger("shop")


@step
async def leaks(request: dict[str, Any], context: WorkflowContext) -> None:
    """Say every secret in every way that an app has."""
    log.info("request %s", request)
    log.warning("connecting to postgres://me:hunter2@db/x")
    log.error("sent", extra={"headers": request["headers"], "password": "swordfish"})
    emit(context, "route.taken", route=JWT)
    emit(context, "cache.error", error=ConnectionError(f"password=swordfish {KEY}"))
    msg = f"401 for Authorization: Basic {BASIC} of https://me:hunter2@host/"
    raise ConnectionError(msg)


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_planted_secrets_come_out_nowhere(
    receiver: Receiver, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in what a collector gets, what is scraped, or what is written."""
    request = {
        "text": f"my key is {KEY}",
        "headers": {"Authorization": f"Bearer {JWT}", "Cookie": "id=swordfish"},
        "password": "opaque-word",
        "url": "redis://:hunter2@cache:6379/0",
    }
    headers = {"x-correlation-id": f"token={JWT}", "baggage": f"api_key={KEY}"}
    context = WorkflowContext.from_headers(headers)
    context.session_id, context.tags["api_key"] = f"token={KEY}", "swordfish"
    retry = RetryPrimitive(leaks, max_retries=1, initial_delay=0)
    workflow = CachePrimitive(FallbackPrimitive(retry, [leaks]), ttl=9)
    with initialize_observability(
        "shop",
        prometheus_port=None,
        prometheus_registry=CollectorRegistry(),
        otlp_endpoint=receiver.url,
        capture_content=True,
        log_format=log_format,
        log_level=logging.INFO,
    ):
        with pytest.raises(FallbackExhaustedError, match="all fallbacks failed"):
            await workflow.execute(request, context)
        scraped = b"".join(metrics_wsgi_app()({}, lambda *_: None)).decode()
    await asyncio.to_thread(receiver.wait_until, lambda one: len(one.spans) >= 6)
    spans = " ".join(span.text for span in receiver.spans)
    written = capsys.readouterr().err
    assert "tta_retries_total" in scraped
    assert "401 for Authorization" in written
    assert "401 for Authorization" in spans
    told = {"spans": spans, "metrics": scraped, "logs": written}
    assert {
        (name, secret)
        for name, text in told.items()
        for secret in PLANTED
        if secret in text
    } == set()
