"""Refuse what a simulated loop does not have: connections, processes, signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["SimulationFence", "fenced", "refuse"]

_L = TypeVar("_L", bound="asyncio.BaseEventLoop")

_INSTEAD = (
    "give what the test talks to a double in this process, such as tta.wire, "
    "httpx.MockTransport, fakeredis or a class with `await op(...)`, or do not "
    "explore this test"
)

_COROUTINES: dict[str, str] = {
    "connect_accepted_socket": "a connection",
    "connect_read_pipe": "a pipe",
    "connect_write_pipe": "a pipe",
    "create_connection": "a connection",
    "create_datagram_endpoint": "a datagram socket",
    "create_server": "a server",
    "create_unix_connection": "a connection",
    "create_unix_server": "a server",
    "getaddrinfo": "the address of a host",
    "getnameinfo": "the name of a host",
    "sendfile": "a connection",
    "sock_accept": "a socket",
    "sock_connect": "a socket",
    "sock_recv": "a socket",
    "sock_recv_into": "a socket",
    "sock_recvfrom": "a socket",
    "sock_recvfrom_into": "a socket",
    "sock_sendall": "a socket",
    "sock_sendfile": "a socket",
    "sock_sendto": "a socket",
    "start_tls": "a connection",
    "subprocess_exec": "a process",
    "subprocess_shell": "a process",
}
_FUNCTIONS: dict[str, str] = {
    "add_reader": "a file descriptor",
    "add_signal_handler": "a signal",
    "add_writer": "a file descriptor",
    "remove_reader": "a file descriptor",
    "remove_signal_handler": "a signal",
    "remove_writer": "a file descriptor",
}


class SimulationFence(RuntimeError):
    """Report that a test that is explored wants something real."""


def refuse(what: str, instead: str = _INSTEAD) -> NoReturn:
    """Say that something real does not exist in a simulation.

    Args:
        what: A clause that says who wants what.
        instead: What to do.

    Raises:
        SimulationFence: Always.
    """
    msg = f"{what}, and nothing real exists while a test is explored; {instead}"
    raise SimulationFence(msg)


def _where(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Write where something should go to, as far as the arguments say so."""
    named = [options[name] for name in ("host", "path", "port") if options.get(name)]
    found = [str(each) for each in (*args, *named) if isinstance(each, str | int)]
    return f" ({':'.join(found[:2])})" if found else ""


def _refusing(name: str, noun: str) -> Callable[..., NoReturn]:
    def refusing(
        self: object,  # noqa: ARG001 - the loop
        *args: Any,  # noqa: ANN401 - whatever asyncio takes
        **options: Any,  # noqa: ANN401
    ) -> NoReturn:
        refuse(f"loop.{name}() wants {noun}{_where(args, options)}")

    return refusing


def _refusing_later(name: str, noun: str) -> Callable[..., Any]:
    refusing = _refusing(name, noun)

    async def refusing_later(
        self: object,
        *args: Any,  # noqa: ANN401 - whatever asyncio takes
        **options: Any,  # noqa: ANN401
    ) -> NoReturn:
        refusing(self, *args, **options)

    return refusing_later


def fenced(loop: type[_L]) -> type[_L]:
    """Let a class of loops refuse all that is real."""
    for name, noun in _COROUTINES.items():
        setattr(loop, name, _refusing_later(name, noun))
    for name, noun in _FUNCTIONS.items():
        setattr(loop, name, _refusing(name, noun))
    return loop
