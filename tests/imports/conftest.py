"""A migrated database, and a new organization for each test."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql
from sqlalchemy import make_url

from infra.database.migrate import upgrade
from infra.imports.run import connect
from infra.imports.staging import Db
from infra.local.servers import LocalServers
from tests.imports.import_environment import ImportEnvironment


@pytest.fixture(scope="session")
def database_url(servers: LocalServers) -> Iterator[str]:
    server, name = servers.addresses["database_url"], f"imports_{uuid4().hex}"
    with closing(connect(server)) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        upgrade(url)
        yield url
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


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
