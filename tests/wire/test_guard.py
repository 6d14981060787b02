"""The guard refuses whatever would leave the machine, wherever it is asked for."""

from __future__ import annotations

import asyncio
import gc
import importlib
import re
import socket
import ssl
import sys
import threading
import types
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest
import redis
import redis.asyncio
import respx
import trio
import uvloop

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.wire import guard as wire_guard
from pytest_tta.wire.exits import OF_OTHERS, OF_PYTHON, stands
from pytest_tta.wire.guard import Guard, NetworkBlocked, asking_for, standing
from pytest_tta.wire.hosts import AllowedHosts, parse_rule
from tests.garbage import only_new_garbage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

# Neither can be reached if the guard should fail: RFC 2606 and RFC 5737.
NAME = "api.example"
ADDRESS = "192.0.2.1"
HOSTS = [NAME, ADDRESS, "2001:db8::1"]
CHAT = [{"role": "user", "content": "secret words"}]

RUNNERS: dict[str, Callable[[Any], Any]] = {
    "asyncio": asyncio.run,
    "virtual": lambda main: VirtualClock().run(main),
    "uvloop": uvloop.run,
}
every_loop = pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)
every_host = pytest.mark.parametrize("host", HOSTS)


def refused(host: str, port: int | None = None) -> str:
    """Return the pattern of a refusal's first line."""
    shown = f"[{host}]" if port is not None and ":" in host else host
    where = shown if port is None else f"{shown}:{port}"
    return f"^{re.escape(where)} is not on this machine, and nothing is mocked there"


def allowing(*hosts: str) -> Guard:
    """Return a guard that lets some hosts through."""
    return Guard(AllowedHosts([parse_rule(host) for host in hosts]))


@pytest.fixture
def guard() -> Iterator[Guard]:
    """Stand guard for one test."""
    with Guard() as entered:
        yield entered


@contextmanager
def server() -> Iterator[int]:
    """Listen on the loopback, and take what comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


# --- Python's sockets ----------------------------------------------------------------


@every_host
def test_connections_are_refused_by_name(guard: Guard, host: str) -> None:
    """`create_connection` is below nearly every synchronous client."""
    with pytest.raises(NetworkBlocked, match=refused(host, 443)):
        socket.create_connection((host, 443), timeout=1)


@pytest.mark.parametrize("how", ["connect", "connect_ex"])
@pytest.mark.parametrize("host", [NAME, ADDRESS, b"192.0.2.1", bytearray(b"192.0.2.1")])
def test_bare_sockets_are_refused(guard: Guard, how: str, host: Any) -> None:
    """`connect_ex` tells other errors by a number, and does not tell this one so."""
    said = refused(host if isinstance(host, str) else host.decode(), 443)
    with socket.socket() as sock, pytest.raises(NetworkBlocked, match=said):
        getattr(sock, how)((host, 443))


def test_ipv6_sockets_are_refused(guard: Guard) -> None:
    """Their addresses have four parts."""
    with (
        socket.socket(socket.AF_INET6) as sock,
        pytest.raises(NetworkBlocked, match=refused("2001:db8::1", 443)),
    ):
        sock.connect(("2001:db8::1", 443, 0, 0))


def test_datagrams_are_refused(guard: Guard) -> None:
    """A datagram leaves without a connection."""
    said = refused(ADDRESS, 9)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(NetworkBlocked, match=said):
            sock.sendto(b"x", (ADDRESS, 9))
        with pytest.raises(NetworkBlocked, match=said):
            sock.sendto(b"x", 0, (ADDRESS, 9))
        with pytest.raises(NetworkBlocked, match=said):
            sock.sendmsg([b"x"], [], 0, (ADDRESS, 9))


def test_tls_sockets_are_refused(guard: Guard) -> None:
    """The sockets of `ssl` connect by those of `socket`."""
    context = ssl.create_default_context()
    with (
        context.wrap_socket(socket.socket(), server_hostname=NAME) as sock,
        pytest.raises(NetworkBlocked, match=refused(ADDRESS, 443)),
    ):
        sock.connect((ADDRESS, 443))


@pytest.mark.parametrize(
    "look",
    [
        lambda: socket.getaddrinfo(NAME, 443),
        lambda: socket.getaddrinfo(host=NAME, port=443),
        lambda: socket.getaddrinfo(NAME.encode(), "https", type=socket.SOCK_STREAM),
        lambda: socket.gethostbyname(NAME),
        lambda: socket.gethostbyname_ex(NAME),
        lambda: socket.gethostbyaddr(NAME),
        lambda: socket.getfqdn(NAME),
        lambda: asyncio.run(_loop_looks_up()),
    ],
    ids=range(8),
)
def test_look_ups_are_refused(guard: Guard, look: Callable[[], object]) -> None:
    """Asking for a name's addresses is a message to a server, too."""
    with pytest.raises(NetworkBlocked, match=rf"^{NAME}(:\w+)? is not on this machine"):
        look()


async def _loop_looks_up() -> None:
    await asyncio.get_running_loop().getaddrinfo(NAME, 443)


def test_look_ups_of_an_address_are_refused(guard: Guard) -> None:
    """Who has an address and wants its name asks a server as well."""
    with pytest.raises(NetworkBlocked, match=refused(ADDRESS)):
        socket.gethostbyaddr(ADDRESS)
    with pytest.raises(NetworkBlocked, match=refused(ADDRESS)):
        socket.getnameinfo((ADDRESS, 443), 0)

    async def names() -> None:
        await asyncio.get_running_loop().getnameinfo((ADDRESS, 443))

    with pytest.raises(NetworkBlocked, match=refused(ADDRESS)):
        asyncio.run(names())


def test_what_asks_nobody_is_free(guard: Guard) -> None:
    """Reading an address is no look-up, and neither is a machine's own name."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert socket.getaddrinfo(ADDRESS, 443)
    assert socket.getnameinfo((ADDRESS, 443), numeric) == (ADDRESS, "443")
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        socket.getaddrinfo(NAME, 0, flags=socket.AI_NUMERICHOST)
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        socket.getaddrinfo(NAME, 0, 0, 0, 0, socket.AI_NUMERICHOST)
    assert socket.getaddrinfo(None, 443)
    assert socket.getfqdn()
    guard.check_lookup(socket.gethostname())
    assert guard.blocked == []


def test_the_loopback_is_free(guard: Guard) -> None:
    """Servers of tests listen there."""
    with server() as port:
        for host in ("127.0.0.1", "localhost", "127.1", "", "0.0.0.0"):
            with socket.socket() as sock:
                sock.connect((host, port))
            with socket.socket() as sock:
                assert sock.connect_ex((host, port)) == 0
        socket.create_connection(("localhost", port)).close()
        with socket.socket() as sock:
            sock.connect((bytearray(b"127.0.0.1"), port))
    assert guard.blocked == []


def test_what_is_no_network_is_free(guard: Guard, tmp_path: Any) -> None:
    """Unix sockets, pairs and datagrams to the loopback stay on the machine."""
    path = str(tmp_path / "s")
    with (
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        listening.bind(path)
        listening.listen()
        sock.connect(path)
    one, other = socket.socketpair()
    with one, other:
        assert one.send(b"x") == 1
        assert one.sendmsg([b"x"]) == 1
    with socket.socket(type=socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            assert sender.sendto(b"x", receiver.getsockname()) == 1
            assert sender.sendmsg([b"x"], [], 0, receiver.getsockname()) == 1
    assert guard.blocked == []


@pytest.mark.parametrize("address", [(), 5, None, [ADDRESS, 1], (None, 1), (ADDRESS,)])
def test_what_is_no_address_is_pythons_to_refuse(address: object) -> None:
    """A wrong type is told as ever, unless it names a host outside."""
    with (
        socket.socket() as sock,
        Guard(),
        pytest.raises((TypeError, NetworkBlocked), match=r"\w") as caught,
    ):
        sock.connect(address)
    expected = NetworkBlocked if address == (ADDRESS,) else TypeError
    assert type(caught.value) is expected


def test_wrong_calls_are_pythons_to_refuse(guard: Guard) -> None:
    """The signatures stay those of `socket`."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(TypeError, match="sendto"):
            sock.sendto()
        with pytest.raises(TypeError, match="connect"):
            sock.connect()
    with pytest.raises(TypeError, match="getaddrinfo"):
        socket.getaddrinfo(NAME)


# --- event loops ---------------------------------------------------------------------


async def _opens(host: str) -> None:
    await asyncio.open_connection(host, 443)


async def _opens_the_first(host: str) -> None:
    await asyncio.open_connection(host, 443, happy_eyeballs_delay=0.01)


async def _connects_by_name(host: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(asyncio.Protocol, host=host, port=443, ssl=True)


async def _connects_a_socket(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, 443))


async def _opens_datagrams(host: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(host, 443)
    )


WAYS = [
    _opens,
    _opens_the_first,
    _connects_by_name,
    _connects_a_socket,
    _opens_datagrams,
]


@every_loop
@every_host
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_loops_refuse(
    guard: Guard,
    run: Callable[[Any], object],
    host: str,
    way: Callable[[str], Awaitable[None]],
) -> None:
    """Asyncio's loop, the virtual one and uvloop's refuse, also while they race."""
    with pytest.raises(NetworkBlocked, match=refused(host, 443)):
        run(way(host))
    assert len(guard.blocked) == 1


@every_loop
def test_loops_reach_the_loopback(guard: Guard, run: Callable[[Any], str]) -> None:
    """A server and its client in one loop see nothing of the guard."""

    async def main() -> bytes:
        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(answer, "localhost", 0) as serving:
            port = serving.sockets[0].getsockname()[1]
            host = serving.sockets[0].getsockname()[0]
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\n")
            said = await reader.readline()
            writer.close()
            return said

    assert run(main()) == b"hello\n"
    assert guard.blocked == []


def test_datagrams_of_an_open_endpoint_are_refused(guard: Guard) -> None:
    """The transport hands the error to nobody; the guard has kept it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        transport.sendto(b"x", (ADDRESS, 9))
        transport.close()

    asyncio.run(main())
    assert [re.search(refused(ADDRESS, 9), text) for text in guard.blocked] != [None]
    assert len(guard.blocked) == 1


def test_uvloop_is_covered_when_it_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may import it when the guard stands already."""
    with Guard() as guard:
        monkeypatch.delitem(sys.modules, "uvloop")
        late = importlib.import_module("uvloop")
        with pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
            late.run(_opens(NAME))
    assert len(guard.blocked) == 1


def test_anyio_refuses_on_each_backend(guard: Guard) -> None:
    """What httpx's async clients connect with, on asyncio and on trio."""

    async def main() -> None:
        await anyio.connect_tcp(NAME, 443)

    for backend in ("asyncio", "trio"):
        with pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
            anyio.run(main, backend=backend)


def test_trio_refuses(guard: Guard) -> None:
    """Trio has sockets of its own, around those of Python."""

    async def main() -> None:
        sock = trio.socket.socket()
        try:
            await sock.connect((ADDRESS, 443))
        finally:
            sock.close()

    with pytest.raises(NetworkBlocked, match=refused(ADDRESS, 443)):
        trio.run(main)


def test_threads_are_refused(guard: Guard) -> None:
    """The guard stands in the way of every thread."""
    caught: list[BaseException] = []

    def work() -> None:
        try:
            socket.create_connection((NAME, 443))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in caught] == [NetworkBlocked]
    with pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
        asyncio.run(asyncio.to_thread(socket.create_connection, (NAME, 443)))


def test_aiodns_is_refused_and_its_answers_are_known(
    monkeypatch: pytest.MonkeyPatch, below: list[Any]
) -> None:
    """What aiohttp looks names up with asks the network without Python's sockets."""

    class DNSResolver:
        def getaddrinfo(self, host: str, family: int = 0) -> asyncio.Future[Any]:
            future = asyncio.get_running_loop().create_future()
            node = types.SimpleNamespace(addr=(b"192.0.2.8", 443))
            answer = types.SimpleNamespace(nodes=[node])
            if family:
                future.set_result(answer)
            else:
                asyncio.get_running_loop().call_soon(future.set_result, answer)
            return future

        def query(self, host: str, qtype: str) -> asyncio.Future[Any]:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(LookupError(host))
            return future

        def gethostbyaddr(self, name: str) -> None:
            """Ask for a name."""

    module = types.ModuleType("aiodns")
    module.DNSResolver = DNSResolver
    monkeypatch.setitem(sys.modules, "aiodns", module)

    async def main(family: int) -> None:
        resolver = DNSResolver()
        with pytest.raises(NetworkBlocked, match=refused("other.example")):
            resolver.getaddrinfo("other.example")
        with pytest.raises(NetworkBlocked, match=refused(ADDRESS)):
            resolver.gethostbyaddr(ADDRESS)
        failing = resolver.query(NAME, "A")
        with pytest.raises(LookupError, match=NAME):
            await failing
        await resolver.getaddrinfo(NAME, family=family)
        with (
            socket.socket() as sock,
            pytest.raises(ConnectionRefusedError, match="a double"),
        ):
            sock.connect(("192.0.2.8", 443))

    for family in (0, 4):
        monkeypatch.setattr("pytest_tta.wire.guard._names", {})
        with allowing(NAME):
            asyncio.run(main(family))
    assert below == [("192.0.2.8", 443)] * 2


# --- what is allowed -----------------------------------------------------------------


def test_an_allowed_name_may_be_looked_up_and_connected_to(below: list[Any]) -> None:
    """Clients connect to the addresses that a look-up has given them."""
    with allowing(f"{NAME}:443") as guard:
        with pytest.raises(ConnectionRefusedError, match="a double"):
            socket.create_connection((NAME, 443))
        assert below == [NAME, ("192.0.2.7", 443)]
        with pytest.raises(NetworkBlocked, match=refused(NAME, 80)):
            socket.create_connection((NAME, 80))
        with pytest.raises(NetworkBlocked, match=refused("other.example", 443)):
            socket.create_connection(("other.example", 443))
    assert below == [NAME, ("192.0.2.7", 443), NAME]
    assert len(guard.blocked) == 2


def test_an_address_stays_known_to_the_next_guard(below: list[Any]) -> None:
    """Clients that outlive a test keep the addresses that they have found."""
    with allowing(NAME):
        socket.getaddrinfo(NAME, 443)
    with (
        allowing(NAME),
        socket.socket() as sock,
        pytest.raises(ConnectionRefusedError, match="a double"),
    ):
        sock.connect(("192.0.2.7", 443))
    with (
        Guard(),
        socket.socket() as sock,
        pytest.raises(NetworkBlocked, match=refused(NAME, 443)),
    ):
        sock.connect(("192.0.2.7", 443))


@pytest.mark.parametrize("run", [asyncio.run, RUNNERS["virtual"]])
def test_loops_reach_what_is_allowed(below: list[Any], run: Callable[..., Any]) -> None:
    """They look it up in a thread, and connect to what they found."""
    with allowing(NAME) as guard, pytest.raises(ConnectionRefusedError, match="double"):
        run(_opens(NAME))
    assert below == [NAME, ("192.0.2.7", 443)]
    assert guard.blocked == []


def test_networks_may_be_sent_to(below: list[Any]) -> None:
    """Datagrams are allowed as connections are."""
    with allowing("192.0.2.0/24:9"), socket.socket(type=socket.SOCK_DGRAM) as sock:
        assert sock.sendto(b"x", (ADDRESS, 9)) == 1
        with pytest.raises(NetworkBlocked, match=refused(ADDRESS, 10)):
            sock.sendto(b"x", (ADDRESS, 10))
    assert below == [(ADDRESS, 9)]


def test_its_own_name_is_this_machine(
    below: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that tell each other the name of their machine stay on it."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Own-Name")
    with Guard() as guard, pytest.raises(ConnectionRefusedError, match="a double"):
        socket.create_connection(("own-name", 443))
    assert below == ["own-name", ("192.0.2.7", 443)]
    assert guard.blocked == []


def test_guards_inside_each_other_have_to_agree(below: list[Any]) -> None:
    """The innermost is asked first."""
    with allowing(NAME) as outer, allowing(NAME, "other.example") as inner:
        assert socket.getaddrinfo(NAME, 443)
        with pytest.raises(NetworkBlocked, match=refused("other.example", 443)):
            socket.getaddrinfo("other.example", 443)
        with pytest.raises(NetworkBlocked, match=refused("third.example", 443)):
            socket.getaddrinfo("third.example", 443)
    assert [text.split(":")[0] for text in outer.blocked] == ["other.example"]
    assert [text.split(":")[0] for text in inner.blocked] == ["third.example"]


# --- what it says --------------------------------------------------------------------


def test_the_message_says_who_asked_and_what_to_do(guard: Guard) -> None:
    """Host, port, line and the ways out; the same once more is the same problem."""
    texts = []
    for _ in range(2):
        with pytest.raises(NetworkBlocked, match=NAME) as caught:
            socket.create_connection((NAME, 443))
        texts.append(str(caught.value))
    first, at, to_do = texts[0].split("\n")
    assert (
        first == "api.example:443 is not on this machine, and nothing is mocked there"
    )
    assert re.fullmatch(
        r"  at: tests/wire/test_guard.py:\d+ in test_the_message_\w+", at
    )
    assert to_do == (
        "script its answers with the fixture tta_wire, mock the client, or allow the "
        "host: tta_allow_hosts = api.example in the ini file, or "
        '@pytest.mark.tta_allow_hosts("api.example")'
    )
    assert guard.blocked == texts[:1] == texts[1:]


def test_the_message_says_what_for(guard: Guard) -> None:
    """A transport tells method and URL; what may be secret in it is left out."""
    url = "https://me:hidden@api.example/v1/chat?key=hidden#hidden"

    async def ask() -> None:
        with asking_for(f"POST {url}"):
            await asyncio.open_connection(NAME, 443)

    with pytest.raises(NetworkBlocked, match=NAME) as caught:
        asyncio.run(ask())
    assert str(caught.value).split("\n")[1] == (
        "  for: POST https://api.example/v1/chat"
    )
    assert "hidden" not in str(caught.value)
    with pytest.raises(NetworkBlocked, match=NAME) as caught:
        asyncio.run(_opens(NAME))
    assert "for:" not in str(caught.value)


def test_each_refusal_is_told_once(guard: Guard) -> None:
    """Whoever fails the test takes what is new."""
    for name in ("one.example", "two.example", "one.example"):
        with suppress(BaseException):
            guard.check(name, 1)
    assert len(guard.untold()) == 2
    assert guard.untold() == []
    with suppress(BaseException):
        guard.check("three.example", 1)
    assert len(guard.untold()) == 1
    assert repr(guard) == "<Guard blocked=3>"


def test_problems_are_kept_where_it_was_told_to() -> None:
    """A harness shows them among its own."""
    problems = ["another"]
    with Guard(problems=problems) as guard, suppress(BaseException):
        guard.check(NAME, 443)
    assert problems == ["another", *guard.blocked]


# --- beside others -------------------------------------------------------------------


PYTHONS = sum(len(exits) for _, exits in OF_PYTHON)
OWNERS = (*OF_PYTHON, (uvloop.Loop, OF_OTHERS["uvloop"][1]))


def functions() -> list[Any]:
    """Return all that stands in the places of the guard."""
    return [vars(owner).get(name) for owner, exits in OWNERS for name in exits]


@pytest.fixture
def plain() -> Iterator[None]:
    """Take away what the session that runs this keeps in the places of a guard."""
    entered, wire_guard._entered = wire_guard._entered, []
    kept = [
        (owner, name, vars(owner)[name])
        for owner, exits in OWNERS
        for name in exits
        if stands(owner, name)
    ]
    for owner, name, gate in kept:
        _, below = gate._tta
        if below is None:
            delattr(owner, name)
        else:
            setattr(owner, name, below)
    yield
    wire_guard._entered = entered
    for owner, name, gate in kept:
        setattr(owner, name, gate)


@pytest.mark.usefixtures("plain")
def test_nothing_is_left_behind() -> None:
    """Afterwards the functions are those that were there before."""
    before = functions()
    with Guard():
        assert not any(map(_is_same, before, functions()))
    assert all(map(_is_same, before, functions()))


def _is_same(one: object, other: object) -> bool:
    return one is other


def test_types_stay_what_they_are(guard: Guard) -> None:
    """Sockets are no other class than before, nor do functions change their names."""
    assert socket.socket.__module__ == "socket"
    with socket.socket() as sock:
        assert isinstance(sock, socket.socket)
        assert type(sock).__mro__[1].__module__ == "_socket"
    assert issubclass(ssl.SSLSocket, socket.socket)
    assert socket.getaddrinfo.__name__ == "getaddrinfo"
    assert socket.getaddrinfo.__qualname__ == "getaddrinfo"
    assert socket.socket.connect.__doc__


def test_a_double_in_place_of_a_method_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever mocks `connect` has mocked the network."""
    double = MagicMock()
    monkeypatch.setattr(socket.socket, "connect", double)
    with Guard(), socket.socket() as sock:
        sock.connect((ADDRESS, 443))
        assert socket.socket.connect is double
    double.assert_called_once_with((ADDRESS, 443))


@pytest.mark.usefixtures("plain")
def test_patches_over_the_guard_are_free_and_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test's own patch is above the guard, and outlives it if it is not undone."""

    def connect(sock: socket.socket, address: object) -> None:
        """Do nothing."""

    before = vars(socket.socket).get("connect")
    guard = Guard().__enter__()
    monkeypatch.setattr(socket.socket, "connect", connect)
    with socket.socket() as sock:
        sock.connect((ADDRESS, 443))
    guard.__exit__(None, None, None)
    assert vars(socket.socket)["connect"] is connect
    # The patch now gives back the guard that it had found there, and that is off.
    monkeypatch.undo()
    assert vars(socket.socket).get("connect") is not before
    with Guard(), pytest.raises(NetworkBlocked, match=ADDRESS):
        socket.socket().connect((ADDRESS, 443))
    assert vars(socket.socket).get("connect") is before
    assert guard.blocked == []


def test_a_patch_that_vanishes_takes_nothing_with_it() -> None:
    """Somebody puts the true function back while the guard stands."""
    before = vars(socket)["getaddrinfo"]
    with Guard():
        socket.getaddrinfo = before
    assert vars(socket)["getaddrinfo"] is before


@pytest.mark.usefixtures("plain")
def test_what_stands_for_a_session_is_not_put_there_again() -> None:
    """Guards find it in its place, leave it there, and refuse by it."""
    before = functions()
    with standing():
        kept = functions()
        assert not any(map(_is_same, before[:PYTHONS], kept[:PYTHONS]))
        socket.getaddrinfo("localhost", 80)
        for _ in range(2):
            with Guard() as guard:
                assert all(map(_is_same, kept[:PYTHONS], functions()))
                with pytest.raises(NetworkBlocked, match=NAME):
                    socket.getaddrinfo(NAME, 443)
                assert len(guard.blocked) == 1
        assert all(map(_is_same, kept, functions()))
    assert all(map(_is_same, before, functions()))


@pytest.mark.usefixtures("plain")
def test_a_patch_below_a_guard_hides_what_stands_for_a_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guard that is entered after it stands above it, and asks the guards inside."""
    asked: list[object] = []
    with standing(), Guard() as outer:
        monkeypatch.setattr(socket, "gethostbyname", lambda n: asked.append(n) or "")
        with Guard() as inner, pytest.raises(NetworkBlocked, match=NAME):
            socket.gethostbyname(NAME)
        assert (len(inner.blocked), asked) == (1, [])
        socket.gethostbyname(NAME)
        with allowing(NAME):
            socket.gethostbyname(NAME)
        assert (outer.blocked, asked) == ([], [NAME, NAME])
        monkeypatch.undo()


@pytest.mark.usefixtures("plain")
def test_a_guard_that_outlives_the_one_around_it_goes_on_refusing() -> None:
    """Whoever ends first takes away its own, and nobody else's."""
    before = functions()
    outer, inner = Guard(), Guard()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    with pytest.raises(NetworkBlocked, match=NAME):
        socket.getaddrinfo(NAME, 443)
    assert (len(inner.blocked), outer.blocked) == (1, [])
    inner.__exit__(None, None, None)
    assert all(map(_is_same, before, functions()))


def test_a_guard_is_no_cyclic_garbage() -> None:
    """A test has one, and nobody collects after each."""
    with only_new_garbage():
        with Guard():
            pass
        assert gc.collect() == 0


def test_a_guard_may_stand_twice() -> None:
    """It is entered again when a test gets another clock."""
    guard = Guard()
    for _ in range(2):
        with guard, pytest.raises(NetworkBlocked, match=NAME):
            socket.getaddrinfo(NAME, 443)
    guard.check(NAME, 443)
    assert len(guard.blocked) == 1


# --- clients -------------------------------------------------------------------------


def test_urllib_is_refused(guard: Guard) -> None:
    """It wraps what is an OSError, and this is none."""
    with pytest.raises(NetworkBlocked, match=refused(NAME, 80)):
        urllib.request.urlopen(f"http://{NAME}/")


def test_requests_is_refused(guard: Guard) -> None:
    """Its retries catch exceptions only."""
    requests = pytest.importorskip("requests")
    with pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
        requests.get(f"https://{NAME}/", timeout=1)


def test_aiohttp_is_refused(guard: Guard) -> None:
    """It looks names up in a task of its own."""
    aiohttp = pytest.importorskip("aiohttp")

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            await session.get(f"https://{NAME}/")

    with pytest.raises(NetworkBlocked, match=NAME):
        asyncio.run(main())


@pytest.mark.parametrize("family", [httpx, httpx2], ids=["httpx", "httpx2"])
@every_loop
def test_httpx_is_refused(
    guard: Guard, family: types.ModuleType, run: Callable[[Any], object]
) -> None:
    """Both families, the synchronous client and the other, on every loop."""
    with (
        family.Client() as client,
        pytest.raises(NetworkBlocked, match=refused(NAME, 443)),
    ):
        client.get(f"https://{NAME}/")

    async def main() -> None:
        async with family.AsyncClient() as client:
            await client.get(f"https://{NAME}/")

    with pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
        run(main())


@pytest.mark.parametrize("family", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_address_is_refused_inside_a_group(
    guard: Guard, family: types.ModuleType
) -> None:
    """Anyio connects to an address in a task group, which wraps what it raises."""

    async def main() -> None:
        async with family.AsyncClient() as client:
            await client.get(f"https://{ADDRESS}/")

    with pytest.raises(BaseExceptionGroup, match="TaskGroup") as caught:
        asyncio.run(main())
    assert caught.group_contains(NetworkBlocked, match=refused(ADDRESS, 443), depth=1)
    assert "_backends/_asyncio.py:" in guard.blocked[0]


@pytest.mark.parametrize("family", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_httpx_with_a_transport_of_its_own_is_free(
    guard: Guard, family: types.ModuleType
) -> None:
    """Mock transports and applications never reach a socket."""

    def answer(request: Any) -> Any:
        return family.Response(200, text="mocked")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    async def main() -> list[str]:
        texts = []
        for transport in (
            family.MockTransport(answer),
            family.ASGITransport(application),
        ):
            async with family.AsyncClient(transport=transport) as client:
                texts.append((await client.get(f"https://{NAME}/")).text)
        return texts

    assert asyncio.run(main()) == ["mocked", "served"]
    assert guard.blocked == []


@respx.mock
def test_respx_routes_are_free(guard: Guard) -> None:
    """Respx answers above the sockets."""
    respx.get(f"https://{NAME}/").mock(httpx.Response(200, text="routed"))
    assert httpx.get(f"https://{NAME}/").text == "routed"
    assert guard.blocked == []


SDKS = {
    "openai": (openai.OpenAI, openai.AsyncOpenAI),
    "anthropic": (anthropic.Anthropic, anthropic.AsyncAnthropic),
}


def ask(client: Any) -> Any:
    """Send a question by the SDK of a client."""
    if hasattr(client, "chat"):
        return client.chat.completions.create(model="m", messages=CHAT)
    return client.messages.create(model="m", max_tokens=9, messages=CHAT)


@pytest.mark.parametrize("sdk", SDKS)
def test_sdks_are_refused_at_the_first_attempt(guard: Guard, sdk: str) -> None:
    """Their own `except Exception` and their retries do not see it."""
    attempts: list[Any] = []
    client = SDKS[sdk][0](api_key="sk-hidden", base_url=f"https://{NAME}/v1")
    client._client.event_hooks = {"request": [attempts.append]}
    assert client.max_retries > 0
    with client, pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
        ask(client)
    assert len(attempts) == 1
    assert "hidden" not in guard.blocked[0]


@pytest.mark.parametrize("sdk", SDKS)
@every_loop
def test_async_sdks_are_refused_at_the_first_attempt(
    guard: Guard, sdk: str, run: Callable[[Any], object]
) -> None:
    """The same on every loop, and the line is the caller's."""
    attempts: list[Any] = []

    async def note(request: object) -> None:
        attempts.append(request)

    async def main() -> None:
        client = SDKS[sdk][1](api_key="sk-hidden", base_url=f"https://{NAME}/v1")
        client._client.event_hooks = {"request": [note]}
        async with client:
            await ask(client)

    with pytest.raises(NetworkBlocked, match=refused(NAME, 443)):
        run(main())
    assert len(attempts) == 1
    assert "at: tests/wire/test_guard.py" in guard.blocked[0]
    assert "hidden" not in guard.blocked[0]
    assert "secret words" not in guard.blocked[0]


def test_redis_is_refused(guard: Guard) -> None:
    """Its clients retry connection errors, and this is none."""
    with pytest.raises(NetworkBlocked, match=refused(NAME, 6379)):
        redis.Redis(NAME).ping()

    async def main() -> None:
        client = redis.asyncio.Redis(host=ADDRESS)
        try:
            await client.ping()
        finally:
            await client.aclose()

    with pytest.raises(NetworkBlocked, match=refused(ADDRESS, 6379)):
        asyncio.run(main())
