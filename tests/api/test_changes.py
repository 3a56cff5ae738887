"""The feeds of changes: no committed change is missed, whatever the order in which transactions begin and commit."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from api.changes.feed import OBJECTS_AT_A_TIME
from tests.api.resources import create, faults
from tests.mirror import Mirror
from tests.service import Account

CONSUMERS, ORDERS = "/consumers/changes", "/orders/changes"
WRITERS = 3


def test_changes_of_consumers_are_read_in_order(account: Account) -> None:
    reader = Mirror(account.live, "consumers")
    ann, ben = create(account.live, fullName="Ann"), create(account.live, fullName="Ben")
    assert reader.read() == [("created", ann["id"]), ("created", ben["id"])]
    account.live.put(f"/consumers/{ann['id']}", json={"fullName": "Ann Lee"}).raise_for_status()
    account.live.delete(f"/consumers/{ben['id']}").raise_for_status()
    assert reader.read() == [("updated", ann["id"]), ("deleted", ben["id"])]
    assert list(reader.copy.values()) == [account.live.get(f"/consumers/{ann['id']}").json()]
    account.live.put(f"/consumers/{ann['id']}", json={"fullName": "Ann Lee"}).raise_for_status()
    assert reader.read() == []
    assert Mirror(account.live, "consumers").read() == []


def test_changes_of_orders_and_their_consumer(account: Account) -> None:
    consumer = create(account.live)
    consumers, orders = Mirror(account.live, "consumers"), Mirror(account.live, "orders")
    order = account.live.post("/orders", json={"consumerId": consumer["id"], "amount": "5"}).json()
    assert (orders.read(), consumers.read()) == ([("created", order["id"])], [("updated", consumer["id"])])
    # The totals do not change, so the consumer does not.
    account.live.put(f"/orders/{order['id']}", json={"metadata": {"gift": True}}).raise_for_status()
    assert (orders.read(), consumers.read()) == ([("updated", order["id"])], [])
    assert orders.copy == {order["id"]: account.live.get(f"/orders/{order['id']}").json()}
    account.live.delete(f"/consumers/{consumer['id']}").raise_for_status()
    assert (orders.read(), consumers.read()) == ([("deleted", order["id"])], [("deleted", consumer["id"])])


def test_pages_of_any_size_contain_every_change_once(account: Account) -> None:
    reader = Mirror(account.live, "consumers")
    names = [{"fullName": f"Name {number}"} for number in range(OBJECTS_AT_A_TIME + 7)]
    made = account.live.post("/consumers/batch", json=names).raise_for_status().json()
    last = create(account.live)
    expected = [("created", consumer["id"]) for consumer in [*made, last]]
    begin = reader.cursor
    for size in (1, 7, OBJECTS_AT_A_TIME, len(expected), 500):
        reader.cursor = begin
        assert reader.read(size) == expected


def test_large_objects_end_a_page_early(account: Account) -> None:
    reader = Mirror(account.live, "consumers")
    items = [{"metadata": {"text": "x" * 15_000}} for _ in range(3 * OBJECTS_AT_A_TIME)]
    made = account.live.post("/consumers/batch", json=items).raise_for_status().json()
    page = account.live.get(CONSUMERS, params={"after": reader.cursor, "first": 500}).json()
    assert len(page["data"]) == 2 * OBJECTS_AT_A_TIME
    assert page["pageInfo"]["hasNextPage"]
    assert reader.read() == [("created", consumer["id"]) for consumer in made]


class Writers(NamedTuple):
    """Database sessions that write consumers of an environment by SQL, as an operator does."""

    connections: Sequence[psycopg.Connection[Any]]
    environment_id: int

    def insert(self, writer: int) -> None:
        statement = "INSERT INTO consumers (environment_id) VALUES (%s)"
        self.connections[writer].execute(statement, (self.environment_id,))

    def change(self, writer: int, verb: str) -> None:
        """Change or delete the newest consumer that no other writer has locked."""
        newest = (
            """SELECT id FROM consumers WHERE environment_id = %s ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED"""
        )
        statement = f"{verb} WHERE id IN ({newest})"
        self.connections[writer].execute(statement.encode(), (self.environment_id,))


@pytest.fixture
def writers(account: Account) -> Iterator[Writers]:
    url = account.database.settings.database_url
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(url)) for _ in range(WRITERS)]
        yield Writers(connections, account.live_environment)
        for connection in connections:
            connection.rollback()


def test_late_transaction_is_read_after_its_commit(account: Account, writers: Writers) -> None:
    reader = Mirror(account.live, "consumers")
    writers.insert(0)
    later = create(account.live)
    assert reader.read() == [("created", later["id"])]
    writers.connections[0].commit()
    [(kind, late)] = reader.read()
    assert (kind, late != later["id"]) == ("created", True)
    assert reader.read() == []


def test_transaction_that_ends_during_a_walk_is_not_missed(account: Account, writers: Writers) -> None:
    reader = Mirror(account.live, "consumers")
    writers.insert(0)
    first, second = create(account.live), create(account.live)
    page = account.live.get(CONSUMERS, params={"after": reader.cursor, "first": 1}).json()
    assert [change["id"] for change in page["data"]] == [first["id"]]
    writers.connections[0].commit()  # its number lies before the numbers of the page
    reader.cursor = page["pageInfo"]["endCursor"]
    [following, late] = [id_ for _, id_ in reader.read()]
    assert following == second["id"]
    assert {first["id"], following, late} == stored_ids(account)


def stored_ids(account: Account) -> set[str]:
    statement = sa.text("SELECT id FROM consumers WHERE environment_id = :id")
    with account.database.engine.connect() as connection:
        return set(connection.execute(statement, {"id": account.live_environment}).scalars())


Step = tuple[str, int]
STEPS = st.tuples(
    st.sampled_from(["insert", "update", "delete", "commit", "commit", "rollback", "read", "read"]), st.integers(0, 2)
)


def test_copy_equals_the_database_after_any_interleaving(account: Account, writers: Writers) -> None:
    reader = Mirror(account.live, "consumers")

    @settings(max_examples=40, deadline=None)
    @given(st.lists(STEPS, min_size=12, max_size=40), st.integers(1, 3))
    def check(steps: list[Step], size: int) -> None:
        for step, writer in steps:
            if step == "insert":
                writers.insert(writer)
            elif step == "update":
                writers.change(writer, "UPDATE consumers SET external_id = gen_random_uuid()::text")
            elif step == "delete":
                writers.change(writer, "DELETE FROM consumers")
            elif step == "read":
                reader.read(size)
            else:
                getattr(writers.connections[writer], step)()
        for connection in writers.connections:
            connection.commit()
        reader.read(size)
        with account.database.engine.connect() as session:
            statement = sa.text("SELECT id, external_id FROM consumers WHERE environment_id = :id")
            stored = {row.id: row.external_id for row in session.execute(statement, {"id": account.live_environment})}
        assert {id_: copy["externalId"] for id_, copy in reader.copy.items()} == stored

    check()


def test_prefer_wait_ends_with_the_first_change(account: Account) -> None:
    cursor = Mirror(account.live, "consumers").cursor
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            account.live.get, CONSUMERS, params={"after": cursor}, headers={"Prefer": "wait=30"}, timeout=60
        )
        made = create(account.live)
        response = waiting.result()
    assert [change["id"] for change in response.json()["data"]] == [made["id"]]
    assert response.headers["Preference-Applied"] == "wait=30"
    ended = account.live.get(CONSUMERS, headers={"Prefer": "wait=0"})
    assert ended.json()["data"] == []


def test_from_a_time_begins_at_a_recorded_snapshot(account: Account) -> None:
    with account.database.engine.begin() as connection:  # as beat does each minute
        connection.exec_driver_sql("""
            INSERT INTO change_snapshots (snapshot, epoch, lsn)
            SELECT pg_current_snapshot(), id, pg_current_wal_flush_lsn() FROM current_epoch() ON CONFLICT DO NOTHING""")
    made = create(account.live)
    page = account.live.get(CONSUMERS, params={"from": made["createdAt"]}).raise_for_status().json()
    assert made["id"] in [change["id"] for change in page["data"]]
    old = account.live.get(CONSUMERS, params={"from": "2001-01-01"})
    assert (old.status_code, old.json()["error"]) == (410, "Changes expired")
    assert faults(account.live.get(CONSUMERS, params={"from": "2999-01-01"})) == {
        "from": "Must be now or a time in the past"
    }


@pytest.mark.parametrize("parameters", [{"first": 501}, {"first": 0}, {"after": "x"}, {"from": "soon"}])
def test_invalid_parameters_are_named(account: Account, parameters: dict[str, Any]) -> None:
    assert list(faults(account.live.get(CONSUMERS, params=parameters))) == list(parameters)


def test_cursor_belongs_to_a_feed_and_an_environment(account: Account) -> None:
    cursor = Mirror(account.live, "consumers").cursor
    assert account.live.get(ORDERS, params={"after": cursor}).status_code == 400
    assert account.test.get(CONSUMERS, params={"after": cursor}).status_code == 400
