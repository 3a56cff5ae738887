"""Exports whose process is killed, whose claim is lost, or whose files nothing lists."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import duckdb
import msgspec
import pytest
import sqlalchemy as sa

from indexer.exports import claims, exporter, failures
from indexer.exports.exporter import Exporter
from indexer.exports.heartbeat import Heartbeat
from indexer.exports.run import Resources, run
from infra.accounts import organizations
from infra.exports import requests
from infra.exports.store import open_store
from infra.exports.tables import TABLES
from tests.indexer import halting_export
from tests.service import Database
from tests.waiting import wait_until

INSERT = sa.text("""
    WITH c AS (INSERT INTO consumers (environment_id, email) SELECT :e, n || '@example.com' FROM generate_series(1, 7) n
               RETURNING id)
    INSERT INTO orders (environment_id, consumer_id, amount, base_amount, currency_code)
    SELECT :e, id, 5, 5, 'USD' FROM c""")
LOSE = sa.text(
    "UPDATE exports SET heartbeat_at = clock_timestamp() - interval '1 hour', retry_at = NULL WHERE id = :id"
)

# Each statement changes every consumer.
ORDERS = """
    INSERT INTO orders (environment_id, consumer_id, amount, base_amount, currency_code, placed_at)
    SELECT :e, id, 1.25, 1.25, 'USD', timestamptz '2024-01-01Z' + random() * interval '1 year'
    FROM consumers WHERE environment_id = :e ORDER BY id"""


class Exports:
    """An environment with rows, the exporter of a worker, and the store."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.settings = msgspec.structs.replace(database.settings, exports_url=(folder / "store").as_uri())
        self.engine, self.exporter, self.store = database.engine, Exporter(self.settings), open_store(self.settings)
        with self.engine.begin() as connection:
            organizations.create(connection, "shop")
            self.environment = organizations.environment_id(connection, "shop", "live")
            connection.execute(INSERT, {"e": self.environment})

    def request(self) -> str:
        with self.engine.begin() as connection:
            return requests.request(
                connection, self.environment, tables=TABLES[:3], file_format="parquet", personal=False, key_id=None
            ).id

    def find(self, export_id: str) -> requests.Export:
        with self.engine.connect() as connection:
            export = requests.find(connection, self.environment, export_id)
        assert export
        return export

    def finish(self, export_id: str) -> requests.Export:
        """Make the next export in the process of the test."""
        claimed = claims.claim(self.engine)
        assert claimed
        heartbeat = Heartbeat(self.engine, claimed)
        with TemporaryDirectory() as folder:
            run(Resources(self.settings, self.engine, self.store, Path(folder)), claimed, heartbeat)
        heartbeat.stop()
        return self.find(export_id)

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def stored(self, export_id: str) -> list[str]:
        """Return the names of all stored files of an export, of all attempts."""
        assert self.store.folder
        return sorted(path.name for path in self.store.folder.glob(f"*/{export_id}/*/*"))


@pytest.fixture
def exports(quiet: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exports]:
    for name, value in quiet.environ.items():
        monkeypatch.setenv(name, value)
    environment = Exports(quiet, tmp_path)
    yield environment
    environment.exporter.close()


@contextmanager
def halted(exports: Exports, step: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the next export in a process that halts before a step."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        there = Path(folder) / "there"
        patch.setenv("HALT_BEFORE", step)
        patch.setenv("HALT_FILE", str(there))
        patch.setattr(exporter, "MODULE", halting_export.__name__)
        exports.exporter.work()
        process = exports.exporter.process
        assert process
        assert process.stdin
        with process.stdin:
            wait_until(there.exists, what="the step")
            yield process


def test_export_killed_at_any_step_lists_nothing_and_begins_anew(exports: Exports) -> None:
    for step in halting_export.STEPS:
        export_id = exports.request()
        with halted(exports, step) as process:
            exports.exporter.work()  # a wake-up meanwhile starts nothing
            if step == "convert":
                assert process.stdin
                process.stdin.close()  # as if the worker was killed
            else:
                os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
        killed = exports.find(export_id)
        assert (killed.state, killed.files) == ("running", []), step
        assert claims.claim(exports.engine) is None  # until its heartbeat is old
        exports.execute("UPDATE exports SET heartbeat_at = heartbeat_at - interval '1 hour'")
        done = exports.finish(export_id)
        assert (done.state, done.claim) == ("done", 2), step
        assert [file.rows for file in done.files] == [7, 7, 0, None, None], step
        assert sorted(file.name for file in done.files) == exports.stored(export_id), step


def test_tables_agree_while_orders_arrive(exports: Exports) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            exports.execute(ORDERS, e=exports.environment)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = [exports.finish(exports.request()) for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    for export in done:
        assert export.state == "done"
        files = f"{exports.store.folder}/*/{export.id}/*"
        differing = duckdb.execute(f"""
            SELECT count(*) FROM '{files}/consumers-*.parquet' c LEFT JOIN (
                SELECT consumer_id, count(*) AS orders, sum(value) AS value, min(placed_at) AS first,
                    max(placed_at) AS last
                FROM '{files}/orders-*.parquet' WHERE counts GROUP BY 1) o ON o.consumer_id = c.id
            WHERE (total_orders, total_order_value, first_order_at, last_order_at) IS DISTINCT FROM (
                coalesce(orders, 0), coalesce(value, 0), first, last)""")
        assert differing.fetchall() == [(0,)]
    assert len({export.sums["orders"]["rows"] for export in done}) > 1


def test_late_process_cannot_list_files_of_a_deleted_export(exports: Exports) -> None:
    export_id = exports.request()
    with halted(exports, "finish") as process:
        with exports.engine.begin() as connection:
            requests.delete(connection, exports.environment, export_id)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 0
    assert (exports.find(export_id).state, exports.find(export_id).files) == ("expired", [])
    exports.exporter.expire()
    assert exports.stored(export_id) == []


def test_files_are_deleted_with_their_time_or_their_organization(exports: Exports) -> None:
    first, second = exports.request(), exports.request()
    assert [exports.finish(each).state for each in (first, second)] == ["done", "done"]
    exports.exporter.expire()
    assert exports.stored(first)
    assert exports.stored(second)
    exports.execute("UPDATE exports SET expires_at = now() WHERE id = :id", id=first)
    assert (exports.find(first).state, exports.find(first).files) == ("expired", [])
    exports.execute("DELETE FROM exports WHERE id = :id", id=second)
    temporary = Path(gettempdir()) / exporter.FOLDER / exporter.SPOOL / "consumers-0001.spool"
    temporary.parent.mkdir(parents=True)
    temporary.touch()
    exports.exporter.expire()
    assert not temporary.exists()
    assert exports.stored(first) + exports.stored(second) == []


def test_export_without_space_or_with_too_many_kills_fails_with_a_reason(exports: Exports) -> None:
    large = exports.request()
    exports.execute("UPDATE exports SET spool_bytes = 1::bigint << 60, state = 'expired' WHERE id = :id", id=large)
    failed = exports.finish(exports.request())
    assert (failed.state, failed.error, failed.files) == ("failed", failures.NO_SPACE, [])
    killed = exports.request()
    exports.execute("UPDATE exports SET attempts = :n WHERE id = :id", n=claims.MAX_ATTEMPTS, id=killed)
    exports.exporter.work()
    assert (exports.find(killed).state, exports.find(killed).error) == ("failed", failures.NOT_READ)
