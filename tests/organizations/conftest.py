"""The command `consumers`, on a database of its own."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from infra.cli import main
from infra.local.servers import LocalServers
from tests.service import Database, new_database


class Said(NamedTuple):
    code: int
    out: str
    err: str


Consumers = Callable[..., Said]


@pytest.fixture(scope="module")
def database(servers: LocalServers) -> Iterator[Database]:
    with new_database(servers) as database:
        yield database


@pytest.fixture
def consumers(database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Consumers:
    for name, value in database.environ.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr("sys.argv", ["consumers", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
