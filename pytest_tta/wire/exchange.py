"""What goes over the wire: a request as it arrives, and an answer with its times.

An answer is bytes and moments, never an exception: which error it becomes is for the
client to say, and another version of an SDK may say something else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from tta_primitives.arguments import check_choice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

__all__ = [
    "REDACTED",
    "Connect",
    "Ending",
    "Part",
    "WireAnswer",
    "WireRequest",
    "reason_of",
]

Connect: TypeAlias = Literal["open", "refused", "unresolved", "silent"]
Ending: TypeAlias = Literal["complete", "closed", "reset", "silent"]
Part: TypeAlias = tuple[float, bytes]

REDACTED = "<redacted>"
"""What stands in place of a value that lets somebody in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """One HTTP request, with everything that says who is asking left out of its repr.

    Attributes:
        number: Which request to the wire it was, from 1.
        method: `POST`, for instance.
        url: Where to, without user and password; a query only with the names of what
            it asks, as its values may be keys.
        headers: By name in lower case; values that let somebody in are replaced.
        body: What was sent.
        at: When, in seconds of the clock.
        path: The primitive that asked, by its path; "" if none was at work.
        timeout: The client's limits in seconds: `connect`, `read`, `write`, `pool`;
            None where there is none.
    """

    number: int
    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    at: float
    path: str = ""
    timeout: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was sent
        """The body as JSON.

        Raises:
            ValueError: It is none.
        """
        return json.loads(self.body)

    @property
    def retry_count(self) -> int:
        """How often the SDK itself had tried before, as the vendors' SDKs tell."""
        return int(self.headers.get("x-stainless-retry-count", "0"))

    def __str__(self) -> str:
        return f"{self.method} {self.url} at {self.at:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class WireAnswer:
    """What a server does with a request.

    A body whose length is told (`content-length`) may be longer or shorter than that;
    otherwise it is sent in chunks, whose end is told by `ending="complete"` alone.

    Attributes:
        status: The HTTP status.
        headers: Names and values, in order; names in lower case.
        body: Seconds after the head, never decreasing, and bytes.
        tokens: Which parts of the body, by index, carry content of the model's answer.
        tail: How many parts at the end of the body tell that the answer is over.
        head_after: Seconds between the whole request and the head.
        ending: What comes after the last part: `complete`, the end as HTTP has it;
            `closed`, the connection is closed before the body is whole; `reset`, it is
            torn down (RST); `silent`, nothing, for ever.
        has_head: Whether there is an answer at all; without, `ending` comes in place
            of the head.
        raw_head: Bytes in place of status line and headers.
        connect: What becomes of the connection: `open`, `refused`, `unresolved` (the
            name has no address), `silent` (it is never accepted).
        reads_request: Whether the server reads the request; if not, clients wait until
            their write timeout.

    Raises:
        ValueError: A word is unknown, or times decrease.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[Part, ...] = ()
    tokens: tuple[int, ...] = ()
    tail: int = 0
    head_after: float = 0.0
    ending: Ending = "complete"
    has_head: bool = True
    raw_head: bytes | None = None
    connect: Connect = "open"
    reads_request: bool = True

    def __post_init__(self) -> None:
        """Refuse what no server can do."""
        check_choice("ending", self.ending, get_args(Ending))
        check_choice("connect", self.connect, get_args(Connect))
        times = [at for at, _ in self.body]
        if times != sorted(times) or (times and times[0] < 0) or self.head_after < 0:
            msg = f"the times {times} of a body must begin at 0 or later and never fall"
            raise ValueError(msg)

    @classmethod
    def of_json(
        cls,
        value: object,
        *,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        after: float = 0.0,
    ) -> Self:
        """Return an answer with a JSON body, whose length is told.

        Args:
            value: What the JSON stands for.
            status: The HTTP status.
            headers: Further headers.
            after: Seconds until head and body come.
        """
        data = json.dumps(value).encode()
        return cls.of_bytes(
            data, "application/json", status=status, headers=headers, after=after
        )

    @classmethod
    def of_bytes(
        cls,
        data: bytes,
        content_type: str,
        *,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        after: float = 0.0,
    ) -> Self:
        """Return an answer with a body whose length is told; as `of_json`."""
        head = ("content-type", content_type), ("content-length", str(len(data)))
        return cls(
            status=status,
            headers=(*head, *headers),
            body=((0.0, data),) if data else (),
            head_after=after,
        )

    @classmethod
    def of_events(
        cls,
        events: Iterable[Part],
        *,
        headers: Iterable[tuple[str, str]] = (),
        tokens: Iterable[int] = (),
        tail: int = 0,
        after: float = 0.0,
    ) -> Self:
        """Return an answer with server-sent events, as `text/event-stream`.

        Args:
            events: Of each the seconds after the head, and its bytes, the blank line
                at its end included.
            headers: Further headers.
            tokens: Which of them carry content, by index.
            tail: How many at the end tell that the answer is over.
            after: Seconds until the head comes.
        """
        return cls(
            headers=(("content-type", "text/event-stream; charset=utf-8"), *headers),
            body=tuple(events),
            tokens=tuple(tokens),
            tail=tail,
            head_after=after,
        )

    @property
    def data(self) -> bytes:
        """The whole body."""
        return b"".join(part for _, part in self.body)

    @property
    def length(self) -> int | None:
        """The length that is told; None if the body comes in chunks."""
        told = self.header("content-length")
        return None if told is None else int(told)

    def header(self, name: str) -> str | None:
        """Return the first header of that name, which is given in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    def delayed(self, seconds: float) -> Self:
        """Return the answer with its head that much later."""
        return replace(self, head_after=self.head_after + seconds)

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """Return the answer with these headers in place of those of the same names."""
        names = {name for name, _ in headers}
        kept = (pair for pair in self.headers if pair[0] not in names)
        return replace(self, headers=(*kept, *headers))

    def cut(self, parts: int, ending: Ending) -> Self:
        """Return the answer with so many parts of its body, and another ending.

        A length that was told stays, as if the rest were still to come.
        """
        tokens = tuple(index for index in self.tokens if index < parts)
        tail = max(0, self.tail - max(0, len(self.body) - parts))
        body = self.body[:parts]
        return replace(self, body=body, tokens=tokens, tail=tail, ending=ending)


def reason_of(status: int) -> str:
    """Return the words that go with a status, "" for one that has none."""
    if status == 529:  # noqa: PLR2004 - Anthropic's own
        return "Site is overloaded"
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
