"""The command: `python -m examples.observed_service`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import httpx

from examples.observed_service.collector import Collector
from examples.observed_service.shop import Order, UnknownArticleError, build_workflow
from examples.observed_service.warehouse import Warehouse
from tta_primitives import WorkflowContext
from tta_primitives.observability import initialize_observability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tta_primitives.observability import Observability

ORDERS = [
    Order("lamp", 2, "Ann"),
    Order("lamp", 2, "Bob"),
    Order("sofa", 1, "Eve"),
]
# What is shown of a scrape: the rest is buckets.
_SHOWN = ("tta_primitive_duration_seconds_count", "tta_retries_total", "tta_cache_req")


def main(arguments: Sequence[str] | None = None) -> int:
    """Take some orders; show what can be seen of them. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.observed_service", description=__doc__
    )
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help="send spans there, for instance to Jaeger at http://localhost:4318, "
        "instead of printing them",
    )
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        collector = None
        if options.otlp_endpoint is None:
            collector = stack.enter_context(Collector())
        observability = stack.enter_context(
            initialize_observability(
                "observed-shop",
                prometheus_port=0,
                otlp_endpoint=collector.url if collector else options.otlp_endpoint,
                log_format="json",
                log_level=logging.INFO,
            )
        )
        asyncio.run(take_orders())
        show(observability, collector)
    return 0


async def take_orders() -> None:
    """Run the workflow once for each order, as a server does for its requests."""
    transport = httpx.ASGITransport(app=Warehouse(busy=1))
    async with httpx.AsyncClient(transport=transport, base_url="http://w") as warehouse:
        workflow = build_workflow(warehouse)
        for number, order in enumerate(ORDERS, 1):
            context = WorkflowContext(f"order-{number}", "order")
            # Who ordered what there is not is told by log and trace.
            with suppress(UnknownArticleError):
                await workflow.execute(order, context)


def show(observability: Observability, collector: Collector | None) -> None:
    """Print the traces and what Prometheus gets."""
    if not observability.flush(10.0):
        print("the collector does not answer", file=sys.stderr)
    if collector is not None:
        print("\n# Traces")
        for line in collector.lines():
            print(line)
    url = f"http://127.0.0.1:{observability.prometheus_port}/metrics"
    print(f"\n# Metrics, a part of {url}")
    for line in httpx.get(url).text.splitlines():
        if line.startswith(_SHOWN):
            print(line)


if __name__ == "__main__":
    sys.exit(main())
