"""Each subscriber gets one letter, whatever is lost, doubled or dies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from examples.fleet_map.__main__ import main, subscribers
from examples.fleet_map.fleet import Outbox, make_engine
from examples.fleet_map.newsletter import build_newsletter, letter
from pytest_tta.faults import first
from pytest_tta.fleet import SimulatedFleet
from tta_primitives import WorkflowContext
from tta_primitives.distributed import Registry

if TYPE_CHECKING:
    from pytest_tta import Harness


@pytest.fixture
def outbox() -> Outbox:
    """Where the letters are kept."""
    return Outbox()


@pytest.fixture
def registry(outbox: Outbox) -> Registry:
    """What workers have."""
    return Registry(letter, deps={"mail": outbox})


def addresses(outbox: Outbox) -> list[str]:
    """Return who got a letter, once for each letter."""
    return sorted(one["to"] for one in outbox.sent.values())


@pytest.mark.usefixtures("tta")
async def test_everybody_gets_a_letter(outbox: Outbox, registry: Registry) -> None:
    """On the broker in memory, as the command runs it."""
    async with make_engine({}, registry) as engine:
        newsletter = build_newsletter(engine)
        told = await newsletter.execute(subscribers(120), WorkflowContext())
    assert told == {"sent": 120, "last": "reader-119@example.org"}
    assert len(addresses(outbox)) == 120
    assert outbox.asked == 120


@pytest.mark.usefixtures("tta")
async def test_nobody_gets_two_on_a_bad_network(
    outbox: Outbox, registry: Registry
) -> None:
    """Deliveries are lost and doubled, workers die: letters are asked for again."""
    fleet = SimulatedFleet(
        registry, seed=7, drop=0.1, duplicate=0.2, crash=0.1, delay=(0, 2)
    )
    async with fleet as engine:
        newsletter = build_newsletter(engine)
        told = await newsletter.execute(subscribers(60), WorkflowContext())
        await fleet.settle()
    assert told["sent"] == 60
    assert addresses(outbox) == sorted(s["address"] for s in subscribers(60))
    assert outbox.asked > 60


async def test_a_worker_that_dies_after_sending(
    tta: Harness, outbox: Outbox, registry: Registry
) -> None:
    """The letter is gone, the worker told nobody: the next one asks with its key."""
    fleet = tta.fleet.serve(registry).crash_at("letter", "after")
    told = await build_newsletter(fleet).execute(subscribers(1), WorkflowContext())
    assert told["sent"] == 1
    assert (outbox.asked, len(outbox.sent)) == (2, 1)
    assert tta.elapsed == 30


async def test_a_mail_server_that_is_away(
    tta: Harness, outbox: Outbox, registry: Registry
) -> None:
    """An error on the worker is retried by the caller, with the same key."""
    tta.faults.at("letter/send").lost_ack(ConnectionError("away"), when=first(1))
    fleet = tta.fleet.serve(registry)
    told = await build_newsletter(fleet).execute(subscribers(1), WorkflowContext())
    assert told["sent"] == 1
    assert (outbox.asked, len(outbox.sent)) == (2, 1)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no server."""
    assert main(["12"]) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 12
