"""The processes of this project: API, workers, and beat."""

import http.client
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import redis
from sqlalchemy.exc import SQLAlchemyError

from infra.database import activity
from infra.database.engine import open_engine
from infra.local.errors import LocalError
from infra.local.process import Process
from infra.redis_client import open_redis
from infra.settings import ROOT, Settings

READY_SECONDS = 120.0
CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.05
STARTING_SECONDS = 30.0
CHECK_SECONDS = 3.0
QUIET_SECONDS = 1.5 * max(activity.PERIODIC_DRAIN_SECONDS.values())
"""A process without a query for this time is silent."""
SILENT_SECONDS = 12.0
"""A process without progress for this long is replaced; a request to OpenSearch times out after 10 seconds."""


class Service(Process):
    """A program of this project, with the addresses of the servers in the environment."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        settings: Settings,
        *,
        death_signal: signal.Signals = signal.SIGKILL,
        keep_open: Sequence[int] = (),
    ) -> None:
        super().__init__(name, folder / "log" / f"{name}.log", keep_open)
        self._arguments = arguments
        self._settings = settings
        self.death_signal = death_signal

    def command(self) -> list[str]:
        return [sys.executable, "-m", *self._arguments]

    def environ(self) -> Mapping[str, str]:
        addresses = ("database_url", "redis_url", "opensearch_url")
        addressed = {name.upper(): str(getattr(self._settings, name)) for name in addresses}
        # No balancer has to notice the stop.
        return os.environ | addressed | {"STOP_DELAY_SECONDS": "0"}

    def cwd(self) -> Path:
        return ROOT


class Indexer(Service):
    """A worker or beat. The process queries the database at least every four seconds, and is replaced when silent."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        settings: Settings,
        *,
        part: str,
        keep_open: Sequence[int] = (),
    ) -> None:
        super().__init__(name, arguments, folder, settings, keep_open=keep_open)
        self.part = part
        self._engine = open_engine(settings)
        self._next_check = 0.0
        self._silent_since: float | None = None

    def spawn(self) -> None:
        super().spawn()
        self._next_check, self._silent_since = time.monotonic() + STARTING_SECONDS, None

    def stuck(self) -> str | None:
        if (now := time.monotonic()) < self._next_check:
            return None
        self._next_check = now + CHECK_SECONDS
        if not self._silent():
            self._silent_since = None
            return None
        self._silent_since = self._silent_since or now
        silent = now - self._silent_since
        return f"has made no progress for {silent:.0f} seconds" if silent >= SILENT_SECONDS else None

    def _silent(self) -> bool:
        """Return whether the process is silent although database and queue answer."""
        try:
            with open_redis(self._settings, seconds=1) as queue:
                queue.ping()
            with self._engine.connect() as connection:
                seconds = activity.seconds_since_query(connection, self.part)
        except (redis.RedisError, SQLAlchemyError):
            return False
        return seconds is None or seconds > QUIET_SECONDS


def services(folder: Path, settings: Settings, keep_open: Sequence[int]) -> list[Service]:
    """Return the processes in start order."""
    celery = ("celery", "-A", "indexer.worker")
    workers = {
        name: (
            *(*celery, "worker", "-n", f"{name}@%h", "-Q", queues, "-c", str(max(minimum, settings.worker_processes))),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        )
        # Live changes never wait behind bulk work, nor an import behind the verification of a rebuild.
        for name, queues, minimum in (("live", "live", 1), ("bulk", "bulk,rebuild", 2))
    }
    # This scheduler stores no file; after a restart every entry is due at once, which is harmless.
    beat = (*celery, "beat", "--pidfile=")
    return [
        # Without its broker, a worker may hang on SIGTERM; after SIGKILL the children end within two seconds. An
        # interrupted drain is repeated.
        *(
            Indexer(f"worker-{name}", worker, folder, settings, part=name, keep_open=keep_open)
            for name, worker in workers.items()
        ),
        Indexer("beat", beat, folder, settings, part="clock", keep_open=keep_open),
        # On SIGKILL of the main process its child processes would stay.
        Service("api", ["api.server"], folder, settings, death_signal=signal.SIGTERM, keep_open=keep_open),
    ]


def wait_until_ready(processes: Sequence[Service], settings: Settings) -> None:
    """Wait until the API reports that all dependencies are ready.

    Raises:
        LocalError: a process ended, or the API is not ready in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not _ready(settings):
        for process in processes:
            if not process.running():
                raise LocalError(f"{process.name} ended while starting, {process.ending()}")
        if time.monotonic() > deadline:
            raise LocalError(f"the API is not ready after {READY_SECONDS:.0f} seconds; its log: {processes[-1].log}")
        time.sleep(POLL_SECONDS)


def wait_until_searchable(settings: Settings) -> None:
    """Wait, for at most a minute, until the outbox is empty, so that the examples find the sample data."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    with psycopg.connect(settings.session_url, autocommit=True) as connection:
        while connection.execute("SELECT EXISTS (SELECT FROM outbox)").fetchone() == (True,):
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)


def _ready(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
