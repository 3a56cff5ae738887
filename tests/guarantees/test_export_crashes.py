"""PostgreSQL killed while an export runs: nothing half is listed, and the export ends or begins anew."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.servers import LocalServers
from tests.guarantees.conftest import start
from tests.indexer.exports import LOSE_CLAIMS, PATIENCE_SECONDS, Exports, halted
from tests.indexer.halting_export import STEPS
from tests.service import new_database


@pytest.fixture
def exports(own_servers: LocalServers, tmp_path: Path) -> Iterator[Exports]:
    with new_database(own_servers) as database:
        environment = Exports(database, (tmp_path / "store").as_uri())
        yield environment
        environment.exporter.close()


@pytest.mark.parametrize("step", STEPS)
def test_export_survives_a_killed_database_at_any_step(exports: Exports, own_servers: LocalServers, step: str) -> None:
    is_away = step in {"copying", "finish"}
    export_id = exports.request()
    with halted(exports, step) as process:
        own_servers.postgres.kill()
        if not is_away:
            start(own_servers.postgres)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(PATIENCE_SECONDS) == 0
    if is_away:
        start(own_servers.postgres)
    export = exports.find(export_id)
    if export.state != "done":
        assert (export.state in {"queued", "running"}, export.files) == (True, [])
        exports.execute(LOSE_CLAIMS)
        export = exports.finish(export_id)
    exports.assert_complete(export)
