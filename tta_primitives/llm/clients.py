"""The clients of the vendors' SDKs: one for each server and event loop.

A client belongs to the loop on which its connections were opened. It is closed when the
last primitive that uses it is closed, or else when the loop ends: `asyncio.run` and
whatever else shuts down asynchronous generators closes it then, because a generator
that waits in its `yield` keeps each.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from tta_primitives.loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator, Callable

__all__ = ["Owner", "client_for", "close_clients"]

Server: TypeAlias = "tuple[str, str | None]"

# Keys that are changed now and then leave no client behind, and no connection.
_MOST_KEYS = 8


class Owner:
    """Stands for a primitive and its renamed copies."""

    __slots__ = ("__weakref__",)


@dataclass(eq=False)
class _Shared:
    """The client of one server on one loop.

    Attributes:
        by_key: It and its copies with other keys, which share its connections.
        keeper: Closes it when it is closed.
        owners: Who uses it.
    """

    first: Any
    keeper: AsyncGenerator[None, None]
    by_key: OrderedDict[str, Any] = field(default_factory=OrderedDict, repr=False)
    owners: WeakSet[Owner] = field(default_factory=WeakSet)


_lock = threading.Lock()
_clients: WeakKeyDictionary[AbstractEventLoop, dict[Server, _Shared]]
_clients = WeakKeyDictionary()


async def client_for(
    server: Server, key: str, owner: Owner, make: Callable[[str], Any]
) -> Any:  # noqa: ANN401 - an SDK's client, which is not imported
    """Return the client for a server and a key on the running loop.

    Args:
        server: The vendor's name and the URL, None for the vendor's own.
        key: The provider's key.
        owner: Who will use it.
        make: Makes a client with a key.
    """
    servers = _servers_of(running_loop())
    shared = servers.get(server)
    if shared is None:
        client = make(key)
        shared = _Shared(client, _kept(servers, server, client))
        shared.by_key[key] = client
        servers[server] = shared
        # Its first step tells the loop of it, and does not wait: nobody comes between.
        await anext(shared.keeper)
    shared.owners.add(owner)
    client = shared.by_key.get(key)
    if client is None:
        client = shared.by_key[key] = shared.first.with_options(api_key=key)
        if len(shared.by_key) > _MOST_KEYS:
            shared.by_key.popitem(last=False)
    return client


async def close_clients(owner: Owner) -> None:
    """Close the clients of the running loop that nobody else uses.

    Args:
        owner: Who uses them no longer.
    """
    for shared in list(_servers_of(running_loop()).values()):
        if owner in shared.owners:
            shared.owners.discard(owner)
            if not shared.owners:
                await shared.keeper.aclose()


def _servers_of(loop: AbstractEventLoop) -> dict[Server, _Shared]:
    with _lock:
        servers = _clients.get(loop)
        if servers is None:
            # Clients hold their loop, so one that is closed must be let go by hand.
            for other in [one for one in _clients if one.is_closed()]:
                del _clients[other]
            servers = _clients[loop] = {}
        return servers


async def _kept(
    servers: dict[Server, _Shared],
    server: Server,
    client: Any,  # noqa: ANN401 - as above
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        servers.pop(server, None)
        await client.close()
