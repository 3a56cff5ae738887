"""The Celery application: `celery -A indexer.worker worker`, `celery -A indexer.worker beat`."""

from infra import logs, queue, settings

SETTINGS = settings.load()
logs.configure(SETTINGS.log_level)

app = queue.celery(SETTINGS)
app.conf.update(
    imports=["indexer.tasks"],
    beat_schedule={
        # What no wake-up told of is found this soon.
        "drain": {"task": queue.DRAIN, "schedule": 1.0, "options": {"queue": queue.LIVE, "expires": 5}},
        "upkeep": {"task": queue.UPKEEP, "schedule": 5.0, "options": {"queue": queue.LIVE, "expires": 5}},
    },
    beat_max_loop_interval=1,
)
