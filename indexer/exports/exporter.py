"""Start exports: a worker claims an export, and starts a process for it (`process.py`).

A machine makes a single export at a time, because an export needs a processor and the disk. A running export holds a
lock on a file: the process inherits the lock, and the kernel releases the lock however the process ends.
"""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from indexer.exports import claims, process
from indexer.exports.claims import MAX_ATTEMPTS, ClaimedExport, ClaimLost
from indexer.exports.failures import UNFINISHED
from infra import logs
from infra.database.engine import open_engine
from infra.exports.requests import RECORD_DAYS
from infra.exports.store import STORE_ERRORS, StoreMissingError, open_store
from infra.settings import Settings

log = structlog.get_logger()

MODULE = process.__name__
"""The module of the process."""
NICENESS = 5
"""The API and the drains get the processor first, but a held snapshot must end soon."""
FOLDER, LOCK, SPOOL = f"consumers-exports-{os.getuid()}", "lock", "spool"
"""Names below the folder for temporary files (TMPDIR)."""

# Files of all further exports are deleted: the export has expired, was deleted or failed, or the environment was
# deleted.
EXPIRE = sa.text("""
    UPDATE exports SET state = 'expired', files = '[]' WHERE state = 'done' AND expires_at <= clock_timestamp()""")
FORGET = sa.text(f"""
    DELETE FROM exports WHERE state IN ('failed', 'expired')
        AND requested_at < clock_timestamp() - interval '{RECORD_DAYS} days'""")
KEPT = sa.text("SELECT id FROM exports WHERE state IN ('queued', 'running', 'done') AND id = ANY(:ids)")


class Exporter:
    """Starts the exports of this process in turn."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = open_engine(settings, name="exports")
        self.process: subprocess.Popen[bytes] | None = None

    def work(self) -> None:
        """Start the next export, unless one runs on this machine. Never raises if a server is unavailable."""
        if self._settings.exports_url is None or (self.process and self.process.poll() is None):
            return
        if self.process and self.process.stdin:
            self.process.stdin.close()
        try:
            with _lock_of_machine() as lock:
                if lock is not None and (export := claims.claim(self._engine)):
                    if export.attempts <= MAX_ATTEMPTS:
                        self.process = self._start(export, lock)
                    else:
                        self._end(export)
        except (DBAPIError, OSError, ClaimLost) as error:
            log.warning("export_not_started", reason=logs.error_kind(error))

    def _start(self, export: ClaimedExport, lock: int) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(  # noqa: S603 (this project's module)
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock],
        )
        assert started.stdin
        _lower_priority(started.pid)
        # The pipe stays open: the process ends when this process does.
        pickle.dump((self._settings, export, _folder() / SPOOL), started.stdin)
        started.stdin.flush()
        log.info(
            "export_started",
            export=export.id,
            key=export.key_id,
            environment=export.environment_id,
            tables=export.tables,
            personal=export.personal,
            attempt=export.attempts,
        )
        return started

    def _end(self, export: ClaimedExport) -> None:
        """End an export whose processes were killed again and again."""
        log.error("export_failed", export=export.id, attempt=export.attempts, reason="its processes were killed")
        claims.fail(self._engine, export, UNFINISHED)

    def expire(self) -> None:
        """Delete the files of exports that have expired, all files without an export, and temporary files."""
        if self._settings.exports_url is None:
            return
        try:
            with _lock_of_machine() as lock:
                if lock is not None:  # no export runs, so the files are those of a killed process
                    shutil.rmtree(_folder() / SPOOL, ignore_errors=True)
            store = open_store(self._settings)
            # Listed before the rows are read: a row is there before its files.
            stored = sorted(store.exports())
            with self._engine.begin() as connection:
                connection.execute(EXPIRE)
                connection.execute(FORGET)
                kept = set(connection.execute(KEPT, {"ids": stored}).scalars())
            for export_id in stored:
                if export_id not in kept:
                    store.delete(export_id)
                    log.info("export_files_deleted", export=export_id)
        except (DBAPIError, StoreMissingError, *STORE_ERRORS) as error:
            log.warning("exports_not_expired", reason=logs.error_kind(error))

    def close(self) -> None:
        self._engine.dispose()


def _lower_priority(pid: int) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    # Linux may divide the processor between sessions first (sched(7), autogroups), and the process has its own session.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS), "utf-8")


def _folder() -> Path:
    """Return the folder for temporary files, of this user alone."""
    folder = Path(tempfile.gettempdir()) / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    # Without following a symbolic link, which another user may have made.
    if folder.lstat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


@contextmanager
def _lock_of_machine() -> Iterator[int | None]:
    """Take the lock; yield the file descriptor, or None while an export runs on this machine.

    A process with the inherited descriptor keeps the lock.
    """
    descriptor = os.open(_folder() / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)
