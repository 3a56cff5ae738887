"""This project's own processes: the API, the worker that indexes, and the clock that wakes it."""

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
from infra.settings import ROOT, Settings

READY_SECONDS = 120.0
CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.05
STARTING_SECONDS = 30.0
LOOK_SECONDS = 3.0
SILENT_SECONDS = 12.0
"""After a process has been seen to do nothing for so long it is replaced; one that waits for OpenSearch stops at 10."""


class Service(Process):
    """A program of this project, with the addresses of the servers in its environment."""

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
        return os.environ | {name.upper(): str(getattr(self._settings, name)) for name in addresses}

    def cwd(self) -> Path:
        return ROOT


class Indexer(Service):
    """A process that looks into the database each second, or is replaced."""

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
        self._look_at = 0.0
        self._silent_since: float | None = None

    def spawn(self) -> None:
        super().spawn()
        self._look_at, self._silent_since = time.monotonic() + STARTING_SECONDS, None

    def stuck(self) -> str | None:
        if (now := time.monotonic()) < self._look_at:
            return None
        self._look_at = now + LOOK_SECONDS
        if not self._silent():
            self._silent_since = None
            return None
        self._silent_since = self._silent_since or now
        silent = now - self._silent_since
        return f"does nothing for {silent:.0f} seconds" if silent >= SILENT_SECONDS else None

    def _silent(self) -> bool:
        """Whether it could work and does not: without database or queue it has an excuse."""
        try:
            with redis.Redis.from_url(self._settings.redis_url, socket_timeout=1, socket_connect_timeout=1) as queue:
                queue.ping()
            with self._engine.connect() as connection:
                seconds = activity.silence(connection, self.part)
        except (redis.RedisError, SQLAlchemyError):
            return False
        return seconds is None or seconds > LOOK_SECONDS


def services(folder: Path, settings: Settings, keep_open: Sequence[int]) -> list[Service]:
    """Describe the processes, in the order in which they are started."""
    celery = ("celery", "-A", "indexer.worker")
    quiet = ("--loglevel", settings.log_level)
    workers = {
        name: (
            *(*celery, "worker", "-n", f"{name}@%h", "-Q", queues, "-c", str(max(least, settings.worker_processes))),
            *("--without-gossip", "--without-mingle", *quiet),
        )
        # What people wait for never stands behind what they do not; nor an import behind the verification of a rebuild.
        for name, queues, least in (("live", "live", 1), ("bulk", "bulk,rebuild", 2))
    }
    # This scheduler keeps no file; every entry is due at once after a restart, which is harmless.
    beat = (*celery, "beat", "-S", "celery.beat:Scheduler", "--pidfile=", *quiet)
    api = (
        *("granian", "--interface", "asgi", "--factory", "api.app:create_app", "--no-access-log"),
        *("--host", settings.host, "--port", str(settings.port), "--workers", str(settings.api_workers)),
        *("--log-level", settings.log_level, "--respawn-failed-workers", "--workers-kill-timeout", "5"),
    )
    return [
        # Without its broker, a worker that is asked to end may hang for ever; killed, its children follow
        # by themselves within two seconds. A drain that is cut off is repeated.
        *(
            Indexer(f"worker-{name}", worker, folder, settings, part=name, keep_open=keep_open)
            for name, worker in workers.items()
        ),
        Indexer("beat", beat, folder, settings, part="clock", keep_open=keep_open),
        # The API's children would stay without the one that listens for them to end.
        Service("api", api, folder, settings, death_signal=signal.SIGTERM, keep_open=keep_open),
    ]


def wait_until_ready(processes: Sequence[Service], settings: Settings) -> None:
    """Wait until the API says that it and all it depends on are ready.

    Raises:
        LocalError: one of the processes ended, or it takes too long.
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
    """Wait until no change is on its way to the index, so that what is shown next finds it; a minute at most."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
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
