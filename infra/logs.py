"""One line of JSON an event, on standard error.

No line holds a key, an e-mail address or a phone number. The messages of exceptions would: PostgreSQL quotes the row
that breaks a rule, OpenSearch the value it cannot read. So of a failure only its kind and its place are written.
"""

import json
import logging
import sys
import traceback
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger


def configure(level: str) -> None:
    """Set up structlog; called once a process.

    Args:
        level: the least severe level that is written.
    """
    # A line for every request it sends.
    logging.getLogger("opensearch").setLevel(logging.WARNING)
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


def error_kind(error: BaseException) -> str:
    """What went wrong, without what it was about: the exception's type, and PostgreSQL's code and constraint."""
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
    except UnicodeEncodeError:  # half of a surrogate pair, as in a file's name: the line must not be lost for that
        return json.dumps(event, **options).encode()


def _exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Render `exc_info`, an exception, as its kind and the calls that led there; likewise what caused it."""
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
