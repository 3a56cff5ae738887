"""PgBouncer: sessions keep their settings, transaction mode is refused, or serves the requests of the API."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from infra.database.engine import open_async_engine, open_connection, open_engine
from infra.database.pooling import OPTIONS_REFUSED, TRANSACTION_MODE
from infra.local.servers import LocalServers
from infra.settings import Settings, SettingsError
from tests.deployment.pgbouncer import PgBouncer, needs_pgbouncer
from tests.service import Database, PatientService, new_account, new_database

pytestmark = needs_pgbouncer

OPTIONS = {"ignore_startup_parameters": "options"}
SHOWN = sa.text("""
    SELECT current_setting('timezone'), current_setting('idle_in_transaction_session_timeout'),
        current_setting('default_transaction_isolation')""")
EXPECTED = ("UTC", "15s", "read committed")


@pytest.fixture(scope="module")
def database(servers: LocalServers) -> Iterator[Database]:
    """A database with another time zone, as on a server with other defaults."""
    with new_database(servers) as database:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
            connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET timezone = 'Europe/Paris'")
        yield database


@contextmanager
def pooled(database: Database, folder: Path, **settings: str | int) -> Iterator[Settings]:
    """Settings with the address of a pooler."""
    pooler = PgBouncer(folder, database.settings.database_url, **settings)
    pooler.start()
    try:
        yield msgspec.structs.replace(database.settings, database_url=pooler.url)
    finally:
        pooler.stop()


def shown_by_worker(chosen: Settings) -> tuple[str, ...]:
    engine = open_engine(chosen, name="live")
    try:
        with engine.connect() as connection:
            return tuple(connection.execute(SHOWN).one())
    finally:
        engine.dispose()


def shown_by_api(chosen: Settings) -> tuple[str, ...]:
    async def show() -> tuple[str, ...]:
        engine = open_async_engine(chosen)
        try:
            async with engine.connect() as connection:
                return tuple((await connection.execute(SHOWN)).one())
        finally:
            await engine.dispose()

    return asyncio.run(show())


def shown_by_import(chosen: Settings) -> tuple[str, ...]:
    with closing(open_connection(chosen.session_url)) as connection:
        row = connection.execute(str(SHOWN).encode()).fetchone()
        assert row
        return tuple(row)


CLIENTS = (shown_by_worker, shown_by_api, shown_by_import)


def test_options_that_a_session_pooler_drops_are_set_again(database: Database, tmp_path: Path) -> None:
    with pooled(database, tmp_path, pool_mode="session", **OPTIONS) as chosen:
        assert [client(chosen) for client in CLIENTS] == [EXPECTED] * len(CLIENTS)


def test_session_pooler_without_a_free_session_is_not_refused(database: Database, tmp_path: Path) -> None:
    with pooled(database, tmp_path, pool_mode="session", default_pool_size=1, **OPTIONS) as chosen:
        assert shown_by_worker(chosen) == EXPECTED


def test_pooler_in_transaction_mode_is_refused(database: Database, tmp_path: Path) -> None:
    with pooled(database, tmp_path, pool_mode="transaction", **OPTIONS) as chosen:
        for client in CLIENTS:
            with pytest.raises(SettingsError) as refusal:
                client(chosen)
            assert str(refusal.value) == TRANSACTION_MODE


def test_pooler_that_refuses_options_is_explained(database: Database, tmp_path: Path) -> None:
    with pooled(database, tmp_path, pool_mode="session") as chosen:
        for client in (shown_by_worker, shown_by_api):
            with pytest.raises(SettingsError) as refusal:
                client(chosen)
            assert str(refusal.value) == OPTIONS_REFUSED


CONSUMERS = str(Path(sys.executable).with_name("consumers"))
COMMANDS = [("-m", "api.server"), ("-m", "celery", "-A", "indexer.worker", "beat"), (CONSUMERS, "migrate")]


@pytest.mark.parametrize("command", COMMANDS)
def test_process_does_not_start_behind_a_pooler_in_transaction_mode(
    database: Database, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with pooled(database, tmp_path, pool_mode="transaction", **OPTIONS) as chosen:
        environ = database.environ | {"DATABASE_URL": chosen.database_url}
        ended = run_python(command, environ)
        assert ended.returncode != 0
        assert TRANSACTION_MODE in ended.stdout + ended.stderr


def run_python(arguments: tuple[str, ...], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_requests_use_a_pooler_in_transaction_mode(database: Database, tmp_path: Path) -> None:
    """More connections of the API than sessions: each transaction may get another session."""
    with ExitStack() as stack:
        chosen = stack.enter_context(pooled(database, tmp_path, pool_mode="transaction"))
        both = {"DATABASE_URL": chosen.database_url, "DATABASE_SESSION_URL": database.settings.database_url}
        service = PatientService(database, tmp_path, both)
        stack.callback(service.close)
        service.start_all()
        account = stack.enter_context(new_account(service))

        def post(number: int) -> tuple[int, str]:
            response = account.live.post("/consumers", json={"fullName": f"Person {number}"})
            return response.status_code, response.json().get("createdAt", "")

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(post, range(120)))
        assert {status for status, _ in answers} == {201}
        with database.engine.connect() as connection:
            now = connection.execute(sa.text("SELECT to_char(now(), 'YYYY-MM-DD\"T\"HH24')")).scalar_one()
        assert {time[:13] for _, time in answers} <= {now, answers[0][1][:13]}
        account.settled()
        assert account.live.get("/consumers", params={"first": 1, "count": "true"}).json()["totalCount"] == 120
        pooled_shown = msgspec.structs.replace(chosen, database_session_url=database.settings.database_url)
        assert shown_by_api(pooled_shown) == EXPECTED
