"""One provider of a test: what it says, and what it was asked."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_tta.doubles.calls import LLMCall, scripted_at
from pytest_tta.doubles.replies import Asked, Fixed
from pytest_tta.doubles.rules import Rule, RuleBook, Scope
from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.faults.schedules import Attempt, Schedule, always
from pytest_tta.trace.snapshot import shorten
from pytest_tta.wire.api import Said, WireStrike
from pytest_tta.wire.saying import Faulted, said_by
from pytest_tta.wire.script import UNACCEPTABLE, WireScript, check_fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pytest_tta.wire.api import Api, WireFault
    from pytest_tta.wire.exchange import WireAnswer, WireRequest
    from tta_primitives.door import Call as PrimitiveCall

__all__ = ["Provider", "WireExchange"]

_GOOD = 200
_RUNNING = "running"


class Provider(WireScript):
    """A provider that says what the test wrote down, under the real SDK.

    The rule whose place is most exact answers, then the one with most conditions, then
    the first written; each answers once unless it has `.times(n)` or `.always()`.

    Args:
        name: How it is called, as a test writes it.
        base_urls: Where its APIs are.
        apis: What it can be asked.
        seed: Decides the data that schemas are filled with, and what `chance` draws.

    Attributes:
        began: The loop time that counts as zero for `at_time`, in seconds; that of the
            first request unless given.
        exchanges: What was asked, what was answered, and what became of it, in order.
    """

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        apis: Sequence[Api],
        seed: int | str,
    ) -> None:
        self._book = RuleBook(name)
        scope = Scope(speaker=name, unasked="no request came")
        super().__init__(self._book.rules, scope)
        self._name = name
        self._places = [_place_of(url) for url in base_urls]
        self._apis = tuple(apis)
        self._seed = seed
        self._injected: list[_Injected] = []
        self.began: float | None = None
        self.exchanges: list[WireExchange] = []
        self._counts: Counter[str] = Counter()

    @property
    def requests(self) -> list[WireRequest]:
        """What was asked, in order, refused requests and SDKs' own retries included."""
        return [one.request for one in self.exchanges]

    def __repr__(self) -> str:
        hosts = ", ".join(host for host, _, _ in self._places)
        return f"<Provider {self._name} at {hosts}, requests={len(self.exchanges)}>"

    def inject(self, fault: WireFault, *, when: Schedule | None = None) -> Provider:
        """Let a fault strike requests, whatever is scripted for them.

        A request that is refused uses up no reply; one that a reply begins to answer
        does. Of several faults that strike one request the first written acts.

        Args:
            fault: What goes wrong, such as `overloaded()`.
            when: Which requests of each place, an SDK's own retries included; all
                unless given.

        Raises:
            TypeError: One of them is of another kind.
        """
        check_fault(fault)
        schedule = always() if when is None else when
        if not isinstance(schedule, Schedule):
            msg = f"when={when!r} must be a schedule, such as first(2) or every(3)"
            raise TypeError(msg)
        self._injected.append(_Injected(fault, schedule, scripted_at()))
        return self

    def striking(self, call: LLMCall) -> WireFault | None:
        """Return the fault that strikes a call, if one does."""
        if self.began is None:
            self.began = call.at
        at = round(call.at - self.began, 9)
        seed = f"{self._seed}/{self._name}"
        asked: Any = call
        attempt = Attempt(asked, call.path, call.number, at, seed)
        for one in self._injected:
            if one.schedule.strikes(attempt.for_fault(repr(one.fault))):
                one.struck += 1
                return one.fault
        return None

    def serves(self, host: str, port: int | None, path: str) -> bool:
        """Tell whether a URL is one of this provider's.

        Args:
            host: In lower case.
            port: None for the usual one.
            path: What follows.
        """
        return any(
            host == mine and port == mine_too and path.startswith(below)
            for mine, mine_too, below in self._places
        )

    def begin(self, request: WireRequest, caller: PrimitiveCall | None) -> WireExchange:
        """Take a request.

        Args:
            request: What is asked.
            caller: The call of the primitive that asks, if one does.
        """
        self._counts[request.path] += 1
        exchange = WireExchange(self, request, caller, self._counts[request.path])
        self.exchanges.append(exchange)
        return exchange

    def verify(self) -> list[str]:
        """Return what went wrong: unexpected requests, and rules used too seldom."""
        paths = [one.request.path or "(none)" for one in self.exchanges]
        idle = [str(one) for one in self._injected if not one.struck]
        return [*self._book.verify(paths), *idle]

    def api_of(self, request: WireRequest) -> Api:
        """Return the API that a request is for.

        Raises:
            UnexpectedCall: The provider has no such API.
        """
        path = urlsplit(request.url).path
        for api in self._apis:
            if api.serves(request.method, path):
                return api
        known = ", ".join(api.name for api in self._apis)
        msg = (
            f"{request.method} {request.url} is for no API of the fake provider, which "
            f"has {known}; replace what asks for it"
        )
        raise self.unexpected(msg)

    def unexpected(self, text: str) -> UnexpectedCall:
        """Return an error for a request that nobody foresaw, which is kept as well."""
        problem = UnexpectedCall(text)
        self._book.problems.append(problem)
        return problem

    def rule_for(self, call: LLMCall, fault: WireFault | None) -> Rule:
        """Use the rule that answers a call; what is struck by a fault needs none.

        Raises:
            UnexpectedCall: There is none.
        """
        rule = None if fault is None else self._book.find(call, None)
        if fault is not None and rule is None:
            return Rule(Scope(), Fixed(UNACCEPTABLE), "", "")
        return self._book.take(call, None)

    def asked(self, call: LLMCall) -> Asked:
        """Return what a reply may look at."""
        seed = f"{self._seed}/{self._name}/{call.path}/{call.number}"
        return Asked(call, random.Random(seed))  # noqa: S311 - repeatable on purpose


@dataclass(slots=True)
class _Injected:
    """A fault with its schedule, and how often it has struck."""

    fault: WireFault
    schedule: Schedule
    scripted_at: str
    struck: int = 0

    def __str__(self) -> str:
        return (
            f"{self.scripted_at}: {self.fault!r} never struck: no request came, or "
            f"none that {self.schedule!r} is for"
        )


class WireExchange:
    """A request, its answer, and what became of it.

    Attributes:
        provider: Who was asked.
        request: What was asked.
        caller: The call of the primitive that asked; None if none did.
        number: Which request of that primitive to this provider it is, from 1.
        api: Which API; None if there is no such one.
        call: The request in no vendor's words; None if the provider refuses it.
        fault: What went wrong on purpose, if anything.
        sent: What was answered; None if nobody foresaw the request.
        ending: How the client's reading ended: "" for the end of the body, an error's
            repr otherwise, None if it has not.
        is_closed: Whether the client has let go of the answer.
        is_forgotten: Whether it did so when its run was over.
        took: Seconds until then, 0 as long as it has not.
    """

    def __init__(
        self,
        provider: Provider,
        request: WireRequest,
        caller: PrimitiveCall | None,
        number: int,
    ) -> None:
        self.provider = provider
        self.request = request
        self.caller = caller
        self.number = number
        self.api: Api | None = None
        self.call: LLMCall | None = None
        self.fault: WireFault | None = None
        self.sent: WireAnswer | None = None
        self.ending: str | None = None
        self.is_closed: bool = False
        self.is_forgotten: bool = False
        self.took: float = 0.0
        self._has_head = False

    @property
    def run(self) -> PrimitiveCall | None:
        """The root of the run that the request belongs to, None if it is of none."""
        call = self.caller
        while call is not None and call.parent_call is not None:
            call = call.parent_call
        return call

    @property
    def is_answered(self) -> bool:
        """Whether the client was given the head of an answer."""
        return self.sent is not None and self._has_head

    @property
    def answered_at(self) -> float:
        """When the head was sent, in seconds of the clock."""
        after = 0.0 if self.sent is None else self.sent.head_after
        return self.request.at + after

    @property
    def looks_good(self) -> bool:
        """Whether a client can take the answer for a good one by its status."""
        return self.sent is not None and self.sent.status == _GOOD and self._has_head

    @property
    def is_accepted(self) -> bool:
        """Whether its caller, and the whole run, ended well after it."""
        root = self.run
        if root is None or self.caller is None:
            return False
        return self.caller.status == "ok" and root.status == "ok"

    def answer(self) -> WireAnswer | Awaitable[WireAnswer]:
        """Return what the provider answers.

        Raises:
            UnexpectedCall: No rule answers it, or it is for no API.
        """
        __tracebackhide__ = True
        api = self.api = self.provider.api_of(self.request)
        try:
            body = self.request.json
            if not isinstance(body, dict):
                msg = "the body must be a JSON object"
                raise ValueError(msg)  # noqa: TRY301, TRY004 - refused like the next line
            asked_for = api.request(body)
        except ValueError as error:
            # What the real provider would say; nothing was scripted for it.
            self.sent = api.error("bad_request", message=str(error))
            return self.sent
        call = self.call = _WireCall(
            number=self.number,
            path=self.request.path,
            input=asked_for,
            at=self.request.at,
            run_id="",
            correlation_id="",
            idempotency_key=self.request.headers.get("idempotency-key"),
            is_stream=api.streams(body),
        )
        self.fault = self.provider.striking(call)
        rule = self.provider.rule_for(call, self.fault)
        said = said_by(rule.reply, self.provider.asked(call))
        if isinstance(said, Said):
            return self._answered(rule, said, body)
        return self._answer_later(rule, said, body)

    async def _answer_later(
        self, rule: Rule, said: Awaitable[Said], body: dict[str, Any]
    ) -> WireAnswer:
        return self._answered(rule, await said, body)

    def _answered(self, rule: Rule, said: Said, body: dict[str, Any]) -> WireAnswer:
        api: Any = self.api
        number = self.request.number
        injected = self.fault
        if injected is None and isinstance(rule.reply, Faulted):
            self.fault = rule.reply.fault
        if self.fault is None:
            answer: WireAnswer = api.answer(said, body, number)
            self.sent = answer
            return answer
        strike = WireStrike(api=api, body=body, number=number, said=said)
        try:
            self.sent = self.fault.on_wire(strike)
        except ValueError as error:
            # An SDK would take it for a failure of the provider, and try again.
            raise self.provider.unexpected(str(error)) from error
        if injected is not None and not self._begins_well(self.sent):
            rule.used -= 1  # The reply is still to come.
        return self.sent

    @staticmethod
    def _begins_well(answer: WireAnswer) -> bool:
        is_there = answer.connect == "open" and answer.has_head
        return is_there and answer.reads_request and answer.status == _GOOD

    def began(self) -> None:
        """Note that the client has the head."""
        self._has_head = True

    def ended(self, how: str, /) -> None:
        """Note how it ended."""
        self.ending = how

    def closed(self, at: float, /) -> None:
        """Note that the client has let go of the answer.

        Args:
            at: When, in seconds of the clock.
        """
        if not self.is_closed:
            self.is_closed = True
            self.took = at - self.request.at
            # What the end of the loop closes was forgotten by the run.
            self.is_forgotten = self._is_run_over()

    def _is_run_over(self) -> bool:
        calls = [call for call in (self.caller, self.run) if call is not None]
        return bool(calls) and all(call.status != _RUNNING for call in calls)

    def __repr__(self) -> str:
        status = None if self.sent is None else self.sent.status
        return f"<WireExchange {self.request} status={status} fault={self.fault!r}>"


class _WireCall(LLMCall):
    """A call that came over the wire, perhaps from no primitive."""

    __slots__ = ()

    @property
    def title(self) -> str:
        """What was called, in a few words."""
        where = f"of {self.path!r}" if self.path else f"from {scripted_at()}"
        return f"request {self.number} {where}"

    @property
    def shown(self) -> str:
        """Who said what to which model, in a line."""
        request = self.request
        said = [f"{one.role}: {shorten(one.content)}" for one in request.messages]
        tools = [f"tool: {one.name}" for one in request.tools]
        return ", ".join([str(request.model), *said, *tools])


def _place_of(url: str) -> tuple[str, int | None, str]:
    """Return host, port and path of a base URL, as requests are compared with them.

    Raises:
        ValueError: It is no absolute URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"base_url={url!r} must be a URL such as 'https://llm.example/v1'"
        raise ValueError(msg)
    usual = {"http": 80, "https": 443}[parts.scheme]
    port = None if parts.port == usual else parts.port
    return parts.hostname.lower(), port, parts.path.rstrip("/")
