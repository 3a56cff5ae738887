"""The Celery application: `celery -A indexer.worker worker`, `celery -A indexer.worker beat`."""

from typing import Any

from celery.signals import beat_init, worker_process_init, worker_ready

from indexer import collector, fallback, supervision, waiting_work
from indexer.rebuild import lost_index
from infra import logs, queue, settings
from infra.index import generations

SETTINGS = settings.load()
logs.configure(SETTINGS.log_level)

app = queue.celery(SETTINGS)


def _every(seconds: float, task: str, queue_name: str) -> dict[str, Any]:
    options = {"queue": queue_name, "expires": queue.EXPIRES_SECONDS}
    return {"task": task, "schedule": seconds, "options": options}


app.conf.update(
    imports=["indexer.tasks"],
    beat_schedule={
        # Seconds. `waiting_work.py` wakes waiting work sooner. The drains also show that workers are active
        # (`fallback.py`).
        "drain": _every(1.0, queue.DRAIN, queue.LIVE),
        "drain_bulk": _every(1.0, queue.DRAIN_BULK, queue.BULK),
        "upkeep": _every(5.0, queue.UPKEEP, queue.BULK),
        "compare": _every(10.0, queue.COMPARE, queue.REBUILD),
        "watch": _every(5.0, queue.WATCH, queue.REBUILD),
        "purge": _every(30.0, queue.PURGE, queue.BULK),
        "build": _every(10.0, queue.BUILD, queue.REBUILD),
    },
    beat_max_loop_interval=1,
    beat_scheduler="indexer.scheduler:SleepingScheduler",
)


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _tune(**_: Any) -> None:
    collector.tune_gc()


@beat_init.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _start_beat_threads(**_: Any) -> None:
    collector.tune_gc()
    fallback.start(SETTINGS)
    lost_index.start(SETTINGS)
    waiting_work.start(SETTINGS)


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _start_worker_threads(**_: Any) -> None:
    supervision.start(SETTINGS, list(app.amqp.queues.consume_from))
    generations.warn_if_mapping_differs(SETTINGS)
