"""The recipe of docs/analysts-tools.md on a real standby: analysts reach the standby alone, and cannot write there."""

from pathlib import Path

import psycopg
import pytest

from infra.database import migrate
from tests.analysts.standby import GROUP, VIEWS, analysts_url, install, rows
from tests.cluster.replicated_postgres import Pair
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_analyst_reads_the_standby_and_is_rejected_by_the_primary(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    try:
        primary, standby = pair.primary, pair.standby
        migrate.upgrade(primary.url)
        with primary.connect() as owner:
            install(owner)
            access = primary.data / "pg_hba.conf"
            access.write_text(f"host all +{GROUP} all reject\n{access.read_text()}")
            owner.execute("SELECT pg_reload_conf()")
            [(written,)] = rows(owner, "SELECT pg_current_wal_lsn()")
        with standby.connect() as replica:
            wait_until(lambda: rows(replica, f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])
        wait_until(lambda: _is_rejected(analysts_url(primary.url)), what="the reload")
        with psycopg.connect(analysts_url(standby.url), autocommit=True) as analyst:
            assert {len(rows(analyst, f"SELECT * FROM {view}")) for view in VIEWS} == {5, 1}
            for statement in ("CREATE TEMP TABLE t ()", "CREATE FUNCTION pg_temp.f() RETURNS int RETURN 1"):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    analyst.execute(statement.encode())
    finally:
        pair.stop()


def _is_rejected(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return "pg_hba.conf rejects" in str(error)
    return False
