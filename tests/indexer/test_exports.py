"""Exports whose process is killed, whose claim is lost, whose disk is full, or whose files nothing lists."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import duckdb
import pytest

from indexer.exports import claims, exporter, failures
from indexer.exports.conversion import Converter
from indexer.exports.spool import Writer
from infra.exports import requests
from infra.exports.store import ExportStore
from tests.indexer import halting_export
from tests.indexer.exports import LOSE_CLAIMS, PATIENCE_SECONDS, Exports, halted
from tests.service import Database

# Each statement changes every consumer.
ORDERS = """
    INSERT INTO orders (environment_id, consumer_id, amount, base_amount, currency_code, placed_at)
    SELECT :e, id, 1.25, 1.25, 'USD', timestamptz '2024-01-01Z' + random() * interval '1 year'
    FROM consumers WHERE environment_id = :e ORDER BY id"""
SMALL_DISK_MIB = failures.RESERVE_BYTES // 2**20 + 64


@pytest.fixture
def exports(quiet: Database, tmp_path: Path) -> Iterator[Exports]:
    environment = Exports(quiet, (tmp_path / "store").as_uri())
    yield environment
    environment.exporter.close()


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
            process.wait(PATIENCE_SECONDS)
        killed = exports.find(export_id)
        assert (killed.state, killed.files) == ("running", []), step
        assert claims.claim(exports.engine) is None  # until its heartbeat is old
        exports.execute(LOSE_CLAIMS)
        done = exports.finish(export_id)
        assert done.claim == 2, step
        exports.assert_complete(done)


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
        assert process.wait(PATIENCE_SECONDS) == 0
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
    assert (exports.find(killed).state, exports.find(killed).error) == ("failed", failures.UNFINISHED)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with a little more space than an export leaves free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount: run the tests as root on Linux")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)


def fill_before(patch: pytest.MonkeyPatch, disk: Path, owner: type, name: str) -> None:
    """Fill the disk at the first call of a method."""
    method = getattr(owner, name)

    def filling(*arguments: Any) -> Any:
        patch.setattr(owner, name, method)
        fill(disk)
        return method(*arguments)

    patch.setattr(owner, name, filling)


def assert_fails_for_lack_of_space(exports: Exports, disk: Path, folder: Path) -> None:
    """Check that the export fails, and that the next one works after the disk has space again."""
    failed = exports.finish(exports.request(), folder)
    assert (failed.state, failed.error, failed.files) == ("failed", failures.NO_SPACE, [])
    exports.exporter.expire()
    assert exports.stored(failed.id) == []
    (disk / "filler").unlink()
    exports.assert_complete(exports.finish(exports.request(), folder))


@pytest.mark.parametrize(
    ("owner", "name"), [(Writer, "write_all"), (Converter, "convert")], ids=["copying", "converting"]
)
def test_export_fails_while_the_disk_for_temporary_files_is_full(
    exports: Exports, small_disk: Path, owner: type, name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fill_before(patch, small_disk, owner, name)
        assert_fails_for_lack_of_space(exports, small_disk, small_disk)


def test_export_fails_while_the_disk_of_the_store_is_full(quiet: Database, small_disk: Path, tmp_path: Path) -> None:
    exports = Exports(quiet, (small_disk / "store").as_uri())
    fill(small_disk)
    assert_fails_for_lack_of_space(exports, small_disk, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        fill_before(patch, small_disk, ExportStore, "put")
        patch.setattr("indexer.exports.run.require_space", lambda *_: None)  # the disk fills up afterwards
        assert_fails_for_lack_of_space(exports, small_disk, tmp_path)
    exports.exporter.close()


def test_process_frees_a_full_disk(exports: Exports, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    export_id = exports.request()
    with halted(exports, "convert") as process:
        spool = small_disk / exporter.FOLDER / exporter.SPOOL
        assert list(spool.iterdir())
        fill(small_disk)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert (exports.find(export_id).state, exports.find(export_id).error) == ("failed", failures.NO_SPACE)
    assert not spool.exists()
