"""The partitions of the feed of changes: old ones go, coming ones are there, and no write depends on either."""

from collections.abc import Iterator

import pytest

from tests.database.conftest import Environment
from tests.waiting import wait_until

OLD = "changes_20200106"
PARTITIONS = """
    SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'changes'::regclass
        AND inhrelid <> 'changes_without_week'::regclass ORDER BY 1"""


def partitions(environment: Environment) -> list[str]:
    return [name for (name,) in environment.rows(PARTITIONS)]


def keep(environment: Environment) -> None:
    """Keep the partitions. A call gives up if another session uses the table, such as that of autovacuum."""

    def is_dropped() -> bool:
        environment.run("SELECT keep_changes(30)")
        return OLD not in partitions(environment)

    wait_until(is_dropped, what="the drop of the old partition")


@pytest.fixture
def old(environment: Environment) -> Iterator[Environment]:
    """An environment, and a partition of a week in 2020 with a change."""
    environment.run(f"CREATE TABLE {OLD} PARTITION OF changes FOR VALUES FROM ('2020-01-06') TO ('2020-01-13')")
    environment.run(
        "INSERT INTO changes (environment_id, resource, object_id, kind, at) VALUES (%s, 'orders', 'x', 'created', %s)",
        *(environment.id, "2020-01-07"),
    )
    yield environment
    environment.run(f"DROP TABLE IF EXISTS {OLD}")


def test_old_partition_is_dropped_and_four_weeks_are_ready(old: Environment) -> None:
    old.consumer()
    keep(old)
    # One more if a week has begun since the migration.
    assert len(partitions(old)) in {4, 5}
    assert old.rows("SELECT resource, kind FROM changes WHERE environment_id = %s", old.id) == [
        ("consumers", "created")
    ]


def test_partition_within_the_kept_days_stays(old: Environment) -> None:
    old.run("SELECT keep_changes(36500)")
    assert OLD in partitions(old)


def test_snapshot_is_recorded_although_a_writer_delays_the_drop(old: Environment) -> None:
    old.run("SELECT current_epoch()")
    old.run("DELETE FROM change_snapshots")
    with old.connect() as writer, writer.transaction():
        writer.execute("INSERT INTO consumers (environment_id) VALUES (%s)", (old.id,))
        old.run("SELECT keep_changes(30)")
        assert OLD in partitions(old)
        assert old.value("SELECT count(*) FROM change_snapshots") == 1
    keep(old)
    assert old.value("SELECT count(*) FROM change_snapshots") == 1


def test_change_without_a_partition_fails_no_write(environment: Environment) -> None:
    environment.run("SELECT keep_changes(30)")
    this_week = environment.value("SELECT 'changes_' || to_char(date_trunc('week', now(), 'UTC'), 'YYYYMMDD')")
    with environment.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute(f"DROP TABLE {this_week}".encode())
        connection.execute("INSERT INTO consumers (environment_id) VALUES (%s)", (environment.id,))
        rows = connection.execute("SELECT kind FROM changes_without_week WHERE environment_id = %s", (environment.id,))
        assert rows.fetchall() == [("created",)]
        # The partition of a week with such rows cannot be added; the coming weeks are not touched by that.
        connection.execute("SELECT keep_changes(30)")
