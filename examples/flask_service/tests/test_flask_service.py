"""The service with Flask's own test client, in virtual time, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.flask_service.service import create_app
from pytest_tta.faults import first

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from pytest_tta import Harness

PARCEL = {"country": "PT", "grams": 800}


@pytest.fixture
def client(tta: Harness) -> FlaskClient:
    """A client of a fresh application, whose loop has virtual time."""
    assert tta.elapsed == 0
    return create_app().test_client()


def test_the_cheaper_offer_wins(tta: Harness, client: FlaskClient) -> None:
    """Both carriers are asked at the same time, and the answer is kept."""
    for _ in range(2):
        reply = client.post("/quotes", json=PARCEL)
        assert reply.get_json() == {"carrier": "post", "cents": 1200}
    assert tta.elapsed == 1.0


def test_the_price_list_stands_in(tta: Harness, client: FlaskClient) -> None:
    """When the post office hangs twice, after two seconds each."""
    tta.faults.at("post").hang()
    reply = client.post("/quotes", json={"country": "FR", "grams": 100})
    assert reply.get_json() == {"carrier": "post", "cents": 800}
    assert 4 <= tta.elapsed <= 5


def test_a_moment_of_trouble_is_not_seen(tta: Harness, client: FlaskClient) -> None:
    """One failure is retried."""
    tta.faults.at("post").fail(ConnectionError("reset"), when=first(1))
    reply = client.post("/quotes", json={"country": "ES", "grams": 100})
    assert reply.get_json() == {"carrier": "post", "cents": 500}


def test_a_batch_takes_as_long_as_one(tta: Harness, client: FlaskClient) -> None:
    """An async view works on all of them at the same time."""
    parcels = [{"country": "IT", "grams": grams} for grams in (100, 200, 9000)]
    reply = client.post("/quotes/batch", json=parcels)
    assert [each["carrier"] for each in reply.get_json()] == ["post", "post", "courier"]
    assert tta.elapsed == 1.0


def test_a_client_that_is_too_slow_gets_504(tta: Harness, client: FlaskClient) -> None:
    """The limit of the request ends what hangs, wherever it does."""
    tta.faults.at("courier").hang()
    headers = {"x-correlation-id": "order-7"}
    reply = client.post("/quotes", json={"country": "DE", "grams": 1}, headers=headers)
    assert (reply.status_code, tta.elapsed) == (504, 10.0)
    assert reply.get_json()["correlation_id"] == "order-7"


def test_nonsense_is_refused(client: FlaskClient) -> None:
    """Before anybody is asked."""
    assert client.post("/quotes", json={"grams": -1}).status_code == 400


def test_probes(client: FlaskClient) -> None:
    """What an orchestrator asks."""
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").get_json() == {"status": "ready"}
    assert "quote" in client.get("/health").get_json()["workflows"]
