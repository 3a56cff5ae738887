"""Migrations beside running transactions, and beside a later release."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from infra.database import migrate
from infra.database.engine import sqlalchemy_url
from infra.database.migrate import MigrationError, Schema
from infra.local.servers import LocalServers
from tests.database.conftest import Environment, connected
from tests.database.test_sealing_keys import MIGRATIONS
from tests.databases import migrated_database
from tests.waiting import wait_until

LATER = "9999"


@pytest.fixture
def environment(servers: LocalServers) -> Iterator[Environment]:
    """An environment in a database of its own, because these tests change its schema."""
    with migrated_database(servers, "migrations") as url, connected(url) as environment:
        yield environment


@pytest.fixture
def outdated(environment: Environment) -> Environment:
    """The database before the migration that adds a column to `generations`."""
    downgrade(environment, "0013")
    return environment


def downgrade(environment: Environment, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = sa.create_engine(sqlalchemy_url(environment.url))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()
    engine.dispose()


def read_schema(environment: Environment) -> Schema:
    engine = sa.create_engine(sqlalchemy_url(environment.url))
    try:
        with engine.connect() as connection:
            return migrate.schema(connection)
    finally:
        engine.dispose()


def test_migration_lets_queries_pass_while_the_table_is_in_use(outdated: Environment) -> None:
    attempts: list[str] = []
    with ThreadPoolExecutor(1) as pool, outdated.connect() as reader:
        with reader.transaction():
            reader.execute("SELECT FROM generations, consumers LIMIT 1")
            upgrade = pool.submit(migrate.upgrade, outdated.url, report=attempts.append)
            wait_until(lambda: attempts, what="an attempt to end")
            outdated.rows("SELECT FROM generations")
            outdated.consumer()
            assert not read_schema(outdated).is_current
            assert not upgrade.done()
        upgrade.result()
    assert read_schema(outdated).is_current
    assert "in use by a long transaction" in attempts[0]


def test_index_is_built_beside_writes_and_a_second_migration(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build waits for open transactions, and no write waits for the build."""
    monkeypatch.setattr(migrate, "PATIENCE_SECONDS", 5.0)
    downgrade(environment, "0024")
    consumer = environment.consumer()
    # As an interrupted build leaves it.
    environment.run("CREATE INDEX orders_by_update ON orders (updated_at)")
    environment.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_by_update'::regclass")
    is_valid: LiteralString = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('orders_by_update')"
    reported: list[str] = []
    activity: LiteralString = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s"
    with ThreadPoolExecutor(2) as pool, environment.connect() as writer:
        with writer.transaction():
            writer.execute("UPDATE orders SET status = 'COMPLETED'")
            upgrades = [pool.submit(migrate.upgrade, environment.url, report=reported.append) for _ in range(2)]
            wait_until(lambda: environment.rows(activity, "%INDEX CONCURRENTLY%"), what="the first migration")
            wait_until(lambda: "another process" in "".join(reported), what="the second migration")
            environment.order(consumer)
            assert environment.rows(is_valid) != [(True,)]
        for upgrade in upgrades:
            upgrade.result()
    assert environment.value(is_valid)
    assert read_schema(environment).is_current


def test_migration_gives_up_with_a_remedy(outdated: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "PATIENCE_SECONDS", 0.0)
    with outdated.connect() as reader, reader.transaction():
        reader.execute("SELECT FROM generations, consumers LIMIT 1")
        with pytest.raises(MigrationError, match="end long transactions"):
            migrate.upgrade(outdated.url)
    migrate.upgrade(outdated.url)
    assert read_schema(outdated).is_current


def test_addresses_of_before_are_stored_under_their_keys_and_twins_kept(environment: Environment) -> None:
    rows = {
        "punycode": "Ann@xn--bcher-kva.de",
        "unicode": "ann@bücher.com",
        "twin": "ann@xn--bcher-kva.com",
        "wide": "ｂｅｎ@shop.example",
        "plain": "Cid@shop.example",
    }
    for name, email in rows.items():
        environment.run(
            "INSERT INTO consumers (environment_id, full_name, email) VALUES (%s, %s, %s)", environment.id, name, email
        )
    reported: list[str] = []
    migrate.upgrade(environment.url, report=reported.append)
    assert "1 e-mail addresses have another spelling" in reported[0]
    stored = {name: row for name, *row in environment.rows("SELECT full_name, email, email_as_sent FROM consumers")}
    assert stored == {
        "punycode": ["ann@bücher.de", "Ann@xn--bcher-kva.de"],
        "unicode": ["ann@bücher.com", None],
        "twin": ["ann@xn--bcher-kva.com", None],
        "wide": ["ben@shop.example", "ｂｅｎ@shop.example"],
        "plain": ["Cid@shop.example", None],
    }
    # As the release before changes them.
    environment.run("UPDATE consumers SET email = 'new@shop.example' WHERE full_name = 'punycode'")
    environment.run("UPDATE consumers SET phone = '123' WHERE full_name = 'wide'")
    sent: dict[str, Any] = dict(
        environment.rows("SELECT full_name, email_as_sent FROM consumers WHERE full_name IN ('punycode', 'wide')")
    )
    assert sent == {"punycode": None, "wide": "ｂｅｎ@shop.example"}


def test_schema_of_a_later_release_is_left_as_it_is(environment: Environment) -> None:
    environment.run("UPDATE alembic_version SET version_num = %s", LATER)
    environment.run("DELETE FROM sealing_keys")
    reported: list[str] = []
    migrate.upgrade(environment.url, report=reported.append)
    assert read_schema(environment) == Schema(LATER, is_current=False, is_newer=True)
    assert f"migration {LATER} of a later release" in reported[0]
    assert environment.rows("SELECT FROM sealing_keys"), "the other steps are done"
