"""The sealing key: made once, replaced when lost, and with a deadline for the former formats after an upgrade."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from infra.accounts import keys, organizations
from infra.database import migrate, sealing_keys
from infra.database.engine import sqlalchemy_url
from infra.database.sealing_keys import SealingKey, SealingKeyMissing
from infra.local.servers import LocalServers
from tests.database.conftest import Environment, connected
from tests.databases import migrated_database

MIGRATIONS = Path(migrate.__file__).parent / "migrations"


@pytest.fixture
def environment(servers: LocalServers) -> Iterator[Environment]:
    """An environment in a database of its own, because these tests delete its key."""
    with migrated_database(servers, "sealing") as url, connected(url) as environment:
        yield environment


def read_keys(environment: Environment) -> list[SealingKey]:
    engine = sa.create_engine(sqlalchemy_url(environment.url))
    try:
        with engine.connect() as connection:
            return sealing_keys.read(connection)
    finally:
        engine.dispose()


def test_migrate_keeps_the_key(environment: Environment) -> None:
    [key] = read_keys(environment)
    assert key.unsealed_until is None
    migrate.upgrade(environment.url)
    assert read_keys(environment) == [key]


def test_migrate_replaces_a_lost_key(environment: Environment) -> None:
    [lost] = read_keys(environment)
    environment.run("DELETE FROM sealing_keys")
    with pytest.raises(SealingKeyMissing, match="run `consumers migrate`"):
        read_keys(environment)
    migrate.upgrade(environment.url)
    [key] = read_keys(environment)
    assert (key.id != lost.id, key.secret != lost.secret, key.unsealed_until) == (True, True, None)


def test_former_formats_are_accepted_for_a_day_after_an_upgrade(environment: Environment) -> None:
    engine = sa.create_engine(sqlalchemy_url(environment.url))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        organizations.create(connection, "upgraded")
        keys.create(connection, "upgraded", "live")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        connection.commit()
    with pytest.raises(SealingKeyMissing):
        read_keys(environment)
    migrate.upgrade(environment.url)
    [key] = read_keys(environment)
    assert key.unsealed_until
    assert timedelta(hours=23) < key.unsealed_until - datetime.now(UTC) < timedelta(hours=25)
    engine.dispose()
