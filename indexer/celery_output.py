"""Keep Celery from writing anything but log lines.

Celery configures no logging where the signal `setup_logging` has a receiver: its lines then reach the root logger, like
those of all libraries (`infra/logs.py`). LOG_LEVEL decides about them, and `--loglevel` has no effect. The banners and
the words at a stop are written to the terminal directly.
"""

from typing import Any

import celery.apps.worker
from celery import Celery
from celery.apps.beat import Beat
from celery.signals import celeryd_init, setup_logging

from infra import logs


class QuietBeat(Beat):  # type: ignore[misc]  # Celery ships no types
    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"quiet": True})


def log_only(app: Celery) -> None:
    """Have the worker and beat of an application write log lines only."""
    setup_logging.connect(_keep_configuration, weak=False)
    celeryd_init.connect(_omit_banner, weak=False)
    app.Beat = app.subclass_with_self(QuietBeat)
    celery.apps.worker.safe_say = _say


def _keep_configuration(**_: Any) -> None:
    """Do nothing: the logging is configured."""


def _omit_banner(instance: Any, **_: Any) -> None:
    instance.quiet = True


def _say(message: str, *_: Any) -> None:
    """Write what Celery says in a handler of signals."""
    logs.write_from_signal_handler("worker_stops", message=message)
