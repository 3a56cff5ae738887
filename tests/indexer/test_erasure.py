"""Deleted organizations: short transactions in the lane bulk, any worker continues, nothing stays."""

import os
import subprocess
import sys

import pytest
from redis import Redis

from indexer.erasure import ROWS, Erasure
from indexer.rebuild.builder import Builder
from infra.accounts import organizations
from infra.accounts.organizations import OrganizationError
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import generation_states, rebuild
from tests.waiting import wait_until

CONSUMERS, ORDERS = 1_500, 2_500
ERASE = """
from redis import Redis
from indexer.erasure import Erasure
from infra import settings
from infra.database.engine import open_engine
from infra.index.client import open_writer
chosen = settings.load()
erasure = Erasure(open_engine(chosen), open_writer(chosen), Redis.from_url(chosen.redis_url), chosen.index_prefix)
while True:
    erasure.work(60)
"""


@pytest.fixture
def erasure(pipeline: Pipeline) -> Erasure:
    settings = pipeline.database.settings
    redis = Redis.from_url(settings.redis_url)
    return Erasure(pipeline.database.engine, pipeline.writer, redis, settings.index_prefix)


@pytest.fixture
def name(pipeline: Pipeline) -> str:
    """An organization with consumers, one of them with all orders, and rows in further tables."""
    pipeline.run(
        """
        WITH c AS (INSERT INTO consumers (environment_id, full_name) SELECT :e, 'A ' || n
                   FROM generate_series(1, :consumers) AS n RETURNING id),
        a AS (INSERT INTO audiences (environment_id, name, type) VALUES (:e, 'All', 'STATIC') RETURNING id),
        k AS (INSERT INTO idempotency_keys (environment_id, key, fingerprint, status, headers, body)
              VALUES (:e, 'k', '', 201, '{}', '')),
        v AS (INSERT INTO verifications (kind, environment_id) VALUES ('verify', :e)),
        o AS (INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount)
              SELECT :e, (SELECT min(id) FROM c), 1, 'USD', 1 FROM generate_series(1, :orders))
        INSERT INTO audience_members (environment_id, audience_id, consumer_id) SELECT :e, a.id, c.id FROM a, c
        """,
        consumers=CONSUMERS,
        orders=ORDERS,
    )
    pipeline.drain()
    return "Shop"


def delete(pipeline: Pipeline, name: str) -> None:
    """Delete an organization, long enough ago that no API process accepts a key of it."""
    with pipeline.database.engine.begin() as connection:
        organizations.delete(connection, name)
    pipeline.run("UPDATE organizations SET deleted_at = deleted_at - interval '1 minute'")


def exists(pipeline: Pipeline) -> bool:
    return bool(pipeline.run("SELECT FROM environments WHERE id = :e"))


def remaining(pipeline: Pipeline) -> dict[str, int]:
    """Return the number of rows of each table in the catalogue that names the environment."""
    tables = pipeline.run("""
        SELECT table_name FROM information_schema.columns WHERE table_schema = 'public'
            AND column_name = 'environment_id'""")
    counts = {
        table: pipeline.run(f"SELECT count(*) FROM {table} WHERE environment_id = :e")[0][0] for (table,) in tables
    }
    return {table: count for table, count in counts.items() if count}


def test_organization_is_deleted_in_short_bulk_transactions(pipeline: Pipeline, erasure: Erasure, name: str) -> None:
    delete(pipeline, name)
    with pipeline.database.engine.begin() as connection, pytest.raises(OrganizationError, match="is being deleted"):
        organizations.create(connection, name)
    assert not erasure.work(60)
    # The orders' consumers and the members are changed first, and each consumer is deleted last.
    assert remaining(pipeline).keys() >= {"outbox", "audiences", "idempotency_keys", "verifications"}
    assert not remaining(pipeline).keys() & {"consumers", "orders", "audience_members"}
    changes = pipeline.run(
        "SELECT lane, max(n) FROM (SELECT lane, count(*) AS n FROM outbox GROUP BY lane, xid) t GROUP BY lane"
    )
    assert changes == [("bulk", ROWS)]
    pipeline.drain()
    assert len(pipeline.database.documents(pipeline.environment)) == CONSUMERS
    assert not erasure.work(60)
    assert not exists(pipeline)
    assert remaining(pipeline) == {}
    assert not pipeline.database.documents(pipeline.environment)
    with pipeline.database.engine.begin() as connection:
        assert organizations.create(connection, name).deleted_at is None


def test_killed_deletion_is_finished_by_another_process(pipeline: Pipeline, erasure: Erasure, name: str) -> None:
    delete(pipeline, name)
    environ = os.environ | pipeline.database.environ
    with subprocess.Popen([sys.executable, "-c", ERASE], env=environ) as process:
        wait_until(lambda: remaining(pipeline).get("orders", 0) < ORDERS, what="the first transaction")
        process.kill()
    assert exists(pipeline)
    while exists(pipeline):
        erasure.work(60)
        pipeline.drain()
    assert remaining(pipeline) == {}
    assert not pipeline.database.documents(pipeline.environment)


def test_other_organizations_keep_everything(pipeline: Pipeline, erasure: Erasure, builder: Builder, name: str) -> None:
    """In the live generation, and in a generation kept for a rollback."""
    with pipeline.database.engine.begin() as connection:
        organizations.create(connection, "Other")
        other = pipeline._replace(environment=organizations.environment_id(connection, "Other", "live"))
    kept = other.insert_consumer("Kept")
    pipeline.drain()
    rebuild(pipeline, builder)
    assert generation_states(pipeline) == ["kept", "live"]
    delete(pipeline, name)
    while exists(pipeline):
        erasure.work(60)
        pipeline.drain()
    partitions = {table: rows for table, rows in remaining(other).items() if not table.startswith("changes_")}
    assert partitions == {"consumers": 1, "changes": 1}
    assert list(other.database.documents(other.environment)) == [kept]
    assert not pipeline.database.documents(pipeline.environment)


def test_late_document_of_a_frozen_worker_is_deleted(pipeline: Pipeline, erasure: Erasure, name: str) -> None:
    """The worker read the consumer before the deletion, and writes after the tombstone is gone and forgotten."""
    forget_deletes = {"index.gc_deletes": "0s"}  # as after the usual minute, or a restart of the node
    pipeline.database.search.indices.put_settings(index=pipeline.index_name, body=forget_deletes)
    late_id = next(iter(pipeline.database.documents(pipeline.environment)))
    version, source = pipeline.version(late_id), pipeline.source(late_id)
    delete(pipeline, name)
    while exists(pipeline):
        erasure.work(60)
        pipeline.drain()
    wait_until(lambda: pipeline.write_by_hand(late_id, version, source) == 200, what="OpenSearch to forget the delete")
    assert list(pipeline.database.documents(pipeline.environment)) == [late_id]
    assert erasure.purge_late_documents() == 1
    assert not pipeline.database.documents(pipeline.environment)
    assert pipeline.run("SELECT id FROM erased_environments ORDER BY id") != []
    pipeline.run("UPDATE erased_environments SET erased_at = erased_at - interval '8 days'")
    assert erasure.purge_late_documents() == 0
    assert pipeline.run("SELECT id FROM erased_environments") == []
