"""Loading the sample data into a real database."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.accounts import keys, organizations
from infra.local.sample import ensure_demo
from infra.local.sample.consumers import COUNT, persons
from infra.local.sample.orders import orders
from infra.local.servers import LocalServers
from tests.service import Database, new_database
from tests.waiting import wait_until

START = """
from pathlib import Path
from sys import argv
from infra import settings
from infra.local import sample
sample.ensure_demo(settings.load(), Path(argv[1]))
"""
STATE = """
    SELECT (SELECT count(*) FROM consumers), (SELECT count(*) FROM orders), (SELECT max(version) FROM consumers),
           (SELECT count(*) FROM api_keys), (SELECT max(seq) FROM outbox), (SELECT count(*) FROM organizations)"""
BLOCKED = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
TOTALS_DIFFER = """
    SELECT count(*) FROM consumers c LEFT JOIN (
        SELECT consumer_id, count(*) AS n, sum(value) AS v, max(placed_at) AS newest FROM orders WHERE counts GROUP BY 1
    ) o ON o.consumer_id = c.id
    WHERE (c.total_orders, c.total_order_value) <> (coalesce(o.n, 0), coalesce(o.v, 0))
        OR c.last_order_at IS DISTINCT FROM o.newest"""


@pytest.fixture(scope="module")
def database(servers: LocalServers) -> Iterator[Database]:
    """A database with the sample data."""
    with new_database(servers) as database:
        yield database


def read_row(database: Database, query: str) -> tuple[int, ...]:
    with database.engine.connect() as connection:
        return tuple(connection.execute(sa.text(query)).one())


def ids(database: Database, table: str) -> set[str]:
    with database.engine.connect() as connection:
        return set(connection.execute(sa.text(f"SELECT id FROM {table}")).scalars())


def find_key(database: Database, secret: str) -> keys.Key:
    with database.engine.connect() as connection:
        key = keys.find(connection, secret)
    assert key
    return key


def test_generated_data_is_stored_in_the_bulk_lane_with_totals(database: Database, tmp_path: Path) -> None:
    ensure_demo(database.settings, tmp_path)
    people = list(persons())
    assert ids(database, "consumers") == {person.consumer.id for person in people}
    assert ids(database, "orders") == {order.id for order in orders(people)}
    assert read_row(database, TOTALS_DIFFER) == (0,)
    assert read_row(database, "SELECT count(*) FROM outbox WHERE lane <> 'bulk'") == (0,)


def test_demo_key_has_default_scopes_and_a_private_file(database: Database, tmp_path: Path) -> None:
    secret = ensure_demo(database.settings, tmp_path / "new" / "folder")
    file = tmp_path / "new" / "folder" / "demo.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == secret
    key = find_key(database, secret)
    assert (key.organization, key.mode, key.scopes) == ("demo", "live", list(keys.SCOPES))


def test_second_start_changes_nothing(database: Database, tmp_path: Path) -> None:
    secret = ensure_demo(database.settings, tmp_path)
    before = read_row(database, STATE)
    assert ensure_demo(database.settings, tmp_path) == secret
    assert read_row(database, STATE) == before


@pytest.mark.parametrize("loss", ["file lost", "file damaged", "revoked", "of the test environment"])
def test_unusable_demo_key_is_replaced_and_data_is_kept(database: Database, tmp_path: Path, loss: str) -> None:
    secret = ensure_demo(database.settings, tmp_path)
    file, before = tmp_path / "demo.key", read_row(database, STATE)
    with database.engine.begin() as connection:
        match loss:
            case "file lost":
                file.unlink()
            case "file damaged":
                file.write_bytes(b"\xff\0")
            case "revoked":
                keys.revoke(connection, find_key(database, secret).id)
            case _:
                file.write_text(keys.create(connection, "demo", "test").key)
    again = ensure_demo(database.settings, tmp_path)
    assert again != secret
    assert find_key(database, again).revoked_at is None
    after = read_row(database, STATE)
    assert after[:3] + after[4:] == before[:3] + before[4:]


def test_existing_organization_named_demo_is_not_changed(quiet: Database, tmp_path: Path) -> None:
    with quiet.engine.begin() as connection:
        organizations.create(connection, "demo", currency="GBP")
    ensure_demo(quiet.settings, tmp_path)
    assert read_row(quiet, STATE)[0] == 0


def test_killed_load_leaves_nothing_and_the_next_start_loads_all(quiet: Database, tmp_path: Path) -> None:
    environ = os.environ | quiet.environ
    with quiet.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE orders"))
        with subprocess.Popen([sys.executable, "-c", START, str(tmp_path)], env=environ) as process:
            wait_until(lambda: read_row(quiet, BLOCKED)[0], what="the first order")
            process.send_signal(signal.SIGKILL)
    wait_until(lambda: read_row(quiet, "SELECT 1 - count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")[0])
    assert read_row(quiet, STATE)[0] == 0
    ensure_demo(quiet.settings, tmp_path)
    assert read_row(quiet, STATE)[0] == COUNT
    assert read_row(quiet, TOTALS_DIFFER) == (0,)


def test_concurrent_starts_load_the_data_once(quiet: Database, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as starts:
        folders = (tmp_path / "one", tmp_path / "two")
        secrets = list(starts.map(lambda folder: ensure_demo(quiet.settings, folder), folders))
    assert read_row(quiet, STATE)[0] == COUNT
    assert all(find_key(quiet, secret).revoked_at is None for secret in secrets)
