"""Structured logs: one line of JSON per event, on standard error.

The lines of libraries, warnings and uncaught exceptions are logged in the same way. Repeated warnings and errors are
counted (`repeated_lines.py`).

No line contains a key, an e-mail address or a phone number. Messages of exceptions would: PostgreSQL quotes the row
with the violation, OpenSearch the invalid value. So only the kind and the stack of an exception are logged.
"""

import atexit
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NoReturn

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from infra.repeated_lines import Repetitions

QUIET = ("opensearch", "celery", "kombu", "alembic")
"""Libraries that log each request, task or message at level info."""
SERVER = "uvicorn"
TRACE = "Traceback (most recent call last)"
"""The begin of a message that is a stack trace, of which only the last line is logged."""
MAX_MESSAGE = 1000
"""Characters of a library's message."""


def configure(level: str) -> None:
    """Configure structlog and the logging of libraries, once per process.

    Args:
        level: the least severe level to log.
    """
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    root = logging.getLogger()
    # At the level debug, libraries log what they send.
    root.setLevel(max(logging.INFO, logging.getLevelName(level.upper())))
    if not any(isinstance(handler, _Structured) for handler in root.handlers):
        root.addHandler(_Structured())
    logging.captureWarnings(capture=True)
    sys.excepthook, threading.excepthook, sys.unraisablehook = _log_uncaught, _log_end_of_thread, _log_unraisable
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _exception,
            _repetitions,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def write_from_signal_handler(event: str, **fields: Any) -> None:
    """Write a line without a lock, which the interrupted thread may hold."""
    line = {**fields, "event": event, "level": "info", "timestamp": datetime.now(UTC).isoformat()}
    os.write(sys.stderr.fileno(), _json(line) + b"\n")


def exit_after(error: Exception) -> NoReturn:
    """Log an error that prevents the start, and exit with status 1. The message is for operators."""
    structlog.get_logger().critical("start_failed", reason=str(error))
    raise SystemExit(1) from error


@contextmanager
def discarded() -> Iterator[None]:
    """Discard all log lines, because the output of a command is for its result."""
    configuration = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**configuration)


class _Structured(logging.Handler):
    """Logs the lines of libraries as the others."""

    def emit(self, record: logging.LogRecord) -> None:
        event = "http_server" if record.name.startswith(SERVER) else "library"
        structlog.get_logger().log(
            record.levelno,
            event,
            source=f"{record.name}:{record.lineno}",
            message=_message(record),
            exc_info=record.exc_info[1] if record.exc_info else None,
        )


def _message(record: logging.LogRecord) -> str:
    """Return the text of a line. With an exception, values are left out, because they may quote the exception."""
    if record.exc_info and (error := record.exc_info[1]):
        text = str(record.msg)
        if quoted := str(error):
            text = text.replace(quoted, error_kind(error))
        return text.partition("\n")[0][:MAX_MESSAGE]
    text = record.getMessage().strip()
    return (text.rpartition("\n")[2] if text.startswith(TRACE) else text)[:MAX_MESSAGE]


def _log_uncaught(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    if not isinstance(error, KeyboardInterrupt):
        structlog.get_logger().critical("process_failed", exc_info=error)


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    if end.exc_type is not SystemExit:
        name = end.thread.name if end.thread else None
        structlog.get_logger().critical("thread_failed", thread=name, exc_info=end.exc_value)


def _log_unraisable(failure: "sys.UnraisableHookArgs") -> None:
    structlog.get_logger().error("exception_ignored", message=failure.err_msg, exc_info=failure.exc_value)


def error_kind(error: BaseException) -> str:
    """Return the kind of an error, without personal data.

    Returns:
        The type of the exception, PostgreSQL's error code and constraint, and the HTTP status, as far as known.
    """
    original = getattr(error, "orig", None) or error
    diagnosis = getattr(original, "diag", None)
    parts = (
        type(original).__name__,
        getattr(original, "sqlstate", None),
        getattr(diagnosis, "constraint_name", None),
        getattr(original, "status_code", None),
    )
    return " ".join(str(part) for part in parts if part)


def _json(event: EventDict, **options: Any) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr)
    except UnicodeEncodeError:  # a lone surrogate, as in a file name with invalid UTF-8: the line must not be lost
        return json.dumps(event, **options).encode()


def _exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace the exception in `exc_info`, and its causes, by kinds and stacks."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    causes = []
    while error is not None:
        calls = traceback.extract_tb(error.__traceback__)
        causes.append(
            {"kind": error_kind(error), "calls": [f"{call.filename}:{call.lineno} {call.name}" for call in calls]}
        )
        error = error.__cause__ or error.__context__
    if causes:
        event["exception"] = causes
    return event


def _write_count(fields: dict[str, Any]) -> None:
    structlog.get_logger().log(logging.getLevelName(fields.pop("level").upper()), fields.pop("event"), **fields)


_repetitions = Repetitions(_write_count)
os.register_at_fork(after_in_child=_repetitions.forget)
atexit.register(_repetitions.end_period)
