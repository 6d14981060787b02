"""The tests' own RabbitMQ broker: restarted, killed and hung, and nobody else's."""

from __future__ import annotations

from uuid import uuid4

import pytest

pytest.importorskip("kombu")

from kombu import Connection

from tests.rabbitmq_server import require_rabbitmq_server
from tests.services import REQUIRE

MOMENT_SECONDS = 0.2


def _queue(connection, name):
    return connection.SimpleQueue(name, queue_opts={"durable": True})


@pytest.mark.long
def test_a_broker_is_restarted_on_its_port_with_its_messages(rabbitmq_server) -> None:
    """Durable queues outlive an orderly restart, and a kill."""
    name, port, pid = f"q-{uuid4().hex}", rabbitmq_server.port, rabbitmq_server.pid
    options = {"confirm_publish": True}
    with Connection(rabbitmq_server.url, transport_options=options) as connection:
        queue = _queue(connection, name)
        queue.put("first")
        queue.put("second")
        queue.close()
    rabbitmq_server.kill()
    rabbitmq_server.start()
    assert (rabbitmq_server.port, rabbitmq_server.pid != pid) == (port, True)
    with Connection(rabbitmq_server.url) as connection:
        queue = _queue(connection, name)
        messages = [queue.get(timeout=60) for _ in range(2)]
        assert [message.payload for message in messages] == ["first", "second"]
        for message in messages:
            message.ack()
        queue.close()


def test_a_hanging_broker_does_not_answer_and_goes_on_afterwards(
    rabbitmq_server, monkeypatch
) -> None:
    """SIGSTOP leaves connections open and unanswered until it is woken."""
    with monkeypatch.context() as patch:
        patch.setattr("tests.rabbitmq_server.ANSWER_SECONDS", MOMENT_SECONDS)
        rabbitmq_server.hang()
        with pytest.raises(TimeoutError, match="timed out"):
            rabbitmq_server._hello()
    rabbitmq_server.recover()
    assert b"RabbitMQ" in rabbitmq_server._hello()


def test_a_missing_broker_fails_where_services_are_required(monkeypatch) -> None:
    """Without the program a test is skipped with a reason, in CI it fails."""
    monkeypatch.setattr("tests.rabbitmq_server._PLAIN_PROGRAM", "/nowhere/at-all")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="rabbitmq-server is not installed"):
        require_rabbitmq_server()
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match=f"{REQUIRE}=1 asks for it"):
        require_rabbitmq_server()
