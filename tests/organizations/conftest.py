"""The command `consumers` on a separate database."""

from collections.abc import Iterator

import pytest

from infra.local.servers import LocalServers
from tests.cli import ConsumersCommand, consumers_command
from tests.service import Database, new_database


@pytest.fixture(scope="module")
def database(servers: LocalServers) -> Iterator[Database]:
    with new_database(servers) as database:
        yield database


@pytest.fixture
def consumers(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ConsumersCommand:
    return consumers_command(database, monkeypatch, capsys)
