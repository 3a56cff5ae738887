"""The limit of what an environment stores: measured from samples, and refused by the API."""

import os

import sqlalchemy as sa

from indexer import stored_size
from infra.accounts import organizations
from tests.service import NO_LIMITS, Account, Database, Service, new_account

MEBIBYTE = 1024 * 1024


def insert_consumers(database: Database, environment: int, number: int, digits: int = 4000) -> None:
    """Insert consumers with random digits as metadata."""
    with database.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO consumers (environment_id, metadata) "
                "VALUES (:e, jsonb_build_object('a', CAST(:text AS text)))"
            ),
            [{"e": environment, "text": os.urandom(digits // 2).hex()} for _ in range(number)],
        )


def stored_mib(database: Database, environment: int) -> int:
    with database.engine.connect() as connection:
        query = sa.text("SELECT stored_mib FROM environments WHERE id = :id")
        return int(connection.execute(query, {"id": environment}).scalar_one())


def row_mib(database: Database, environment: int) -> int:
    with database.engine.connect() as connection:
        query = sa.text("SELECT sum(pg_column_size(c.*)) FROM consumers c WHERE environment_id = :id")
        return int(connection.execute(query, {"id": environment}).scalar_one()) // MEBIBYTE


def any_consumer(account: Account) -> str:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT id FROM consumers WHERE environment_id = :id LIMIT 1")
        return str(connection.execute(query, {"id": account.live_environment}).scalar_one())


def test_a_small_table_is_measured_exactly(account: Account) -> None:
    insert_consumers(account.database, account.live_environment, 1000)
    stored_size.measure(account.database.engine)
    stored = stored_mib(account.database, account.live_environment)
    assert stored == row_mib(account.database, account.live_environment) > 1
    assert stored_mib(account.database, account.test_environment) == 0


def test_a_sample_never_exceeds_the_stored_size(quiet: Database) -> None:
    with quiet.engine.begin() as connection:
        organizations.create(connection, "sampled")
        environment = organizations.environment_id(connection, "sampled", "live")
    # Short enough to be stored in the table's own pages. A sample of 60 pages is wrong by 13 %: a mebibyte.
    insert_consumers(quiet, environment, 6000, digits=1000)
    exact = row_mib(quiet, environment)
    measured = []
    for _ in range(60):
        stored_size.measure(quiet.engine, pages=60)
        measured.append(stored_mib(quiet, environment))
    assert 0 < min(measured) <= max(measured) <= exact


def test_writes_over_the_limit_are_refused_and_deletes_are_not(service: Service) -> None:
    with new_account(service, limits={**NO_LIMITS, "stored_mib": 1}) as full, new_account(service) as other:
        # By SQL, because an API process remembers a key and its environment for seconds.
        insert_consumers(full.database, full.live_environment, 700)
        stored_size.measure(full.database.engine)
        assert stored_mib(full.database, full.live_environment) >= 1
        consumer = any_consumer(full)
        for refused in (
            full.live.post("/consumers", json={}),
            full.live.post("/consumers/batch", json=[{}]),
            full.live.put(f"/consumers/{consumer}", json={"fullName": "Second"}),
            full.live.post("/orders", json={}),
            full.live.post("/audiences", json={"name": "a", "type": "STATIC"}),
        ):
            assert (refused.status_code, refused.json()["error"]) == (403, "Storage limit reached")
        assert full.live.get(f"/consumers/{consumer}").json()["fullName"] is None
        assert full.live.delete(f"/consumers/{consumer}").status_code == 200
        assert full.test.post("/consumers", json={}).status_code == 201
        assert other.live.post("/consumers", json={}).status_code == 201


def test_a_limit_of_an_organization_replaces_the_default(account: Account) -> None:
    with account.database.engine.begin() as connection:
        organizations.set_limits(connection, account.name, {"stored_mib": 0})
        set_stored = sa.text("UPDATE environments SET stored_mib = 1000000 WHERE id = :id")
        connection.execute(set_stored, {"id": account.live_environment})
        connection.execute(set_stored, {"id": account.test_environment})
    assert account.live.post("/consumers", json={}).status_code == 201
