"""`kill -9` of the worker and of the API while an export runs: nothing half is listed, and it begins anew by itself."""

import signal
from pathlib import Path

import pytest

from infra.local.servers import LocalServers
from tests.api.exports import await_export, begin_export, download, opened
from tests.api.resources import create
from tests.indexer.exports import LOSE_CLAIMS, PATIENCE_SECONDS
from tests.indexer.halting_export import STEPS
from tests.service import CELERY, Service, new_account, new_database
from tests.waiting import wait_until

CONSUMERS = 20


class HaltingService(Service):
    COMMANDS = Service.COMMANDS | {
        "background": [
            "tests.guarantees.halting_exports" if word == CELERY[-1] else word
            for word in Service.COMMANDS["background"]
        ]
    }


@pytest.mark.parametrize("step", STEPS)
def test_export_survives_killed_worker_and_api_at_any_step(servers: LocalServers, tmp_path: Path, step: str) -> None:
    halt_file = tmp_path / "halted"
    # With the lock of a machine of its own, it does not wait for exports of other tests.
    environ = {"HALT_BEFORE": step, "HALT_FILE": str(halt_file), "TMPDIR": str(tmp_path)}
    with new_database(servers) as database:
        service = HaltingService(database, tmp_path, environ)
        try:
            for name in ("api", "background", "beat"):
                service.start(name)
            with new_account(service) as account:
                ids = {create(account.live, fullName=f"Person {number}")["id"] for number in range(CONSUMERS)}
                export = begin_export(account.live, personal=True)
                wait_until(halt_file.exists, PATIENCE_SECONDS, "the step")
                for name in ("background", "api"):
                    service.stop(name, signal.SIGKILL)
                service.start("api")
                killed = account.live.get(f"/exports/{export['id']}").json()
                assert (killed["state"], killed["files"]) == ("running", [])
                with database.engine.begin() as connection:
                    connection.exec_driver_sql(LOSE_CLAIMS)
                service.start("background")
                done = await_export(account.live, export)
                download(account.live, done, tmp_path / "files")
        finally:
            service.close()
    with opened(tmp_path / "files") as tables:
        assert {id_ for (id_,) in tables.execute("SELECT id FROM consumers").fetchall()} == ids
    stored = (tmp_path / "exports").glob(f"*/{export['id']}/*/*")
    assert sorted(path.name for path in stored) == sorted(file["name"] for file in done["files"])
