"""A migrated database, and a new organization for each test."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from infra.imports.run import connect
from infra.imports.staging import Db
from infra.local.servers import LocalServers
from tests.databases import migrated_database
from tests.imports.import_environment import ImportEnvironment


@pytest.fixture(scope="session")
def database_url(servers: LocalServers) -> Iterator[str]:
    with migrated_database(servers, "imports") as url:
        yield url


@pytest.fixture
def connection(database_url: str) -> Iterator[Db]:
    with closing(connect(database_url)) as opened:
        yield opened


@pytest.fixture
def shop(connection: Db, database_url: str, tmp_path: Path) -> ImportEnvironment:
    return ImportEnvironment(connection, database_url, tmp_path)


@pytest.fixture
def new_shop(connection: Db, database_url: str, tmp_path: Path) -> Callable[[], ImportEnvironment]:
    """A function creating a new environment, for tests with many examples."""
    return lambda: ImportEnvironment(connection, database_url, tmp_path)
