"""This project's own processes: the API, the worker that indexes, and the clock that wakes it."""

import http.client
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg

from infra.local.errors import LocalError
from infra.local.process import Process
from infra.settings import ROOT, Settings

READY_SECONDS = 120.0
CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.05


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


def services(folder: Path, settings: Settings, keep_open: Sequence[int]) -> list[Service]:
    """Describe the processes, in the order in which they are started."""
    celery = ("celery", "-A", "indexer.worker")
    quiet = ("--loglevel", settings.log_level)
    worker = (
        *(*celery, "worker", "-Q", "live", "-c", str(settings.worker_processes)),
        *("--without-gossip", "--without-mingle", *quiet),
    )
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
        Service("worker", worker, folder, settings, keep_open=keep_open),
        Service("beat", beat, folder, settings, keep_open=keep_open),
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
