"""Rate limits of FastAPI routes, as dependencies built on `RateLimitPrimitive`.

FastAPI reads annotations when the app is made, so those here are not deferred.
"""

import hashlib
import inspect
import ipaddress
import math
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tta_primitives.errors import RateLimitExceededError
from tta_primitives.extras import needs
from tta_primitives.integrations.asgi import context_of
from tta_primitives.primitive import step
from tta_primitives.recovery.rate_limit import RateLimitPrimitive, RateLimitStats

with needs("fastapi", __name__):
    from fastapi import HTTPException, Request, Response

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tta_primitives.recovery.rate_algorithms import Algorithm

__all__ = ["ClientKey", "RateLimit", "by_client", "by_header"]

ClientKey: TypeAlias = Callable[[Request], Hashable | Awaitable[Hashable]]

_TOO_MANY_REQUESTS: Final = 429
# A household or a server has a whole network of IPv6 addresses to choose from.
_IPV6_NETWORK: Final = 64
_DIGITS: Final = 32


def by_client(request: Request) -> str:
    """Return the address of the client; for IPv6 the network of 64 bits it is in.

    Behind a proxy that is the proxy's, unless the server is told to believe it:
    `uvicorn --proxy-headers --forwarded-allow-ips=...`.
    """
    host = "" if request.client is None else request.client.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        network = ipaddress.ip_network((address, _IPV6_NETWORK), strict=False)
        return str(network)
    return str(address)


def by_header(name: str) -> ClientKey:
    """Return a key function that tells clients apart by a header, such as an API key.

    What it returns is a digest: the header may be a secret. Who does not send it is
    told apart by the address.

    Args:
        name: Of the header.
    """

    def key(request: Request) -> str:
        value = request.headers.get(name)
        if value is None:
            return by_client(request)
        return hashlib.sha256(f"{name}\n{value}".encode()).hexdigest()[:_DIGITS]

    return key


class RateLimit:
    """A limit on the requests of each client, for `Depends`.

    A request beyond the limit is answered with 429 and `Retry-After`. It
    carries `RateLimit-Policy` and `RateLimit` as the IETF's draft on rate limit fields
    has them: what is allowed, what is left, and for how many seconds one has to wait.
    So does every other answer, except where a handler makes the `Response` itself, to
    which FastAPI adds no headers. What is left is not told where processes share the
    limit, because none of them knows.

    Args:
        rate: So many requests in each period.
        period: In seconds.
        key: f(request), sync or async, that returns whose request it is, or None for
            one that is not limited. Usually `by_client`, or `by_header("x-api-key")`.
        name: Tells this limit from others in the same storage, and in the headers.
        algorithm: As for `RateLimitPrimitive`.
        burst: As for `RateLimitPrimitive`.
        max_wait: How long a request may wait for its turn, in seconds; 0 to be turned
            away at once.
        storage: A `redis.asyncio.Redis` in which all processes share the limit.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        rate: float,
        period: float | timedelta = 1.0,
        key: ClientKey = by_client,
        name: str = "default",
        algorithm: "Algorithm" = "token_bucket",
        burst: float | None = None,
        max_wait: float | timedelta = 0.0,
        storage: "Redis | None" = None,
    ) -> None:
        if not callable(key):
            msg = f"key={key!r} must be a function of the request, such as by_client"
            raise TypeError(msg)
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            msg = f"name={name!r} must be a word of letters, digits, '-' and '_'"
            raise ValueError(msg)
        self._key = key
        self._name = name
        self._limit: RateLimitPrimitive[Hashable, Hashable] = RateLimitPrimitive(
            _admit,
            rate=rate,
            period=period,
            algorithm=algorithm,
            burst=burst,
            max_wait=max_wait,
            key=_as_it_is,
            storage=storage,
            namespace=None if storage is None else f"fastapi:{name}",
        ).named(f"rate_limit_{name}")
        self._is_shared = storage is not None
        figures = (self._limit.rate, self._limit.period)
        self._policy = '"{}";q={:g};w={:g}'.format(name, *figures)

    @property
    def stats(self) -> RateLimitStats:
        """What the limit has done so far in this process."""
        return self._limit.stats

    async def __call__(self, request: Request, response: Response) -> None:
        """Let a request pass, or answer it with 429.

        Args:
            request: The request.
            response: What the headers are added to.

        Raises:
            HTTPException: There were too many.
        """
        key: Any = self._key(request)
        if inspect.isawaitable(key):
            key = await key
        if key is None:
            return
        try:
            await self._limit.execute(key, context_of(request.scope))
        except RateLimitExceededError as error:
            wait = error.retry_after or 0.0
        else:
            response.headers.append("RateLimit-Policy", self._policy)
            if not self._is_shared:
                response.headers.append("RateLimit", self._left(key))
            return
        # Raised outside the handler: the error knows of paths, not of clients.
        raise self._rejection(wait)

    def _rejection(self, wait: float) -> HTTPException:
        seconds = max(1, math.ceil(wait))
        return HTTPException(
            _TOO_MANY_REQUESTS,
            detail=f"Too many requests: try again in {seconds} s",
            headers={
                "Retry-After": str(seconds),
                "RateLimit-Policy": self._policy,
                "RateLimit": f'"{self._name}";r=0;t={seconds}',
            },
        )

    def _left(self, key: Hashable) -> str:
        lanes = self._limit._by_loop.here()
        now = lanes.now()
        bucket = lanes.lane(key, now).bucket
        left = max(0, math.floor(bucket.available(now)))
        wait = 0 if left else max(1, math.ceil(bucket.due(now, 1.0) - now))
        return f'"{self._name}";r={left};t={wait}'


@step
async def _admit(key: Hashable) -> Hashable:
    return key


def _as_it_is(key: Hashable) -> Hashable:
    return key
