"""One line of JSON an event, on standard error."""

import logging
import sys

import structlog


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
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
