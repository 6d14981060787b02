"""What is seen of an order: in a test's trace, by a collector, by Prometheus."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from examples.observed_service.__main__ import main
from examples.observed_service.shop import (
    Order,
    Receipt,
    UnknownArticleError,
    build_workflow,
)
from examples.observed_service.warehouse import Warehouse
from pytest_tta import S
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from pytest_tta import Harness

LAMPS = Order("lamp", 2, "Ann")


def client(warehouse: Warehouse) -> httpx.AsyncClient:
    """Return a client of a warehouse in this process."""
    transport = httpx.ASGITransport(app=warehouse)
    return httpx.AsyncClient(transport=transport, base_url="http://warehouse")


async def test_order_is_priced_while_its_goods_are_kept(tta: Harness) -> None:
    """The query of the code is in the trace, and so is the other service's run."""
    async with client(Warehouse()) as http:
        receipt = await build_workflow(http).execute(LAMPS, WorkflowContext())
    assert receipt == Receipt(7800, "shelf 4")
    order, there = tta.trace.roots
    assert order == S(
        "order",
        S("check"),
        S(
            "parallel",
            S("prices", S("price", S("SELECT prices"))),
            S("retry", S("timeout", S("reserve"))),
        ),
        S("sell"),
    )
    assert there == S("find_shelf", duration=0.01)


async def test_price_is_asked_for_once(tta: Harness) -> None:
    """The second order of the same goods finds it in the cache."""
    async with client(Warehouse()) as http:
        workflow = build_workflow(http)
        for _ in range(2):
            await workflow.execute(LAMPS, WorkflowContext())
    assert len(tta.trace.spans_at("SELECT prices")) == 1


async def test_busy_warehouse_is_asked_again(tta: Harness) -> None:
    """The first attempt fails, the order does not."""
    async with client(Warehouse(busy=1)) as http:
        await build_workflow(http).execute(LAMPS, WorkflowContext())
    retry = tta.trace.find("retry")
    assert retry.attempts == 2
    assert [span.status for span in retry.children] == ["failed", "ok"]


async def test_unknown_article_is_refused_before_anything_is_kept(
    tta: Harness,
) -> None:
    """The error says which one."""
    async with client(Warehouse()) as http:
        with pytest.raises(UnknownArticleError, match="there is no article 'sofa'"):
            await build_workflow(http).execute(
                Order("sofa", 1, "Eve"), WorkflowContext()
            )
    assert tta.trace == S("order", S("check", status="failed"))


async def test_warehouse_is_told_whose_order_it_is() -> None:
    """Its run has the correlation id of the shop's."""
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"shelf": "A"})

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://w") as http:
        await build_workflow(http).execute(LAMPS, WorkflowContext("order-7"))
    assert seen[0].headers["x-correlation-id"] == "order-7"


def test_command_shows_traces_metrics_and_logs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of them without any server but those of the process itself."""
    assert main([]) == 0
    shown, logged = capsys.readouterr()
    lines = [line.split(" tta.")[0].rstrip() for line in shown.splitlines()]
    names = [line.rpartition(" ms")[0].rpartition(" ")[0] for line in lines]
    below = names.index("        reserve", names.index("        reserve") + 1)
    assert names[below + 1] == "          find_shelf"
    assert "        SELECT prices" in names
    assert "order-3" in shown
    assert 'tta_retries_total{path="order/parallel/retry"} 1.0' in shown
    sold = [json.loads(line) for line in logged.splitlines() if '"sold"' in line]
    assert [line["correlation_id"] for line in sold] == ["order-1", "order-2"]
    assert all(line["trace_id"] for line in sold)
    assert sold[0]["path"] == "order/sell"
