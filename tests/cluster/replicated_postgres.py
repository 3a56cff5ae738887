"""Two PostgreSQL servers: a primary, and a standby that follows by streaming replication."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from infra.local.postgres import DATABASE, PROGRAMS, Postgres
from infra.local.server import wait_ready
from tests.cluster.commit_proxy import CommitProxy
from tests.waiting import wait_until


class Replica(Postgres):
    """A server that can be a primary or a standby. A process killed by a test loses nothing, so nothing is synced."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        (folder / "log").mkdir(parents=True, exist_ok=True)
        if password is not None:
            (folder / "postgresql.password").write_text(password)
        super().__init__(folder, durable=False)

    @property
    def password(self) -> str:
        return self._password

    def command(self) -> list[str]:
        settings = {"synchronous_commit": "on", "hot_standby": "on", "shared_buffers": "64MB", "wal_keep_size": "64MB"}
        return [*super().command(), *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]

    def connect(self, database: str = DATABASE) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url(database), autocommit=True, connect_timeout=5)

    def backends(self, kind: str) -> list[int]:
        """Return the processes of a kind, such as `walreceiver`."""
        with self.connect() as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = %s", [kind]).fetchall()
        return [row[0] for row in rows]


class Pair:
    """The primary and its standby. After a fail-over the standby is the primary."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 1
        self.primary = Replica(folder / "1")
        self.primary.spawn()
        wait_ready([self.primary])
        self._replication = CommitProxy(self.primary.url, seed=0)
        self.standby = self._new_standby()
        self._lost: Replica | None = None

    def set_synchronous(self, *, is_synchronous: bool) -> None:
        """Make COMMIT wait for the standby's disk, or not. After a fail-over, make a new standby first."""
        if self._lost:
            shutil.rmtree(self._lost.data, ignore_errors=True)
            self._lost, self.standby = None, self._new_standby()
        names = "*" if is_synchronous else ""
        with self.primary.connect("postgres") as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
            connection.execute("SELECT pg_reload_conf()")
            state = ("sync",) if is_synchronous else ("async",)
            query = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
            wait_until(lambda: connection.execute(query).fetchall() == [state], what="the standby")

    def stop_replication(self) -> None:
        """Cut the standby off from the primary."""
        self._replication.disconnect()

    def promote(self) -> None:
        """Make the standby the primary. The old primary must have been killed."""
        with self.standby.connect("postgres") as connection:
            # A new primary would wait for a standby that does not exist yet.
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            connection.execute("SELECT pg_reload_conf()")
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        self._lost, self.primary = self.primary, self.standby

    def stop(self) -> None:
        for server in {self.primary, self.standby}:
            server.stop()
        self._replication.close()

    def _new_standby(self) -> Replica:
        self._number += 1
        self._replication.forward_to(self.primary.url)
        standby = Replica(self._folder / str(self._number), self.primary.password)
        command = [str(PROGRAMS / "pg_basebackup"), f"--dbname={self._replication.url}", f"--pgdata={standby.data}"]
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        subprocess.run([*self.primary.prefix(), *command, *options], check=True)
        standby.data.chmod(0o700)
        standby.spawn()
        wait_until(lambda: _follows(standby), 60, "the standby")
        return standby


def _follows(standby: Replica) -> bool:
    try:
        return bool(standby.backends("walreceiver"))
    except psycopg.OperationalError:
        assert standby.running(), standby.ending()
        return False
