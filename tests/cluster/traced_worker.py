"""A worker whose log has each task: served, or revoked because it expired."""

from typing import Any

import structlog
from celery.signals import task_revoked, task_success

from indexer.worker import app as app  # noqa: PLC0414 (the command looks for it here)

log = structlog.get_logger()


@task_success.connect  # type: ignore[untyped-decorator]
def _served(sender: Any, **_: Any) -> None:
    log.info("task_served", task=sender.name)


@task_revoked.connect  # type: ignore[untyped-decorator]
def _revoked(request: Any, **_: Any) -> None:
    log.info("task_revoked", task=request.task)
