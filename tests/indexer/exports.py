"""An environment with rows, and exports of it by the exporter of a worker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from indexer.exports import claims, exporter
from indexer.exports.exporter import Exporter
from indexer.exports.heartbeat import Heartbeat
from indexer.exports.run import run
from infra.accounts import organizations
from infra.exports import requests
from infra.exports.store import open_store
from infra.exports.tables import TABLES
from tests.indexer import halting_export
from tests.service import Database
from tests.waiting import wait_until

CONSUMERS = 7
PATIENCE_SECONDS = 120
"""For a step of the process."""
INSERT = sa.text("""
    WITH c AS (
        INSERT INTO consumers (environment_id, email) SELECT :e, n || '@example.com' FROM generate_series(1, :n) n
        RETURNING id)
    INSERT INTO orders (environment_id, consumer_id, amount, base_amount, currency_code)
    SELECT :e, id, 5, 5, 'USD' FROM c""")
LOSE_CLAIMS = "UPDATE exports SET heartbeat_at = heartbeat_at - interval '1 hour', retry_at = NULL"


class Exports:
    """An environment with rows, the exporter of a worker, and the store."""

    def __init__(self, database: Database, exports_url: str) -> None:
        self.database = database
        self.settings = msgspec.structs.replace(database.settings, exports_url=exports_url)
        self.engine, self.exporter, self.store = database.engine, Exporter(self.settings), open_store(self.settings)
        with self.engine.begin() as connection:
            organizations.create(connection, "shop")
            self.environment = organizations.environment_id(connection, "shop", "live")
            connection.execute(INSERT, {"e": self.environment, "n": CONSUMERS})

    def request(self) -> str:
        with self.engine.begin() as connection:
            return requests.request(
                connection, self.environment, tables=TABLES[:3], file_format="parquet", personal=False, key_id=None
            ).id

    def find(self, export_id: str) -> requests.Export:
        with self.engine.connect() as connection:
            export = requests.find(connection, self.environment, export_id)
        assert export
        return export

    def finish(self, export_id: str, folder: Path | None = None) -> requests.Export:
        """Make the next export in the process of the test, with temporary files below the folder."""
        claimed = claims.claim(self.engine)
        assert claimed
        heartbeat = Heartbeat(self.engine, claimed)
        spool = (folder or Path(gettempdir())) / "spool"
        run(self.settings, self.engine, spool, claimed, heartbeat)
        heartbeat.stop()
        assert not spool.exists()
        return self.find(export_id)

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def stored(self, export_id: str) -> list[str]:
        """Return the names of all stored files of an export, of all attempts."""
        assert self.store.folder
        return sorted(path.name for path in self.store.folder.glob(f"*/{export_id}/*/*"))

    def assert_complete(self, export: requests.Export) -> None:
        """Check that an export has all rows, and that the store has its files and no others of it."""
        assert (export.state, [file.rows for file in export.files]) == ("done", [CONSUMERS, CONSUMERS, 0, None, None])
        assert sorted(file.name for file in export.files) == self.stored(export.id)


@contextmanager
def halted(exports: Exports, step: str) -> Iterator[Popen[bytes]]:
    """Start the next export in a process that halts before a step."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        there = Path(folder) / "there"
        patch.setenv("HALT_BEFORE", step)
        patch.setenv("HALT_FILE", str(there))
        patch.setattr(exporter, "MODULE", halting_export.__name__)
        patch.setattr(exporter, "_lower_priority", lambda _: None)  # beside other tests, the process would be slow
        process = wait_until(lambda: _started(exports.exporter), PATIENCE_SECONDS, "the process")
        assert process
        assert process.stdin
        with process.stdin:
            wait_until(there.exists, PATIENCE_SECONDS, "the step")
            yield process


def _started(exporter: Exporter) -> Popen[bytes] | None:
    """Start the next export, unless another one runs on this machine: of the service for all tests."""
    before = exporter.process
    exporter.work()
    return None if exporter.process is before else exporter.process
