"""The Celery application: `celery -A indexer.worker worker`, `celery -A indexer.worker beat`."""

from functools import partial
from typing import Any

import structlog
from celery.signals import beat_init, worker_process_init, worker_ready

from indexer import celery_output, collector, fallback, liveness, supervision, waiting_work
from indexer.chores import SCHEDULE
from indexer.rebuild import lost_index
from infra import logs, queue, redis_client, settings
from infra.database import activity, installation
from infra.index import generations, isolation, ownership

log = structlog.get_logger()
logs.configure("info")
try:
    SETTINGS = settings.load()
    logs.configure(SETTINGS.log_level)
    # The keys in Redis begin with the id of the installation, which is in the database.
    installation.wait_for_id(SETTINGS, meanwhile=partial(liveness.touch, SETTINGS.liveness_file))
    ownership.refuse_foreign_index(SETTINGS)
    redis_client.refuse_cluster(SETTINGS)
    app = queue.celery(SETTINGS)
except (settings.SettingsError, installation.InstallationMissing, ownership.ForeignIndexError) as error:
    logs.exit_after(error)
celery_output.log_only(app)
liveness.watch_pool(app, SETTINGS.liveness_file)

app.conf.update(
    imports=["indexer.tasks"],
    beat_schedule={
        # Seconds. `waiting_work.py` wakes waiting work sooner. The drains also show that workers are active
        # (`fallback.py`). The drain of the lane `live` starts once, and follows the lane.
        "drain": {"task": queue.DRAIN, "schedule": activity.PERIODIC_DRAIN_SECONDS[queue.LIVE]},
        "drain_bulk": {"task": queue.DRAIN_BULK, "schedule": activity.PERIODIC_DRAIN_SECONDS[queue.BULK]},
        "compare": {"task": queue.COMPARE, "schedule": 30.0},
        "build": {"task": queue.BUILD, "schedule": 30.0},
    }
    | {task: {"task": task, "schedule": seconds} for task, seconds in SCHEDULE.items()},
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
    isolation.Watch(SETTINGS).start()
    liveness.start(SETTINGS.liveness_file)
    generations.warn_of_differences(SETTINGS)
    log.info("beat_started")


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _start_worker_threads(**_: Any) -> None:
    queues = list(app.amqp.queues.consume_from)
    supervision.start(SETTINGS, queues)
    generations.warn_of_differences(SETTINGS)
    log.info("worker_started", queues=queues)
