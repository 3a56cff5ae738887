"""The Celery queue between API and indexer.

Messages are wake-ups without data: the work itself is in the database. Any message may be lost, because beat looks for
waiting work all the time and sends the wake-up again.
"""

from contextlib import suppress
from functools import cached_property
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from redis import Redis
from redis.exceptions import NoPermissionError

from infra.database import installation
from infra.redis_client import Server, broker_url, open_redis, server_of
from infra.settings import Settings

LIVE, BULK, REBUILD = "live", "bulk", "rebuild"
"""Names of the queues: keys in Redis, after the prefix. `live` and `bulk` are lanes of the outbox too; clients wait for
the changes of `live` only."""
DRAIN, DRAIN_BULK = "indexer.drain", "indexer.drain_bulk"
UPKEEP, PURGE, ERASE, MEASURE = "indexer.upkeep", "indexer.purge", "indexer.erase", "indexer.measure"
BUILD = "indexer.build"
VERIFY, REPAIR, REINDEX = "indexer.verify", "indexer.repair", "indexer.reindex"
"""Tasks to request a run. `COMPARE` continues requested runs, `WATCH` the endless verification."""
RETRY_PARKED = "indexer.retry_parked"
COMPARE, WATCH = "indexer.compare", "indexer.watch"
EXPORT, EXPIRE = "indexer.export", "indexer.expire_exports"

QUEUES = {DRAIN: LIVE} | dict.fromkeys((DRAIN_BULK, UPKEEP, PURGE, ERASE, MEASURE, EXPORT, EXPIRE), BULK)
QUEUES |= dict.fromkeys((BUILD, COMPARE, WATCH), REBUILD)
"""The queue of each wake-up."""

DRAIN_MARK_SECONDS, MARK_SECONDS = 2, 15
"""Redis deletes a mark after this time, so a lost wake-up is sent again. Drains are urgent. The other time is longer
than a wake-up waits while every process of the worker is busy."""
MAX_WAITING = 10
"""A queue with this number of messages gets no wake-up, so wake-ups do not accumulate while a worker is absent."""

BELL = "bell"
"""Channel in Redis, after the prefix, which the worker of the lane `live` listens to while it follows the outbox."""
ROUNDS = "rounds"
"""Channel in Redis, after the prefix, in which the worker of the lane `live` announces the end of each round."""
NOW, SOON = b"now", b"soon"
"""Messages of the bell: a client waits until the change is searchable, or no client waits."""

WAIT_SECONDS = 0.05
"""How long a sender waits for Redis."""
TASK_LIMIT_SECONDS = 90
BUILD_LIMIT_SECONDS = 600
"""Time limit of a step of a rebuild. The longest step divides the table into slices, in a single statement."""


def mark(task: str) -> str:
    """Return the key, after the prefix, which is set while a wake-up of a task waits, to omit further wake-ups.

    The task deletes the mark before its work, so the work includes every change with an omitted wake-up. Marks and
    `MAX_WAITING` limit the messages without comparing the clocks of two machines.
    """
    return f"{task}:waiting"


KEY_TYPES = {
    **dict.fromkeys((LIVE, BULK, REBUILD), b"list"),
    "unacked": b"hash",
    "unacked_index": b"zset",
    **{mark(task): b"string" for task in QUEUES},
}
"""Redis keys of this service and of Celery, after the prefix, with their types."""


def key_prefix(settings: Settings) -> str:
    """Return the beginning of every key in Redis.

    Raises:
        InstallationMissing, DBAPIError: see `installation.id_of`.
    """
    return installation.key_prefix(settings.index_prefix, installation.id_of(settings))


def celery(settings: Settings) -> Celery:
    """Make the Celery application for senders and workers.

    Raises:
        InstallationMissing, DBAPIError: see `installation.id_of`.
    """
    server = server_of(settings)
    app = Celery("indexer", broker=broker_url(server))
    app.conf.update(
        # The nameless exchange delivers a message to the list with the name of the queue. No further key has to exist
        # in Redis, so FLUSHALL removes nothing essential.
        task_queues=[_queue(name) for name in (LIVE, BULK, REBUILD)],
        task_default_queue=LIVE,
        task_default_exchange="",
        task_default_routing_key=LIVE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # Celery kills the process of a hanging task. A different process takes the rows.
        task_time_limit=TASK_LIMIT_SECONDS,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        # Otherwise everybody with access to Redis could stop a worker or revoke tasks by a broadcast.
        worker_enable_remote_control=False,
        broker_transport=f"infra.queue_transport:{'SentinelTransport' if server.sentinels else 'Transport'}",
        # Without options for TLS, Celery verifies no certificate. It ignores the scheme `rediss`, because the transport
        # is named, and would send the password unencrypted.
        broker_use_ssl=_tls_options(server),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": key_prefix(settings),
            "sentinels": server.sentinels,
            "service": server.service,
            "sentinel_kwargs": server.sentinel_options,
            # Longer than the time limit of any task, and equal in all processes.
            "visibility_timeout": 3600,
            "socket_timeout": 15,
            "socket_connect_timeout": 2,
            "health_check_interval": 10,
        },
    )
    return app


def _tls_options(server: Server) -> dict[str, Any] | None:
    """Return the TLS options of Celery's connections."""
    if not server.is_encrypted:
        return None
    options = {name: value for name, value in server.options.items() if name.startswith("ssl_")}
    return {"ssl_cert_reqs": "required"} | options


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]  # kombu is partly typed


def delete_wrongly_typed_keys(redis: Redis, prefix: str) -> list[str]:
    """Delete keys with a type different from `KEY_TYPES`, because a worker would fail forever on such a key.

    Returns:
        The names of the deleted keys.

    Raises:
        RedisError: Redis is unavailable.
    """
    expected = {f"{prefix}{name}": key_type for name, key_type in KEY_TYPES.items()}
    with redis.pipeline(transaction=False) as pipeline:
        for name in expected:
            pipeline.type(name)
        types = pipeline.execute()
    wrong = [name for name, actual in zip(expected, types, strict=True) if actual not in {expected[name], b"none"}]
    if wrong:
        redis.delete(*wrong)
    return wrong


class TaskQueue:
    """Sends tasks to the indexer. Methods never raise, and wait for Redis for up to 50 ms.

    The first wake-up reads the installation id from the database, unless the process has read the id before.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = open_redis(settings, seconds=WAIT_SECONDS, retry=None)

    @cached_property
    def _key_prefix(self) -> str:
        return key_prefix(self._settings)

    @cached_property
    def _celery(self) -> Celery:
        app = celery(self._settings)
        app.conf.broker_transport_options |= {"socket_timeout": WAIT_SECONDS, "socket_connect_timeout": WAIT_SECONDS}
        return app

    def wake_drain(self, *, now: bool = False) -> bool:
        """Tell a worker that follows the outbox about new changes; send a wake-up if there is none.

        Args:
            now: whether a client waits until the change is searchable.

        Returns:
            False if Redis is unavailable.
        """
        try:
            if self._redis.publish(self._key_prefix + BELL, NOW if now else SOON):
                return True
        except NoPermissionError:
            pass  # a user of Redis without channels
        except Exception:  # noqa: BLE001 (as in `send`)
            return False
        return self.send(DRAIN)

    def announce_round(self) -> None:
        """Tell the API that a round of the lane `live` has ended. If this is lost, clients wait for 50 ms longer."""
        with suppress(Exception):
            self._redis.publish(self._key_prefix + ROUNDS, b"")

    def send(self, task: str, *, waiting: int = MAX_WAITING) -> bool:
        """Send a wake-up, unless one of this task waits, or so many messages wait. False if Redis is unavailable."""
        name = QUEUES[task]
        seconds = DRAIN_MARK_SECONDS if task in {DRAIN, DRAIN_BULK} else MARK_SECONDS
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(self._key_prefix + mark(task), "1", nx=True, ex=seconds)
                pipeline.llen(self._key_prefix + name)
                is_first, messages = pipeline.execute()
            if is_first and messages < waiting:
                self._celery.send_task(task, queue=name)
        except Exception:  # noqa: BLE001 (a lost wake-up must not fail a write, so any error of Redis or the client counts)
            return False
        return True

    def close(self) -> None:
        self._redis.close()
        if "_celery" in self.__dict__:
            self._celery.close()
