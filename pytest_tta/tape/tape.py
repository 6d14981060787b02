"""Record what a provider of language models answers once, and play it ever after."""

from __future__ import annotations

import math
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.tape import files
from pytest_tta.tape.errors import TapeError
from pytest_tta.tape.form import Broken, answer_of, response_of
from pytest_tta.tape.matching import Difference, Ignored, body_of, differences
from pytest_tta.tape.recording import Recording, file_of, recordings_of, sdk_of
from pytest_tta.tape.redaction import Redactor
from pytest_tta.tape.slots import Edits, Slot
from pytest_tta.whereabouts import path_here
from pytest_tta.wire.exchange import WireRequest
from pytest_tta.wire.forwarding import Forward
from pytest_tta.wire.script import check_fault
from tta_primitives.arguments import check_choice, check_count, seconds

if TYPE_CHECKING:
    import os
    import re
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from pytest_tta.tape.redaction import Cleaner
    from pytest_tta.wire.api import WireFault
    from pytest_tta.wire.exchange import WireAnswer
    from pytest_tta.wire.forwarding import Caught
    from pytest_tta.wire.transport import Asking

__all__ = ["MODES", "RecordMode", "Tape"]

RecordMode: TypeAlias = Literal["none", "once", "new", "all"]
MODES: tuple[str, ...] = get_args(RecordMode)

_PROVIDERS = frozenset({"api.anthropic.com", "api.openai.com"})
# How the APIs of models end, at whichever host they are.
_ENDS = (
    "/api/chat",
    "/api/generate",
    "/completions",
    "/embeddings",
    "/messages",
    "/messages/count_tokens",
    "/models",
    "/responses",
)
_KEPT_HEADERS = frozenset({"content-type", "user-agent", "x-stainless-retry-count"})
_SHOWN = 5

Permit: TypeAlias = "Callable[[str, int | None], AbstractContextManager[object]]"


class Tape:
    """What providers answered to the requests of one test.

    Requests to the hosts that are on it, and to the APIs of models at any host, are
    answered from it, or recorded, whichever client sends them over httpx or httpx2.
    What is not on it fails the test.

    Args:
        path: Its file; without `.yaml` or `.json` at its end, whichever there is.
        mode: "none" plays only; "once" records if there is no file; "new" records what
            is missing; "all" records everything anew.
        keep_errors: Whether to record answers that are no success as well.
        ignore: Fields of a request's body that need not be as they were recorded.
        permit: Lets the network guard pass one host, and its port.

    Attributes:
        path: The file.
        mode: As given.
        requests: What was asked so far.

    Raises:
        TapeError: The file cannot be read.
        ValueError: An argument has a wrong value.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: RecordMode = "none",
        keep_errors: bool = False,
        ignore: Iterable[str] = (),
        permit: Permit | None = None,
    ) -> None:
        check_choice("mode", mode, MODES)
        self.path: Path = files.tape_file(Path(path))
        self.mode = mode
        self.requests: list[WireRequest] = []
        self._keep_errors = keep_errors
        self._ignore = list(ignore)
        self._ignored = Ignored(self._ignore)
        self._permit = permit
        self._redactor = Redactor()
        self._hosts: set[str] = set()
        self._edits: dict[int, Edits] = {}
        self._delay = 0.0
        self._speed = 1.0
        self._optional: set[int] = set()
        self._are_all_optional = False
        self._problems: list[str] = []
        self._lock = threading.RLock()
        # What was answered and is not put on tape, each with the reason.
        self._left_out: list[tuple[Recording, str]] = []
        self._is_changed = False
        self._sdk: dict[str, str] = {}
        self._slots: list[Slot] = []
        self._exists = self.path.exists()
        if mode != "all" and self._exists:
            self._load()
        self._records = mode in {"new", "all"} or (mode == "once" and not self._exists)
        if self._records:
            files.check_format(self.path)

    def _load(self) -> None:
        files.check_format(self.path)
        data = files.read(self.path)
        try:
            recordings, self._sdk = recordings_of(data)
        except Broken as error:
            raise files.explained(self.path, error) from None
        self._slots = [Slot(one) for one in recordings]

    # --- what a test may say --------------------------------------------------

    @property
    def recordings(self) -> list[Recording]:
        """The exchanges that are on it, in the order in which they were asked for."""
        return [one.recording for one in self._slots if one.recording is not None]

    @property
    def is_recording(self) -> bool:
        """Whether a request that is not on it goes to the real server."""
        return self._records

    def speed(self, factor: float) -> None:
        """Play faster or slower: 2 takes half the time, 0 takes none.

        Args:
            factor: 0 or more; 1 is as it was recorded.

        Raises:
            ValueError: It is no such number.
        """
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not is_number or not 0 <= factor < math.inf:
            msg = f"factor={factor!r} must be a number from 0: 2 plays twice as fast"
            raise ValueError(msg)
        self._speed = float(factor)

    def cut(
        self,
        after_token: int = 1,
        *,
        how: Literal["closed", "reset", "clean"] = "closed",
        nth: int = 1,
    ) -> None:
        """Break a stream off, the first time that it is asked for.

        Args:
            after_token: How many tokens come before.
            how: The connection is closed, torn down, or ended as if all was well.
            nth: Which exchange of the tape, from 1.

        Raises:
            ValueError: An argument has a wrong value, or there is no such exchange.
        """
        from pytest_tta.faults.llm_streams import stream_cut

        tokens = check_count("after_token", after_token)
        self.fault(stream_cut(tokens, how), nth=nth)

    def fault(self, fault: WireFault, *, nth: int = 1) -> None:
        """Let something go wrong with an exchange, the first time it is asked for.

        Another one for the same exchange happens the second time. Whoever asks once
        more is answered as recorded.

        Args:
            fault: What goes wrong, such as `rate_limit(after=2)`.
            nth: Which exchange of the tape, from 1.

        Raises:
            TypeError: The fault is none that a provider can have.
            ValueError: There is no such exchange.
        """
        check_fault(fault)
        self._edits_of(self._number(nth)).faults.append(fault)

    def delay(self, duration: float | timedelta, *, nth: int | None = None) -> None:
        """Let answers come later.

        Args:
            duration: By how much, in seconds or as a timedelta.
            nth: Which exchange of the tape, from 1; all of them unless given.

        Raises:
            TypeError: It is no duration.
            ValueError: It is negative, or there is no such exchange.
        """
        late = seconds("duration", duration)
        if nth is None:
            self._delay += late
        else:
            self._edits_of(self._number(nth)).delay += late

    def ignore(self, *fields: str) -> None:
        """Let fields of a request's body not matter, nor what is below them.

        Args:
            fields: Such as "user", or "messages[*].name".

        Raises:
            TypeError: One is no text.
            ValueError: One is empty.
        """
        self._ignored = Ignored([*self._ignore, *fields])
        self._ignore += fields

    def redact(self, what: str | re.Pattern[str] | Cleaner) -> None:
        """Take something else out of what is recorded, and of what is compared.

        Args:
            what: A regular expression, or a function from text to text, which must
                leave alone what it has returned before.

        Raises:
            TypeError: It is neither.
        """
        self._redactor.add(what)

    def add_host(self, host: str) -> None:
        """Answer, or record, all requests to a host, whichever API they are for.

        Args:
            host: Such as "vectors.example", or "localhost:8080".

        Raises:
            ValueError: It is a URL, or empty.
        """
        if not isinstance(host, str) or not host or "/" in host or "@" in host:
            msg = f"host={host!r} must be a host such as 'vectors.example'"
            raise ValueError(msg)
        self._hosts.add(host.lower())

    def optional(self, *numbers: int) -> None:
        """Let it be no failure when exchanges are not asked for.

        Args:
            numbers: Which exchanges of the tape, from 1; all of them unless given.

        Raises:
            ValueError: There is no such exchange.
        """
        self._optional |= {self._number(one) for one in numbers}
        self._are_all_optional |= not numbers

    def _number(self, nth: int) -> int:
        number = check_count("nth", nth, minimum=1)
        if not self._records and number > len(self._slots):
            msg = (
                f"nth={nth}: the tape {self._shown_path} has {len(self._slots)} "
                "exchanges"
            )
            raise ValueError(msg)
        return number

    def _edits_of(self, number: int) -> Edits:
        return self._edits.setdefault(number, Edits())

    # --- what the transport asks -----------------------------------------------

    def serves(self, url: Any, /) -> bool:  # noqa: ANN401 - a URL of either library
        """Tell whether requests to a URL are answered here."""
        host = urlsplit(str(url)).netloc.rpartition("@")[2].lower()
        known = {*_PROVIDERS, *self._hosts, *(one.host for one in self.recordings)}
        return host in known or url.path.endswith(_ENDS)

    def begin(self, asking: Asking, /) -> TapeExchange:
        """Take a request that is to be answered."""
        self._redactor.learn(asking.headers, str(asking.url))
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in asking.headers
        ]
        request = WireRequest(
            number=len(self.requests) + 1,
            method=asking.method,
            url=self._redactor.url(str(asking.url)),
            headers={name: value for name, value in headers if name in _KEPT_HEADERS},
            body=asking.body,
            at=asking.at,
            path=path_here() or "",
            timeout=asking.timeout,
        )
        self.requests.append(request)
        return TapeExchange(self, request, asking.url.host, asking.url.port)

    def answer(
        self, request: WireRequest, host: str, port: int | None
    ) -> WireAnswer | Forward:
        """Return what a request is answered, or let it through to be recorded.

        Args:
            request: The request.
            host: Where it goes.
            port: At which port, None for the usual one.

        Raises:
            UnexpectedCall: It is not on the tape.
        """
        __tracebackhide__ = True
        with self._lock:
            asked = self._recording(request, {"after": 0.0, "ended": "silent"})
            known = self._slot_for(asked)
            if known is not None:
                return self._play(known, request)
            if not self._records:
                raise self._unexpected(self._miss(request, asked))
            slot = Slot()
            self._slots.append(slot)

        def done(caught: Caught) -> WireAnswer:
            with self._lock:
                return self._keep(slot, request, caught)

        def around() -> AbstractContextManager[object]:
            return nullcontext() if self._permit is None else self._permit(host, port)

        return Forward(done, around)

    def _recording(self, request: WireRequest, response: dict[str, Any]) -> Recording:
        return Recording(
            asked_by=self._redactor.text(request.path),
            method=request.method,
            url=request.url,
            body=body_of(request.body, self._redactor),
            response=response,
            answer=answer_of(response),
        )

    def _play(self, slot: Slot, request: WireRequest) -> WireAnswer:
        edits = self._edits.get(self._slots.index(slot) + 1, Edits())
        try:
            answer = slot.answer(request, edits, self._speed)
        except ValueError as error:
            raise self._unexpected(str(error)) from None
        return answer.delayed(self._delay) if self._delay else answer

    def _keep(self, slot: Slot, request: WireRequest, caught: Caught) -> WireAnswer:
        """Take down what the real server answered, and return it as it will be played.

        Raises:
            UnexpectedCall: It cannot be put on a tape.
        """
        try:
            recording = self._recording(request, response_of(caught, self._redactor))
        except TapeError as error:
            self._slots.remove(slot)
            msg = f"{_title(request)} cannot be recorded: {error}"
            raise self._unexpected(msg) from None
        except BaseException:
            self._slots.remove(slot)
            raise
        failed = _failure_of(caught)
        if failed and not self._keep_errors:
            self._slots.remove(slot)
            self._left_out.append((recording, failed))
            return recording.answer
        slot.recording = recording
        self._sdk |= sdk_of(request.headers.get("user-agent", ""))
        self._is_changed = True
        return self._play(slot, request)

    # --- what fits -------------------------------------------------------------

    def _slot_for(self, asked: Recording) -> Slot | None:
        """Return the first recording that is as what is asked, and not used up."""
        free = [slot for slot in self._slots if slot.is_free]
        return next(
            (one for one in free if not list(self._differences(one.recording, asked))),
            None,
        )

    def _differences(
        self, recorded: Recording | None, asked: Recording
    ) -> Iterable[Difference]:
        if recorded is None:
            yield Difference("the recording", None, None)
            return
        if recorded.method != asked.method:
            yield Difference("the method", recorded.method, asked.method)
        if recorded.path != asked.path:
            yield Difference("the path", recorded.path, asked.path)
        if recorded.host != asked.host and self._knows_host(asked.host):
            yield Difference("the host", recorded.host, asked.host)
        yield from differences(recorded.body, asked.body, self._ignored)

    def _knows_host(self, host: str) -> bool:
        """Tell whether a host has recordings of its own, so that others' are not its.

        While recording every host has.
        """
        return self._records or any(one.host == host for one in self.recordings)

    # --- what went wrong --------------------------------------------------------

    @property
    def _shown_path(self) -> str:
        try:
            return str(self.path.relative_to(Path.cwd()))
        except ValueError:
            return str(self.path)

    def _unexpected(self, text: str) -> UnexpectedCall:
        """Return an error that nothing swallows, and keep it as well."""
        if text not in self._problems:
            self._problems.append(text)
        return UnexpectedCall(text)

    def _miss(self, request: WireRequest, asked: Recording) -> str:
        title = f"{_title(request)} is not on the tape {self._shown_path}"
        lines = [f"{title} (at {request.at:g} s on the clock)"]
        if not self._exists:
            lines.append("  there is no such file; record it with --tta-record=once")
            return "\n".join(lines)
        near = self._nearest(asked)
        if near is None:
            lines.append("  nothing is recorded on it")
        else:
            lines += self._comparison(*near)
        lines += self._other_versions(sdk_of(request.headers.get("user-agent", "")))
        hint = "record what is missing with --tta-record=new, or all of it with "
        return "\n".join([*lines, f"  {hint}--tta-record=all"])

    def _nearest(self, asked: Recording) -> tuple[int, list[Difference]] | None:
        """Return the recording that differs least, an unused one of equals."""
        known = [
            (number, slot, list(self._differences(slot.recording, asked)))
            for number, slot in enumerate(self._slots, start=1)
        ]
        known.sort(key=lambda one: (len(one[2]), not one[1].is_free))
        return (known[0][0], known[0][2]) if known else None

    def _comparison(self, number: int, found: list[Difference]) -> list[str]:
        recording: Any = self._slots[number - 1].recording
        by = f", asked by {recording.asked_by!r}" if recording.asked_by else ""
        lines = [f"  nearest: exchange {number}, {recording}{by}"]
        if not found:
            why = "it is the same, and was used already; repeat: always answers again"
            lines.append(f"    {why}")
        lines += [f"    {one}" for one in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"    and {len(found) - _SHOWN} more")
        return lines

    def _other_versions(self, now: dict[str, str]) -> list[str]:
        changed = [
            f"{name} {self._sdk[name]}, now {now[name]}"
            for name in self._sdk
            if name in now and now[name] != self._sdk[name]
        ]
        return [f"  recorded with {', '.join(changed)}"] if changed else []

    def verify(self) -> list[str]:
        """Return what went wrong: requests that are not on it, what is left over."""
        found = list(self._problems)
        for recording, why in self._left_out:
            if self._is_on_tape(recording):
                continue
            found.append(
                f"{recording} was answered with {why}, which is not put on the tape, "
                "and nothing better came for it; keep it with --tta-record-errors"
            )
        return [*found, *self._left_over(), *self._unused_edits()]

    def _is_on_tape(self, asked: Recording) -> bool:
        return any(not list(self._differences(one, asked)) for one in self.recordings)

    def _left_over(self) -> list[str]:
        # What is missing can only be added if what is there may stay; and of two
        # complaints about one request the first is enough.
        if self.mode == "new" or self._are_all_optional or self._problems:
            return []
        return [
            f"exchange {number} of the tape {self._shown_path} was not asked for: "
            f"{slot.recording}{_by(slot.recording)}; record anew with "
            f"--tta-record=all, or write tape.optional({number})"
            for number, slot in enumerate(self._slots, start=1)
            if slot.is_unused
            and number not in self._optional
            and not (slot.recording is not None and slot.recording.is_optional)
        ]

    def _unused_edits(self) -> list[str]:
        struck = dict(enumerate((slot.struck for slot in self._slots), start=1))
        return [
            f"{fault!r} for exchange {number} of the tape {self._shown_path} did not "
            "happen: it was not asked for often enough"
            for number, edits in sorted(self._edits.items())
            for fault in edits.faults[struck.get(number, 0) :]
        ]

    # --- the file ---------------------------------------------------------------

    def save(self) -> None:
        """Write what was recorded, if anything was.

        Raises:
            TapeError: A key would get into the file.
        """
        if not self._is_changed:
            return
        data: Any = file_of(self.recordings, self._sdk)
        text = files.text_of(data, self.path)
        if self._redactor.leaks(text):
            place = self._redactor.leak_in(data) or "it is spread over several fields"
            msg = (
                f"{self._shown_path} is not written, because a key that was sent is "
                f"still in it, at {place}; take it out with tape.redact(...)"
            )
            raise TapeError(msg)
        if self._redactor.leaks(str(self.path)):
            msg = "the tape is not written, because its file's name has a key in it"
            raise TapeError(msg)
        files.write(self.path, text)
        self._is_changed = False

    def __repr__(self) -> str:
        return (
            f"<Tape {self._shown_path} mode={self.mode!r} "
            f"exchanges={len(self.recordings)} requests={len(self.requests)}>"
        )


class TapeExchange:
    """One request to a tape.

    Args:
        tape: The tape.
        request: The request.
        host: Where it goes.
        port: At which port, None for the usual one.
    """

    def __init__(
        self, tape: Tape, request: WireRequest, host: str, port: int | None
    ) -> None:
        self._tape = tape
        self._request = request
        self._host = host
        self._port = port

    def answer(self) -> WireAnswer | Forward:
        """Return what is recorded, or let the request through.

        Raises:
            UnexpectedCall: It is not on the tape.
        """
        __tracebackhide__ = True
        return self._tape.answer(self._request, self._host, self._port)

    def began(self) -> None:
        """Do nothing: the recording knows."""

    def ended(self, how: str, /) -> None:
        """Do nothing: the recording knows."""

    def closed(self, at: float, /) -> None:
        """Do nothing: the recording knows."""


def _title(request: WireRequest) -> str:
    by = f" of {request.path!r}" if request.path else ""
    return f"request {request.number}{by}, {request.method} {request.url},"


def _by(recording: Recording | None) -> str:
    by = "" if recording is None else recording.asked_by
    return f", asked by {by!r}" if by else ""


def _failure_of(caught: Caught) -> str:
    """Return in which way an exchange was no success, "" if it was one."""
    if caught.error is not None:
        return type(caught.error).__name__
    is_good = caught.status is not None and caught.status // 100 == 2  # noqa: PLR2004 - 2xx
    return "" if is_good else str(caught.status)
