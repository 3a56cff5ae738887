"""Wake-ups for the indexer. They carry nothing: every one may be lost, and beat sends one each second as well."""

from celery import Celery
from kombu.entity import Exchange, Queue
from redis import Redis

from infra.settings import Settings

LIVE, BULK, REBUILD = "live", "bulk", "rebuild"
"""Queues: what people wait for, and what they do not. The first two are named as the outbox's lanes."""
DRAIN, DRAIN_BULK = "indexer.drain", "indexer.drain_bulk"
UPKEEP, PURGE = "indexer.upkeep", "indexer.purge"
BUILD = "indexer.build"
VERIFY, REPAIR, REINDEX = "indexer.verify", "indexer.repair", "indexer.reindex"
"""Ask for a run. `COMPARE` goes on with those that were asked for, `WATCH` with the one that never ends."""
COMPARE, WATCH = "indexer.compare", "indexer.watch"

# While the mark stands, a wake-up is on its way, so no second is sent. The drain removes it before it looks for
# work, so a change that found the mark is seen by that drain. It goes by itself should the wake-up be lost.
MARK, MARK_SECONDS = "indexer:nudged", 2

TASK_LIMIT_SECONDS = 90
BUILD_LIMIT_SECONDS = 600
"""The longest step of a rebuild divides the table, in one statement."""
EXPIRES_SECONDS = 5
"""Wake-ups that come each second, or from each other, do not pile up."""
KEY_TYPES = {
    LIVE: b"list",
    BULK: b"list",
    REBUILD: b"list",
    "unacked": b"hash",
    "unacked_index": b"zset",
    MARK: b"string",
}
"""What is kept in Redis, by us and by Celery for us."""


def celery(settings: Settings) -> Celery:
    """The Celery application, as senders and workers both need it."""
    app = Celery("indexer", broker=settings.redis_url)
    app.conf.update(
        # Through the nameless exchange a message goes straight to the list of its queue's name: nothing that
        # FLUSHALL could remove has to be there first.
        task_queues=[_queue(name) for name in (LIVE, BULK, REBUILD)],
        task_default_queue=LIVE,
        task_default_exchange="",
        task_default_routing_key=LIVE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # A task that hangs, whatever in, is ended with its process; another takes the rows.
        task_time_limit=TASK_LIMIT_SECONDS,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # Longer than any task runs, and the same everywhere.
            "visibility_timeout": 3600,
            "socket_timeout": 15,
            "socket_connect_timeout": 2,
            "health_check_interval": 10,
        },
    )
    return app


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]  # kombu is partly typed


def delete_wrongly_typed_keys(redis: Redis) -> list[str]:
    """Remove keys of ours that hold something else, over which a worker would stumble for ever; give their names.

    Raises:
        RedisError: Redis is away.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for name in KEY_TYPES:
            pipeline.type(name)
        found = pipeline.execute()
    wrong = [
        name for (name, expected), kind in zip(KEY_TYPES.items(), found, strict=True) if kind not in {expected, b"none"}
    ]
    if wrong:
        redis.delete(*wrong)
    return wrong


class TaskQueue:
    """Wakes the indexer after a commit; never raises, and waits for Redis 50 ms at the most."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Redis.from_url(settings.redis_url, socket_timeout=0.05, socket_connect_timeout=0.05, retry=None)
        self._celery = celery(settings)
        self._celery.conf.broker_transport_options |= {"socket_timeout": 0.05, "socket_connect_timeout": 0.05}

    def wake_drain(self) -> bool:
        """Send one wake-up unless one is on its way; False if Redis could not be reached."""
        try:
            if self._redis.set(MARK, "1", nx=True, ex=MARK_SECONDS):
                self._celery.send_task(DRAIN, queue=LIVE, expires=60)
        except Exception:  # noqa: BLE001 (whatever Redis and its client do, a lost wake-up must not fail a write)
            return False
        return True

    def send(self, task: str, name: str) -> bool:
        """Send a task without arguments to a queue; False if Redis could not be reached."""
        try:
            self._celery.send_task(task, queue=name, expires=EXPIRES_SECONDS)
        except Exception:  # noqa: BLE001 (as above: what was asked for is a row, and beat sends the task each second)
            return False
        return True

    def close(self) -> None:
        self._redis.close()
        self._celery.close()
