"""What the tests of the network guard stand on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.wire.hosts import AllowedHosts, parse_rule

if TYPE_CHECKING:
    from pytest_tta.wire.guard import Guard


@pytest.fixture
def below(outermost_guard: Guard, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let what passes a guard reach nothing, and note where it wanted to."""
    everything = AllowedHosts([parse_rule("*")])
    monkeypatch.setattr(outermost_guard, "_allowed", everything)
    monkeypatch.setattr("pytest_tta.wire.guard._names", {})
    reached: list[Any] = []

    def connect(sock: socket.socket, address: Any) -> None:
        reached.append(address)
        raise ConnectionRefusedError("a double")

    def sendto(sock: socket.socket, *args: Any) -> int:
        reached.append(args[-1])
        return len(args[0])

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        reached.append(host)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("192.0.2.7", port or 0))]

    monkeypatch.setattr(socket.socket, "connect", connect, raising=False)
    monkeypatch.setattr(socket.socket, "connect_ex", connect, raising=False)
    monkeypatch.setattr(socket.socket, "sendto", sendto, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return reached
