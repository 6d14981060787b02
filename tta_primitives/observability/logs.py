"""Structured logs: one line for each record, with where it happened and no secrets.

It works for the `logging` of the standard library and for structlog. Whatever a record
holds, its line is written, and nothing is raised into the app.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from tta_primitives.arguments import check_choice
from tta_primitives.door import add_observer, remove_observer
from tta_primitives.extras import needs
from tta_primitives.observability.failures import RunLog, described
from tta_primitives.observability.redaction import Redactor, printed
from tta_primitives.observability.whereabouts import whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

__all__ = ["LineFormatter", "Logs", "start"]

LogFormat: TypeAlias = Literal["json", "console"]

_OF_RECORDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName", "_logger", "_name", "_from_structlog", "_record",
    # uvicorn's own message once more, with colours.
    "color_message",
}  # fmt: skip
# What a record says itself; an extra of that name gets another one.
_FIXED: Final = frozenset({"timestamp", "level", "logger", "message", "service"})


class LineFormatter(logging.Formatter):
    """Makes one line of a record, of the standard library or of structlog.

    Args:
        service_name: Of the service.
        render: Makes a line of the fields.
        redact: Takes secrets out of messages, fields and errors.
    """

    def __init__(
        self,
        service_name: str,
        render: Callable[[dict[str, Any]], str],
        redact: Redactor,
    ) -> None:
        super().__init__()
        self._service = service_name
        self._render = render
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; one that says less if the record can not be told."""
        try:
            return self._render(self.fields(record))
        except Exception as error:  # noqa: BLE001 - a log line must not break a request
            return json.dumps(
                {
                    "timestamp": _timestamp(record),
                    "level": record.levelname.lower(),
                    "logger": record.name,
                    "message": "a record that can not be told",
                    "service": self._service,
                    "log_error": type(error).__name__,
                }
            )

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what a record says, without secrets."""
        event, error, stack = _taken_apart(record)
        message = event.pop("event", "")
        found: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact.text(printed(message)),
            "service": self._service,
            **self._redact(whereabouts()),
        }
        exception = event.pop("exception", None)
        for name, value in self._redact(event).items():
            found[f"{name}_" if name in _FIXED else name] = value
        if error is not None:
            exception = described(error, self._redact)
        elif exception is not None:
            exception = self._redact(exception)
        if exception is not None:
            found["exception"] = exception
        if stack:
            found["stack"] = self._redact(stack)
        return found


def _taken_apart(
    record: logging.LogRecord,
) -> tuple[dict[str, Any], BaseException | None, Any]:
    """Return message and extras, the error, and the stack of a record."""
    if isinstance(record.msg, dict) and hasattr(record, "_logger"):
        event = {str(name): value for name, value in record.msg.items()}
        event.pop("level", None)
        given, stack = event.pop("exc_info", None), event.pop("stack", None)
    else:
        event = {
            name: value
            for name, value in vars(record).items()
            if name not in _OF_RECORDS
        }
        event["event"] = _message(record)
        given, stack = record.exc_info, record.stack_info
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) and len(given) > 1 else given
    return event, error if isinstance(error, BaseException) else None, stack


def _message(record: logging.LogRecord) -> str:
    """Return the message; as it was given where its arguments do not fit."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - wrong arguments, or one that can not be printed
        return printed(record.msg)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(fields: dict[str, Any]) -> str:
    """Return fields as one line of JSON that every reader takes."""
    try:
        return _encode(fields)
    except ValueError:
        return _encode(_finite(fields))


_encode = json.JSONEncoder(allow_nan=False).encode


def _finite(value: Any) -> Any:  # noqa: ANN401 - plain data
    """Return data in which numbers that JSON does not have are texts."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def for_console(colors: bool) -> Callable[[dict[str, Any]], str]:  # noqa: FBT001 - one caller
    """Return what makes a line for people of fields."""
    with needs("structlog", 'log_format="console"'):
        from structlog.dev import ConsoleRenderer, plain_traceback

    renderer = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)

    def render(fields: dict[str, Any]) -> str:
        event = dict(fields)
        event["event"] = event.pop("message")
        del event["service"]
        exception = event.pop("exception", None)
        if isinstance(exception, dict):
            text = exception.get("traceback") or exception.get("message")
            event["exception"] = printed(text)
        elif exception is not None:
            event["exception"] = printed(exception)
        return str(renderer(None, event["level"], event))

    return render


class _Terminal(logging.Handler):
    """Writes lines to stderr, or to a stream that was given; never raises.

    Args:
        stream: Where to; None for what `sys.stderr` is at that moment.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless a handler further down has written the record."""
        try:
            if _is_written_below(record.name):
                return
            stream = self._stream or sys.stderr
            # At once, so that lines of several processes do not mix.
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - a closed stderr must not break a request
            pass

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of logging
        """Do not write about it where it could not be written."""


def _is_written_below(name: str) -> bool:
    """Tell whether a logger below the root writes to the terminal itself."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger.parent is not None:
        if any(map(_is_terminal, logger.handlers)):
            return True
        logger = logger.parent
    return False


def _is_terminal(handler: logging.Handler) -> bool:
    if isinstance(handler, logging.FileHandler):
        return False
    stream = getattr(handler, "stream", None)
    terminals = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return stream is not None and any(stream is one for one in terminals)


class Logs:
    """Logging as it was set up, until `shutdown` puts it back."""

    def __init__(
        self, formatter: LineFormatter, redact: Redactor, stream: TextIO | None
    ) -> None:
        self._handler = _Terminal(stream)
        self._handler.setFormatter(formatter)
        self._observer = RunLog(redact)
        self._replaced: list[logging.Handler] = []
        self._level: int | None = None
        self._has_structlog = False
        self._is_running = False

    def start(self, level: int | None) -> None:
        """Take the place of what writes to the terminal, and follow runs."""
        root = logging.getLogger()
        self._replaced = [one for one in root.handlers if _is_terminal(one)]
        if level is None and not root.handlers and root.level == logging.WARNING:
            # Nobody has set up anything: then it is not set to hide what is usual.
            level = logging.INFO
        if level is not None:
            self._level = root.level
            root.setLevel(level)
        for one in self._replaced:
            root.removeHandler(one)
        root.addHandler(self._handler)
        self._has_structlog = _configure_structlog()
        add_observer(self._observer)
        self._is_running = True

    def shutdown(self, timeout: float = 2.0) -> None:  # noqa: ARG002 - as all parts have it
        """Put logging back as it was; it never raises.

        Args:
            timeout: Nothing is waited for.
        """
        if not self._is_running:
            return
        self._is_running = False
        remove_observer(self._observer)
        root = logging.getLogger()
        was_there = self._handler in root.handlers
        root.removeHandler(self._handler)
        for one in self._replaced if was_there else ():
            if one not in root.handlers:
                root.addHandler(one)
        if self._level is not None:
            root.setLevel(self._level)
        if self._has_structlog:
            import structlog

            structlog.reset_defaults()


def _configure_structlog() -> bool:
    """Let structlog write through `logging`, unless the app has set it up."""
    if find_spec("structlog") is None:
        return False
    import structlog

    if structlog.is_configured():
        return False
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return True


_lock = RLock()
_current: Logs | None = None


def start(
    service_name: str,
    *,
    log_format: LogFormat,
    redact: Redactor | None = None,
    stream: TextIO | None = None,
    level: int | None = None,
) -> Logs:
    """Write what the app logs as structured lines.

    A handler of the root logger that writes to the terminal gives way until
    `shutdown`; all others stay. To start again ends what was started before.

    Args:
        service_name: Of the service.
        log_format: `"json"` for machines, or `"console"` for people.
        redact: Takes secrets out of all lines.
        stream: Where lines are written; None for stderr.
        level: Of the root logger; None to leave it, or INFO if nobody has set up
            logging.

    Raises:
        ModuleNotFoundError: `"console"` needs structlog, which is not installed.
        ValueError: `log_format` is another one.
    """
    global _current  # noqa: PLW0603 - one for the process
    check_choice("log_format", log_format, ("json", "console"))
    redact = redact or Redactor()
    render: Callable[[dict[str, Any]], str] = as_json
    if log_format == "console":
        render = for_console(_has_colors(stream or sys.stderr))
    formatter = LineFormatter(redact.text(service_name), render, redact)
    with _lock:
        if _current is not None:
            _current.shutdown()
        _current = Logs(formatter, redact, stream)
        _current.start(level)
        return _current


def _has_colors(stream: TextIO | None) -> bool:
    try:
        is_terminal = stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False
    return is_terminal and not os.environ.get("NO_COLOR")
