"""Where Python programs leave the machine: by sockets, look-ups and event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Protocol

    class Gate(Protocol):
        """Who is asked before anything goes out; `Guard` says what each asks for."""

        is_on: bool

        def check(self, host: object, port: object = None) -> None:
            """Refuse to connect."""

        def check_lookup(self, host: object, port: object = None) -> None:
            """Refuse to ask for the addresses of a name."""

        def check_reverse(self, host: object) -> None:
            """Refuse to ask for the name of an address."""

        def check_address(self, sock: socket.socket, address: object) -> None:
            """Refuse an address of a socket."""

        def remember(self, host: object, addresses: list[str]) -> None:
            """Know the addresses of a name."""


__all__ = ["OF_OTHERS", "OF_PYTHON", "Exit", "Placed", "stands"]

Exit = Callable[["Gate", Callable[..., Any]], Callable[..., Any]]
"""Makes of a gate, and a function that goes out, the same function behind the gate."""

_ADDRESS_OF_SENDMSG = 3  # after buffers, ancillary data and flags
_FLAGS = 3  # of getaddrinfo, after the port: family, type, protocol


def _connects(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def connect(sock: socket.socket, address: Any) -> Any:  # noqa: ANN401 - as it is
        try:
            gate.check_address(sock, address)
        except BaseException:
            # Whoever made it closes it for an OSError, if at all, and it is of no use.
            sock.close()
            raise
        return below(sock, address)

    return connect


def _sends(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def sendto(sock: socket.socket, *args: Any) -> Any:  # noqa: ANN401 - as it is
        if args:
            gate.check_address(sock, args[-1])
        return below(sock, *args)

    return sendto


def _sends_message(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def sendmsg(sock: socket.socket, *args: Any) -> Any:  # noqa: ANN401 - as it is
        if len(args) > _ADDRESS_OF_SENDMSG:
            gate.check_address(sock, args[_ADDRESS_OF_SENDMSG])
        return below(sock, *args)

    return sendmsg


def _looks_up(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def getaddrinfo(
        host: Any,  # noqa: ANN401 - the signature of `socket`
        port: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if not _is_numeric(args, options):
            gate.check_lookup(host, port)
        found = below(host, port, *args, **options)
        gate.remember(host, [info[4][0] for info in found])
        return found

    return getaddrinfo


def _is_numeric(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Tell whether an address is only read: whoever asks so gets no look-up."""
    flags = options.get("flags", args[_FLAGS] if len(args) > _FLAGS else 0)
    return isinstance(flags, int) and bool(flags & socket.AI_NUMERICHOST)


def _looks_up_one(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def gethostbyname(hostname: Any) -> Any:  # noqa: ANN401 - as it is
        gate.check_lookup(hostname)
        found = below(hostname)
        gate.remember(hostname, [found] if isinstance(found, str) else found[2])
        return found

    return gethostbyname


def _looks_back(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def gethostbyaddr(ip_address: Any) -> Any:  # noqa: ANN401 - as it is
        gate.check_reverse(ip_address)
        return below(ip_address)

    return gethostbyaddr


def _names(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def getnameinfo(sockaddr: Any, flags: Any) -> Any:  # noqa: ANN401 - as it is
        if _asks_for_a_name(sockaddr, flags):
            gate.check_reverse(sockaddr[0])
        return below(sockaddr, flags)

    return getnameinfo


def _asks_for_a_name(sockaddr: object, flags: object) -> bool:
    is_address = isinstance(sockaddr, tuple) and len(sockaddr) > 0
    is_plain = isinstance(flags, int) and bool(flags & socket.NI_NUMERICHOST)
    return is_address and not is_plain


# The loops look names up in a thread, which knows neither the task that asks nor its
# context, and race addresses against each other, which turns any error into another.
# So the gate is asked before all that, in the caller's own frame.


def _loop_looks_up(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    async def found(loop: Any, host: Any, args: Any, options: Any) -> Any:  # noqa: ANN401
        infos = await below(loop, host, *args, **options)
        gate.remember(host, [info[4][0] for info in infos])
        return infos

    def getaddrinfo(loop: Any, host: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        if not _is_numeric((), options):
            gate.check_lookup(host, args[0] if args else options.get("port"))
        return found(loop, host, args, options)

    return getaddrinfo


def _loop_names(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def getnameinfo(loop: Any, sockaddr: Any, flags: Any = 0) -> Any:  # noqa: ANN401
        if _asks_for_a_name(sockaddr, flags):
            gate.check_reverse(sockaddr[0])
        return below(loop, sockaddr, flags)

    return getnameinfo


def _loop_connects(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def create_connection(
        loop: Any,  # noqa: ANN401 - the signature of asyncio
        protocol_factory: Any,  # noqa: ANN401
        host: Any = None,  # noqa: ANN401
        port: Any = None,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        gate.check(host, port)
        return below(loop, protocol_factory, host, port, **options)

    return create_connection


def _loop_sends(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def create_datagram_endpoint(
        loop: Any,  # noqa: ANN401 - the signature of asyncio
        protocol_factory: Any,  # noqa: ANN401
        local_addr: Any = None,  # noqa: ANN401
        remote_addr: Any = None,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if isinstance(remote_addr, tuple) and remote_addr:
            gate.check(*remote_addr[:2])
        return below(loop, protocol_factory, local_addr, remote_addr, **options)

    return create_datagram_endpoint


def _resolves(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def query(resolver: Any, host: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        gate.check_lookup(host)
        answer = below(resolver, host, *args, **options)
        if answer.done():
            _remember_answer(gate, host, answer)
        else:
            # The first of all callbacks: before whoever waits for it connects.
            answer.add_done_callback(partial(_remember_answer, gate, host))
        return answer

    return query


def _remember_answer(gate: Gate, host: object, answer: asyncio.Future[Any]) -> None:
    if answer.cancelled() or answer.exception() is not None:
        return
    found = answer.result()
    addresses = [node.addr[0] for node in getattr(found, "nodes", ())]
    addresses += getattr(found, "addresses", ())
    gate.remember(host, [_written(address) for address in addresses])


def _written(address: str | bytes) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address


def _resolves_back(gate: Gate, below: Callable[..., Any]) -> Callable[..., Any]:
    def gethostbyaddr(resolver: Any, name: Any) -> Any:  # noqa: ANN401 - as it is
        gate.check_reverse(name)
        return below(resolver, name)

    return gethostbyaddr


_OF_LOOPS: dict[str, Exit] = {
    "create_connection": _loop_connects,
    "create_datagram_endpoint": _loop_sends,
    "getaddrinfo": _loop_looks_up,
    "getnameinfo": _loop_names,
}
OF_PYTHON: tuple[tuple[object, dict[str, Exit]], ...] = (
    (
        socket.socket,
        {
            "connect": _connects,
            "connect_ex": _connects,
            "sendmsg": _sends_message,
            "sendto": _sends,
        },
    ),
    (
        socket,
        {
            "getaddrinfo": _looks_up,
            "gethostbyaddr": _looks_back,
            "gethostbyname": _looks_up_one,
            "gethostbyname_ex": _looks_up_one,
            "getnameinfo": _names,
        },
    ),
    (asyncio.BaseEventLoop, _OF_LOOPS),
)
"""Modules and classes of Python itself, and the functions by which these go out."""

# These ask the system without Python's sockets, and are imported when a client wants
# them: aiohttp takes aiodns for its look-ups wherever that is installed.
OF_OTHERS: dict[str, tuple[str, dict[str, Exit]]] = {
    "aiodns": (
        "DNSResolver",
        {
            "getaddrinfo": _resolves,
            "gethostbyaddr": _resolves_back,
            "gethostbyname": _resolves,
            "getnameinfo": _loop_names,
            "query": _resolves,
            "query_dns": _resolves,
        },
    ),
    "uvloop": ("Loop", _OF_LOOPS),
}
"""For each module the name of a class, and the methods by which that goes out."""


def stands(owner: object, name: str) -> bool:
    """Tell whether a gate that is on stands before a function already.

    Args:
        owner: The module or class whose function it is.
        name: The name of the function.
    """
    there = vars(owner).get(name)
    if type(there) is not FunctionType:
        return False
    gate, _ = there.__dict__.get("_tta", (None, None))
    return gate is not None and gate.is_on


class Placed:
    """A gate that was put before a function, and can be taken away again.

    Args:
        gate: Who is asked.
        owner: The module or class whose function it is.
        name: The name of the function.
        exit_: Makes the function behind the gate.
    """

    def __init__(self, gate: Gate, owner: object, name: str, exit_: Exit) -> None:
        self._owner = owner
        self._name = name
        _clear(owner, name)
        below = getattr(owner, name, None)
        there = vars(owner).get(name)
        # What cannot be bound is a double that a test has put in the method's place.
        is_double = isinstance(owner, type) and not hasattr(below, "__get__")
        if below is None or is_double:
            return
        own = exit_(gate, below)
        own.__name__, own.__qualname__ = name, getattr(below, "__qualname__", name)
        own.__doc__ = below.__doc__
        own.__dict__.update(__wrapped__=below, _tta=(gate, there))
        setattr(owner, name, own)

    def remove(self) -> None:
        """Take the gate away, unless somebody else's patch stands before it."""
        _clear(self._owner, self._name)


def _clear(owner: object, name: str) -> None:
    """Take away gates that are off, as many as stand before the others."""
    while True:
        there = vars(owner).get(name)
        # Doubles have any attribute that they are asked for, but hold none.
        gate, below = getattr(there, "__dict__", {}).get("_tta", (None, None))
        if gate is None or gate.is_on:
            return
        if below is None:
            delattr(owner, name)
        else:
            setattr(owner, name, below)
