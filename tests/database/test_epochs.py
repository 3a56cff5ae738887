"""A server with another history begins a new epoch, and nothing of two histories is equal."""

import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier

from infra.database import epochs
from infra.local.postgres import PROGRAMS
from infra.local.servers import LocalServers
from tests.database.conftest import Environment, connected
from tests.databases import migrated_database

NEWEST: LiteralString = "SELECT number, reason, fork_lsn::text FROM epochs ORDER BY number DESC LIMIT 1"
OTHER_SERVER: dict[str, LiteralString] = {
    "timeline": "UPDATE epochs SET timeline = timeline + 1",
    "restart": "UPDATE epochs SET server_started_at = server_started_at - interval '1 hour'",
    "restore": "UPDATE epochs SET database = '1' || database",
    "restore in the same server": "UPDATE epochs SET table_oid = table_oid::bigint - 1",
    "copy of the database": "UPDATE epochs SET database = database || '1'",
}
"""Statements after which the newest epoch is another server's, as after the events that they are named for."""


@pytest.fixture
def own(servers: LocalServers) -> Iterator[Environment]:
    """An environment in a database without any epoch."""
    with migrated_database(servers, "epochs") as url, connected(url) as environment:
        yield environment


def fork(environment: Environment, event: str = "timeline") -> int:
    """Make the newest epoch another server's, and return the version that the next epoch exceeds."""
    environment.run(OTHER_SERVER[event])
    return int(environment.value("SELECT last_value FROM consumer_first_version"))


def survives(environment: Environment, epoch: object, xid: object, lsn: str) -> bool:
    return bool(environment.value("SELECT survives(%s, %s::text::xid8, %s::text::pg_lsn)", epoch, str(xid), lsn))


def write(environment: Environment, statement: LiteralString = "", *values: object) -> tuple[str, str, str]:
    """Run a transaction as a request does, and return the epoch, the number and the position."""
    begin: LiteralString = """
        SELECT e.id::text, pg_current_xact_id()::text, pg_logical_emit_message(true, 'consumers', '')::text
        FROM current_epoch() e"""
    with environment.connection.transaction():
        epoch, xid, lsn = environment.row(begin)
        if statement:
            environment.run(statement, *values)
    return epoch, xid, lsn


def test_first_change_begins_the_first_epoch_and_keeps_versions(own: Environment) -> None:
    assert own.rows(NEWEST) == []
    consumer = own.consumer()
    assert own.row(NEWEST) == (1, "first", "0/0")
    version = own.version(consumer)
    own.run("UPDATE consumers SET full_name = 'Changed' WHERE id = %s", consumer)
    assert own.version(consumer) == version + 1
    assert own.rows("SELECT FROM verifications") == []


@pytest.mark.parametrize("event", OTHER_SERVER)
def test_every_change_after_a_fork_has_a_higher_version(own: Environment, event: str) -> None:
    changed, ordered, deleted, unchanged = (own.consumer() for _ in range(4))
    before, mark = own.version(unchanged), own.mark()
    highest = fork(own, event)
    # What the lost history may have done: many changes of each row, and a hundred thousand new consumers.
    lost = highest + (100_000 << 20)
    own.run("UPDATE consumers SET full_name = 'Changed' WHERE id = %s", changed)
    own.order(ordered)
    own.run("DELETE FROM consumers WHERE id = %s", deleted)
    inserted = own.consumer()
    changes: dict[str, int] = dict(own.changes_since(mark))
    assert changes.keys() == {changed, ordered, deleted, inserted}
    assert all(version > lost for version in changes.values())
    assert all(own.version(consumer) == changes[consumer] for consumer in (changed, ordered, inserted))
    assert own.version(unchanged) == before
    assert own.value("SELECT count(*) FROM epochs") == 2
    assert own.rows("SELECT kind, state, epoch FROM verifications") == [("fork", "requested", 2)]
    own.run("UPDATE consumers SET full_name = 'Again' WHERE id = %s", changed)
    assert own.version(changed) == changes[changed] + 1


def test_two_servers_after_the_same_fork_have_different_versions(own: Environment) -> None:
    consumer = own.consumer()
    versions = set()
    for _ in range(2):
        fork(own)
        with own.connection.transaction(force_rollback=True):
            own.run("UPDATE consumers SET full_name = 'Changed' WHERE id = %s", consumer)
            versions.add(own.version(consumer))
            own.run("SELECT setval('consumer_first_version', 1048576)")
    assert len(versions) == 2


def test_simultaneous_first_changes_begin_a_single_epoch(own: Environment) -> None:
    consumers = [own.consumer() for _ in range(4)]
    fork(own)
    start = threading.Barrier(len(consumers))

    def change(consumer: str) -> None:
        with own.connect() as connection:
            start.wait()
            connection.execute("UPDATE consumers SET full_name = 'Changed' WHERE id = %s", (consumer,))

    threads = [threading.Thread(target=change, args=[consumer]) for consumer in consumers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [(number, floor)] = own.rows("SELECT number, version_floor FROM epochs WHERE number > 1")
    assert number == 2
    assert all(own.version(consumer) == floor for consumer in consumers)


def test_transaction_survives_a_fork_only_if_committed_before(own: Environment) -> None:
    """The numbers are those of the lost history; the status of each is the one of another transaction by now."""
    rename: LiteralString = "UPDATE consumers SET full_name = %s WHERE id = %s"
    consumer = own.consumer()
    early = write(own, rename, "Early", consumer)
    aborted = write(own)
    with own.connection.transaction(force_rollback=True):
        aborted = (aborted[0], *own.row("SELECT pg_current_xact_id()::text, pg_current_wal_insert_lsn()::text"))
    at_fork = own.value("SELECT pg_current_wal_insert_lsn()::text")
    late = write(own, rename, "Late", consumer)
    fork(own)
    own.run("UPDATE consumers SET full_name = 'New' WHERE id = %s", consumer)
    own.run("UPDATE epochs SET fork_lsn = %s::text::pg_lsn WHERE number = 2", at_fork)
    assert survives(own, *early)
    assert not survives(own, *aborted), "it was not committed"
    assert not survives(own, *late), "it lies after the fork"
    assert not survives(own, early[0], 2**60, early[2]), "the number is not issued yet"
    assert not survives(own, "00000000-0000-0000-0000-000000000000", *early[1:]), "the epoch is of another history"
    own.run("UPDATE epochs SET fork_lsn = '0/0' WHERE number = 2")
    assert not survives(own, *early), "the database was replaced"


def test_token_without_epoch_survives_if_older_than_the_first_epoch(own: Environment) -> None:
    with own.connection.transaction():
        before = own.value("SELECT pg_current_xact_id()::text")
    own.consumer()
    with own.connection.transaction():
        after = own.value("SELECT pg_current_xact_id()::text")
    fork(own, "restart")
    own.consumer()
    values: LiteralString = "SELECT survives(NULL, %s::text::xid8, NULL)"
    assert own.value(values, before)
    assert not own.value(values, after)


def test_process_that_knows_another_history_begins_an_epoch(own: Environment) -> None:
    """A process comes back to the old primary from a server that was promoted for a while."""
    own.consumer()
    engine = sa.create_engine(own.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        first = epochs.check(connection)
        assert first
        assert epochs.check(connection, first) == first
    elsewhere = epochs.Epoch(
        number=2, id="4f2c1e0a-8d0c-4a52-9a53-0c1f0f2b6d1e", reason="timeline", began_at=first.began_at
    )
    for seen in (elsewhere, elsewhere, first):
        with engine.begin() as connection:
            after = epochs.check(connection, seen)
        assert after
        assert (after.number, after.reason) == (2, "restore")
    engine.dispose()


def test_restored_dump_begins_an_epoch(own: Environment, servers: LocalServers) -> None:
    consumer = own.consumer()
    token = write(own, "UPDATE consumers SET full_name = 'Before' WHERE id = %s", consumer)
    copy = sa.make_url(own.url).set(database=f"restored_{os.getpid()}")
    with psycopg.connect(servers.addresses["database_url"], autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(copy.database or "")))
        try:
            _copy(own.url, copy.render_as_string(hide_password=False))
            with psycopg.connect(copy.render_as_string(hide_password=False), autocommit=True) as restored:
                rename = "UPDATE consumers SET full_name = 'After' WHERE id = %s RETURNING version"
                version: Any = restored.execute(rename, (consumer,)).fetchone()
                newest: Any = restored.execute(NEWEST).fetchone()
                survived: Any = restored.execute("SELECT survives(%s, %s::text::xid8, %s::text::pg_lsn)", token)
                assert survived.fetchone() == (False,)
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(copy.database or "")))
    assert newest == (2, "restore", "0/0")
    assert version[0] > own.version(consumer) + (1 << 39)


def _copy(source: str, target: str) -> None:
    dump = subprocess.run([PROGRAMS / "pg_dump", "-Fc", source], stdout=subprocess.PIPE, check=True)
    subprocess.run([PROGRAMS / "pg_restore", "-d", target, "--no-owner"], input=dump.stdout, check=True)
