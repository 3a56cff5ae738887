"""Background clearing: short transactions, and finished by another process after a kill."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexer import upkeep
from infra.accounts import operators
from tests.indexer.conftest import Pipeline
from tests.waiting import wait_until

NUMBER = 2500
CLEAR = """
from indexer import upkeep
from infra.accounts import operators
from infra import settings
from infra.database.engine import open_engine
upkeep.clear_deleted_audiences(open_engine(settings.load()))
"""


def deleted_audience(pipeline: Pipeline, number: int) -> str:
    """Create a deleted audience of some consumers, all of them also in a second audience."""
    [(deleted_id,)] = pipeline.run(
        """WITH c AS (INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, :number) RETURNING id),
        a AS (INSERT INTO audiences (environment_id, name, type, deleted_at)
              VALUES (:e, 'Gone', 'STATIC', now()), (:e, 'Left', 'STATIC', NULL) RETURNING id, name),
        m AS (INSERT INTO audience_members (environment_id, audience_id, consumer_id) SELECT :e, a.id, c.id FROM a, c)
        SELECT id FROM a WHERE name = 'Gone'""",
        number=number,
    )
    return str(deleted_id)


def members(pipeline: Pipeline, audience: str) -> int:
    return int(pipeline.run("SELECT count(*) FROM audience_members WHERE audience_id = :a", a=audience)[0][0])


def exists(pipeline: Pipeline, audience: str) -> bool:
    return bool(pipeline.run("SELECT FROM audiences WHERE id = :a", a=audience))


def test_memberships_are_cleared_in_short_bulk_transactions(pipeline: Pipeline) -> None:
    deleted = deleted_audience(pipeline, NUMBER)
    pipeline.drain()
    assert upkeep.clear_deleted_audiences(pipeline.database.engine) == NUMBER
    assert (members(pipeline, deleted), exists(pipeline, deleted)) == (0, False)
    changes = pipeline.run("SELECT lane, count(*) FROM outbox GROUP BY xid, lane ORDER BY 2 DESC")
    assert changes == [("bulk", 1000), ("bulk", 1000), ("bulk", 500)]
    pipeline.drain()
    [(remaining_id,)] = pipeline.run("SELECT id FROM audiences")
    documents = pipeline.database.documents(pipeline.environment)
    assert [document["audienceIds"] for document in documents.values()] == [[remaining_id]] * NUMBER
    assert upkeep.clear_deleted_audiences(pipeline.database.engine) == 0


def test_one_call_clears_a_limited_number_of_memberships(pipeline: Pipeline) -> None:
    deleted = deleted_audience(pipeline, 5500)
    assert [upkeep.clear_deleted_audiences(pipeline.database.engine) for _ in range(3)] == [5000, 500, 0]
    assert not exists(pipeline, deleted)


def test_killed_clearing_is_finished_by_another(pipeline: Pipeline) -> None:
    deleted = deleted_audience(pipeline, NUMBER)
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    environ = os.environ | pipeline.database.environ
    with pipeline.database.engine.begin() as connection:
        # A consumer of the second thousand is locked.
        locked = "(SELECT id FROM consumers ORDER BY id OFFSET 1500 LIMIT 1)"
        connection.exec_driver_sql(f"SELECT FROM consumers WHERE id = {locked} FOR UPDATE")
        with subprocess.Popen([sys.executable, "-c", CLEAR], env=environ) as killed:
            wait_until(lambda: pipeline.run(waiting), what="the clearing to wait")
            assert upkeep.clear_deleted_audiences(pipeline.database.engine) == 0, (
                "a living process keeps its audience locked"
            )
            killed.kill()
    assert (members(pipeline, deleted), exists(pipeline, deleted)) == (NUMBER - 1000, True)

    def is_cleared() -> bool:
        upkeep.clear_deleted_audiences(pipeline.database.engine)
        return not exists(pipeline, deleted)

    wait_until(is_cleared, what="the memberships to be cleared")
    assert members(pipeline, deleted) == 0
    [changes] = pipeline.run("SELECT count(*), count(DISTINCT consumer_id) FROM outbox WHERE lane = 'bulk'")
    assert changes == (NUMBER, NUMBER)


def test_concurrent_clearing_clears_each_membership_once(pipeline: Pipeline) -> None:
    deleted = [deleted_audience(pipeline, 300) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        cleared = list(pool.map(upkeep.clear_deleted_audiences, [pipeline.database.engine] * 4))
    assert sum(cleared) + upkeep.clear_deleted_audiences(pipeline.database.engine) == 900
    assert not any(exists(pipeline, audience) for audience in deleted)


@pytest.mark.parametrize("number", [0, 1, 1000])
def test_deleted_audience_of_any_size_is_cleared(pipeline: Pipeline, number: int) -> None:
    deleted = deleted_audience(pipeline, number)
    assert upkeep.clear_deleted_audiences(pipeline.database.engine) == number
    assert not exists(pipeline, deleted)


def test_idempotency_keys_are_kept_for_a_day(pipeline: Pipeline) -> None:
    insert = """INSERT INTO idempotency_keys (environment_id, key, fingerprint, status, headers, body, created_at)
        SELECT :e, age || n, '', 200, '{}', '', now() - CAST(age AS interval)
        FROM generate_series(1, :number) AS n, (VALUES ('24 hours 1 second'), ('23 hours 59 minutes')) AS a (age)"""
    pipeline.run(insert, number=NUMBER)
    with pipeline.database.engine.begin() as connection:
        # A key that another transaction replaces at this moment is skipped.
        connection.exec_driver_sql("SELECT FROM idempotency_keys WHERE key = '24 hours 1 second7' FOR UPDATE")
        assert upkeep.delete_expired_keys(pipeline.database.engine) == NUMBER - 1
    assert upkeep.delete_expired_keys(pipeline.database.engine) == 1
    assert pipeline.run("SELECT count(*), min(left(key, 2)) FROM idempotency_keys") == [(NUMBER, "23")]


def test_operators_idempotency_keys_are_kept_for_a_day(pipeline: Pipeline) -> None:
    with pipeline.database.engine.begin() as connection:
        operator = operators.create(connection)
    insert = """INSERT INTO operator_idempotency_keys
            (operator_key_id, key, fingerprint, status, headers, body, created_at)
        SELECT :operator, age, '', 202, '{}', '', now() - CAST(age AS interval)
        FROM (VALUES ('24 hours 1 second'), ('23 hours 59 minutes')) AS a (age)"""
    pipeline.run(insert, operator=operator.id)
    assert upkeep.delete_expired_keys(pipeline.database.engine) == 1
    assert pipeline.run("SELECT left(key, 2) FROM operator_idempotency_keys") == [("23",)]
