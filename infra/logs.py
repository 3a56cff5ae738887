"""Structured logs: one line of JSON per event, on standard error.

No line contains a key, an e-mail address or a phone number. Messages of exceptions would: PostgreSQL quotes the row
with the violation, OpenSearch the invalid value. So only the kind and the stack of an exception are logged.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger


def configure(level: str) -> None:
    """Configure structlog, once per process.

    Args:
        level: the least severe level to log.
    """
    # The client logs every request at level info.
    logging.getLogger("opensearch").setLevel(logging.WARNING)
    server = logging.getLogger("uvicorn")
    server.handlers, server.propagate = [_Structured()], False
    server.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception,
            structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


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
    """Logs the lines of the HTTP server as the others."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, "http_server", message=record.getMessage(), exc_info=_error(record))


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


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
