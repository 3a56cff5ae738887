"""The sample data in a real database."""

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
    """One that has the sample data."""
    with new_database(servers) as database:
        yield database


def one(database: Database, query: str) -> tuple[int, ...]:
    with database.engine.connect() as connection:
        return tuple(connection.execute(sa.text(query)).one())


def ids(database: Database, table: str) -> set[str]:
    with database.engine.connect() as connection:
        return set(connection.execute(sa.text(f"SELECT id FROM {table}")).scalars())


def found(database: Database, secret: str) -> keys.Key:
    with database.engine.connect() as connection:
        key = keys.find(connection, secret)
    assert key
    return key


def test_everything_made_up_is_there_in_the_bulk_lane_with_its_totals(database: Database, tmp_path: Path) -> None:
    ensure_demo(database.settings, tmp_path)
    people = list(persons())
    assert ids(database, "consumers") == {person.consumer.id for person in people}
    assert ids(database, "orders") == {order.id for order in orders(people)}
    assert one(database, TOTALS_DIFFER) == (0,)
    assert one(database, "SELECT count(*) FROM outbox WHERE lane <> 'bulk'") == (0,)


def test_the_key_opens_all_but_administration_and_is_its_owners_alone(database: Database, tmp_path: Path) -> None:
    secret = ensure_demo(database.settings, tmp_path / "new" / "folder")
    file = tmp_path / "new" / "folder" / "demo.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == secret
    key = found(database, secret)
    assert (key.organization, key.mode, key.scopes) == ("demo", "live", list(keys.DEFAULT_SCOPES))


def test_a_second_start_touches_nothing(database: Database, tmp_path: Path) -> None:
    secret = ensure_demo(database.settings, tmp_path)
    before = one(database, STATE)
    assert ensure_demo(database.settings, tmp_path) == secret
    assert one(database, STATE) == before


@pytest.mark.parametrize("loss", ["file lost", "file damaged", "revoked", "of the test environment"])
def test_a_key_that_opens_nothing_is_replaced_and_the_data_stays(database: Database, tmp_path: Path, loss: str) -> None:
    secret = ensure_demo(database.settings, tmp_path)
    file, before = tmp_path / "demo.key", one(database, STATE)
    with database.engine.begin() as connection:
        match loss:
            case "file lost":
                file.unlink()
            case "file damaged":
                file.write_bytes(b"\xff\0")
            case "revoked":
                keys.revoke(connection, found(database, secret).id)
            case _:
                file.write_text(keys.create(connection, "demo", "test").key)
    again = ensure_demo(database.settings, tmp_path)
    assert again != secret
    assert found(database, again).revoked_at is None
    after = one(database, STATE)
    assert after[:3] + after[4:] == before[:3] + before[4:]


def test_an_organization_that_is_called_demo_is_left_alone(quiet: Database, tmp_path: Path) -> None:
    with quiet.engine.begin() as connection:
        organizations.create(connection, "demo", currency="GBP")
    ensure_demo(quiet.settings, tmp_path)
    assert one(quiet, STATE)[0] == 0


def test_killed_half_way_it_leaves_nothing_and_the_next_start_makes_it_whole(quiet: Database, tmp_path: Path) -> None:
    environ = os.environ | quiet.environ
    with quiet.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE orders"))
        with subprocess.Popen([sys.executable, "-c", START, str(tmp_path)], env=environ) as process:
            wait_until(lambda: one(quiet, BLOCKED)[0], what="its first order")
            process.send_signal(signal.SIGKILL)
    wait_until(lambda: one(quiet, "SELECT 1 - count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")[0])
    assert one(quiet, STATE)[0] == 0
    ensure_demo(quiet.settings, tmp_path)
    assert one(quiet, STATE)[0] == COUNT
    assert one(quiet, TOTALS_DIFFER) == (0,)


def test_two_starts_at_once_make_it_once(quiet: Database, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as starts:
        folders = (tmp_path / "one", tmp_path / "two")
        secrets = list(starts.map(lambda folder: ensure_demo(quiet.settings, folder), folders))
    assert one(quiet, STATE)[0] == COUNT
    assert all(found(quiet, secret).revoked_at is None for secret in secrets)
