"""What a merchant may use at a time, and how much may be stored and asked: other merchants never notice."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import api.search
from api.auth import Caller
from api.budget import Budget
from api.errors import Problem
from api.keyset import MAX_PAGE_BYTES
from api.search import Index, search
from infra.database.engine import sqlalchemy_url
from infra.index.client import open_reader
from infra.index.naming import read_alias, routing
from infra.local.servers import LocalServers
from infra.settings import Settings
from tests.api.audiences import create_audience, insert_consumers
from tests.api.resources import create, faults
from tests.seals import fixed_seal
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

PARALLEL = 24
"""More than the database connections of an API process."""


@pytest.fixture
def neighbour(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        yield account


@contextmanager
def locked(account: Account, table: str, row_id: str) -> Iterator[None]:
    """Hold the lock of a row, so that writes of the row wait."""
    with account.database.engine.begin() as connection:
        connection.execute(sa.text(f"SELECT FROM {table} WHERE id = :id FOR UPDATE"), {"id": row_id})
        yield


def send_many(
    pool: ThreadPoolExecutor, account: Account, method: str, path: str, body: Any
) -> list[Future[httpx.Response]]:
    content, headers = msgspec.json.encode(body), {"Content-Type": "application/json"}
    return [pool.submit(account.live.request, method, path, content=content, headers=headers) for _ in range(PARALLEL)]


def waiting_for_locks(account: Account) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with account.database.engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


def writes(consumer: str, audience: str) -> list[tuple[str, str, Any, str, str]]:
    """Return method, path and body of writes that wait for a row, with the table and the id of the row."""
    return [
        ("PUT", f"/audiences/{audience}/members", {"consumerIds": [consumer]}, "audiences", audience),
        ("PUT", f"/consumers/{consumer}", {"fullName": "B"}, "consumers", consumer),
        ("PUT", "/consumers/batch", [{"id": consumer, "fullName": "C"}], "consumers", consumer),
        ("POST", "/orders", {"consumerId": consumer, "amount": 1}, "consumers", consumer),
    ]


@pytest.mark.parametrize("kind", range(4), ids=["members", "consumer", "batch", "orders"])
def test_writes_waiting_for_a_row_hold_up_no_other_merchant(account: Account, neighbour: Account, kind: int) -> None:
    consumer = create(account.live, "/consumers")["id"]
    audience = create_audience(account, "SYNCED_LIST")["id"]
    method, path, body, table, row_id = writes(consumer, audience)[kind]
    with ThreadPoolExecutor(PARALLEL) as pool:
        with locked(account, table, row_id):
            pending = send_many(pool, account, method, path, body)
            wait_until(lambda: waiting_for_locks(account) >= 1, what="a write that waits")
            for _ in range(3):
                assert neighbour.live.post("/consumers", json={"fullName": "N"}).status_code == 201
                assert neighbour.live.get("/orders").status_code == 200
        answers = [future.result() for future in pending]
    assert {answer.status_code for answer in answers} <= {200, 201, 429, 503}


def test_write_that_waits_too_long_for_a_row_is_told_so(account: Account) -> None:
    consumer = create(account.live, "/consumers")["id"]
    with locked(account, "consumers", consumer):
        response = account.live.put("/consumers/batch", json=[{"id": consumer, "fullName": "C"}])
    assert (response.status_code, response.json()["error"]) == (429, "Too many concurrent requests")
    assert "writes of the same objects" in response.json()["message"]
    assert response.headers["Retry-After"]


def test_read_that_waits_too_long_for_postgresql_is_ended(account: Account) -> None:
    consumer = create(account.live)["id"]
    paths = ("/orders", f"/consumers/{consumer}?include=orders")
    with ThreadPoolExecutor() as pool:
        with account.database.engine.begin() as transaction:
            transaction.execute(sa.text("LOCK TABLE orders"))  # until the end of the transaction, the reads wait
            late = list(pool.map(account.live.get, paths))
        assert [(answer.status_code, answer.json()["code"]) for answer in late] == [(503, "database_unavailable")] * 2
    assert all("Retry-After" in answer.headers for answer in late)
    assert [account.live.get(path).status_code for path in paths] == [200, 200]


def test_only_four_searches_of_an_environment_run_at_a_time(
    account: Account, neighbour: Account, servers: LocalServers
) -> None:
    paths = ["/consumers", "/consumers/search?q=ann", "/consumers?include=audiences&count=true"] * 2
    audience = create_audience(account)["id"]
    paths += [f"/audiences/{audience}/members", f"/audiences/{audience}/count"]
    opensearch = servers.opensearch.pid
    with ThreadPoolExecutor(len(paths) + 1) as pool:
        os.killpg(opensearch, signal.SIGSTOP)
        try:
            pending = [pool.submit(account.live.get, path) for path in paths]
            other = pool.submit(neighbour.live.get, "/consumers")
            answers = [future.result() for future in pending]
            # A different environment has places of its own: its search runs, and ends with the server's failure.
            assert other.result().json()["error"] == "Search unavailable"
        finally:
            os.killpg(opensearch, signal.SIGCONT)
    errors = sorted(answer.json()["error"] for answer in answers)
    assert errors == ["Search unavailable"] * 4 + ["Too many concurrent requests"] * 4
    for refused in (answer for answer in answers if answer.status_code == 429):
        assert refused.headers["Retry-After"] == "1"
        assert refused.json() == {
            "error": "Too many concurrent requests",
            "code": "too_many_concurrent_requests",
            "message": "Maximum of searches of an environment at the same time: 4. "
            "Send fewer requests at the same time",
            "retryAfter": 1,
            "requestId": refused.headers["X-Request-Id"],
        }
    wait_until(lambda: account.live.get("/consumers").status_code == 200, what="OpenSearch")


class Searching:
    """Searches of an environment, made in this process."""

    def __init__(self, settings: Settings, environment_id: int) -> None:
        self._settings, self._environment_id = settings, environment_id

    def search(self, query: dict[str, Any], seconds: float) -> Any:
        return asyncio.run(self._search(query, seconds))

    async def _search(self, query: dict[str, Any], seconds: float) -> Any:
        caller = Caller(
            key_id="key",
            environment_id=self._environment_id,
            mode="live",
            organization_id="org",
            scopes=frozenset(),
            seal=fixed_seal(),
        )
        engine = create_async_engine(sqlalchemy_url(self._settings.database_url))
        client = open_reader(self._settings)
        try:
            budget = Budget(engine, searches=1, connections=1)
            alias = read_alias(self._settings.index_prefix)
            return await search(
                Index(client, alias, routing(self._environment_id), budget, caller, time.monotonic() + seconds),
                {"query": query, "size": 0},
            )
        finally:
            await client.close()


SLOW = "long sum = 0; for (int i = 0; i < 900000; i++) { sum += i; } return sum > 0;"


def test_opensearch_stops_a_search_when_the_time_of_the_request_ends(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.search, "GRACE_SECONDS", 30)  # on a busy machine, OpenSearch notices the end late
    insert_consumers(account, 300)
    account.settled()
    searching = Searching(account.database.settings, account.live_environment)
    environment = {"term": {"environmentId": str(account.live_environment)}}
    slow = {"bool": {"filter": [environment, {"script": {"script": SLOW}}]}}
    assert b'"value":300' in searching.search(environment, 5)
    for seconds in (0.1, 0):
        with pytest.raises(Problem, match="Search unavailable") as failure:
            searching.search(slow, seconds)
        assert failure.value.message
        assert "took more than 5 seconds" in failure.value.message
    wait_until(lambda: not running_searches(account), what="the end of the search in OpenSearch")


def running_searches(account: Account) -> list[str]:
    nodes = account.database.search.tasks.list(params={"actions": "*search*"})["nodes"]
    return [task for node in nodes.values() for task in node["tasks"]]


def insert_dynamic(account: Account, rules: Sequence[dict[str, Any]], number: int = 1) -> None:
    """Insert dynamic audiences without the checks of the API, as an earlier release stored them."""
    statement = sa.text("""
        INSERT INTO audiences (environment_id, id, name, type, rules)
        SELECT :environment, 'aud_' || upper(substr(md5(random()::text), 1, 26)), 'A', 'DYNAMIC', CAST(:rules AS jsonb)
        FROM generate_series(1, :number)""")
    values = {"environment": account.live_environment, "rules": msgspec.json.encode(rules).decode(), "number": number}
    with account.database.engine.begin() as connection:
        connection.execute(statement, values)


RULE = {"field": "email", "operator": "EXISTS", "values": []}
LONG_RULE = {"field": "email", "operator": "IN", "values": ["x" * 250] * 100}
CONTAINS = [{"field": "email", "operator": "CONTAINS", "values": [f"{'x' * 10}{number:02}"]} for number in range(50)]


def test_number_of_dynamic_audiences_is_limited(account: Account) -> None:
    insert_dynamic(account, [RULE], 199)
    made = create_audience(account, "DYNAMIC")
    new = {"name": "B", "type": "DYNAMIC", "rules": [RULE]}
    refused = account.live.post("/audiences", json=new)
    assert faults(refused) == {"type": "At most 200 audiences of an environment can be DYNAMIC: delete another first"}
    assert account.live.post("/audiences", json=new | {"type": "STATIC", "rules": None}).status_code == 201
    assert account.live.put(f"/audiences/{made['id']}", json={"rules": [RULE, RULE]}).status_code == 200
    assert account.test.post("/audiences", json=new).status_code == 201
    account.live.delete(f"/audiences/{made['id']}").raise_for_status()
    assert account.live.post("/audiences", json=new).status_code == 201


def test_bytes_of_rules_are_limited(account: Account) -> None:
    insert_dynamic(account, [LONG_RULE] * 39)
    made = create_audience(account, "DYNAMIC")
    new = {"name": "B", "type": "DYNAMIC", "rules": [LONG_RULE] * 3}
    for refused in (
        account.live.post("/audiences", json=new),
        account.live.put(f"/audiences/{made['id']}", json={"rules": [LONG_RULE] * 3}),
    ):
        message = faults(refused)["rules"]
        assert "at most 1048576 are allowed: use fewer or shorter values, or delete another" in message
    assert create_audience(account, "DYNAMIC", rules=[LONG_RULE])
    insert_dynamic(account, [LONG_RULE] * 9)
    [big] = [row for row in account.live.get("/audiences").json()["data"] if len(row["rules"]) == 9]
    smaller = account.live.put(f"/audiences/{big['id']}", json={"rules": [LONG_RULE] * 8, "name": "Smaller"})
    assert smaller.status_code == 200, smaller.text
    assert faults(account.live.put(f"/audiences/{big['id']}", json={"rules": [LONG_RULE] * 9})).keys() == {"rules"}


def test_audiences_of_a_request_have_a_limit_of_clauses(account: Account) -> None:
    consumer = create(account.live, "/consumers")["id"]
    account.settled()
    insert_dynamic(account, CONTAINS, 11)
    for path in (f"/consumers/{consumer}?include=audiences", "/consumers?include=audiences"):
        assert faults(account.live.get(path))["include"] == (
            "The dynamic audiences have 9900 clauses together, and at most 9000 are allowed: use fewer or shorter "
            "CONTAINS values in their rules, or delete audiences"
        )
    assert account.live.get("/consumers").status_code == 200


def test_conditions_of_a_request_have_a_limit_of_clauses(account: Account) -> None:
    heavy, light = (
        create(account.live, "/audiences", name=name, type="DYNAMIC", rules=rules)["id"]
        for name, rules in (("Heavy", CONTAINS), ("Light", [RULE]))
    )
    for path, parameters in (
        (f"/audiences/{heavy}/members", {"filter": "email:*"}),
        (f"/audiences/{light}/members", {"audienceId": heavy}),
        ("/consumers", {"audienceId": heavy, "filter": "email:*"}),
    ):
        refused = account.live.get(path, params=parameters)
        assert refused.status_code == 400
        assert refused.json()["message"].startswith("The query is too long: the conditions have 903 clauses (")
        assert f"audience {heavy}: 900" in refused.json()["message"]
    assert account.live.get("/consumers", params={"audienceId": heavy}).status_code == 200
    assert account.live.get(f"/audiences/{light}/members", params={"filter": "email:*"}).status_code == 200


def walk(client: httpx.Client, path: str, size: str, cursor: str, end: str) -> list[str]:
    """Return the ids of a list, walked to the end; check size and flags of every page."""
    ids: list[str] = []
    parameters: dict[str, Any] = {size: 100}
    forward = size == "first"
    while True:
        response = client.get(path, params=parameters).raise_for_status()
        assert len(response.content) < 2 * MAX_PAGE_BYTES
        content = response.json()
        rows = [row["id"] for row in content["data"]]
        ids = ids + rows if forward else rows + ids
        info = content["pageInfo"]
        assert info["hasPreviousPage" if forward else "hasNextPage"] == (cursor in parameters)
        if not info["hasNextPage" if forward else "hasPreviousPage"]:
            return ids
        parameters[cursor] = info[end]


def test_pages_of_long_rows_end_early(account: Account) -> None:
    insert_dynamic(account, [LONG_RULE] * 7, 14)
    insert_dynamic(account, [LONG_RULE] * 50)
    consumer = create(account.live, "/consumers")["id"]
    items = [{"productId": "p" * 250, "variantId": "v" * 250, "quantity": 1}] * 200
    orders = [{"consumerId": consumer, "amount": 1, "items": items} for _ in range(25)]
    account.live.post("/orders/batch", json=orders).raise_for_status()
    for path, number in (("/audiences", 15), ("/orders", 25)):
        forward = walk(account.live, path, "first", "after", "endCursor")
        assert len(set(forward)) == len(forward) == number
        assert walk(account.live, path, "last", "before", "startCursor") == forward


def test_writes_of_members_wait_for_no_consumer_that_stays_as_it_is(account: Account) -> None:
    member, new, other = (create(account.live, "/consumers")["id"] for _ in range(3))
    path = f"/audiences/{create_audience(account, 'SYNCED_LIST')['id']}/members"
    account.live.put(path, json={"consumerIds": [member]}).raise_for_status()
    with locked(account, "consumers", member):
        replaced = account.live.put(path, json={"consumerIds": [new, member]})
        added = account.live.post(path, json={"consumerIds": [member, other]})
    with locked(account, "consumers", other), locked(account, "consumers", member):
        removed = account.live.request("DELETE", path, json={"consumerIds": [new]})
    answers = [answer.raise_for_status().json() for answer in (replaced, added, removed)]
    assert [(answer.get("addedCount"), answer.get("removedCount")) for answer in answers] == [
        (1, 0),
        (1, None),
        (None, 1),
    ]
    unknown = "cons_01JBK3Q8X5W5V0B6T1R2M3N4P5"
    for method in ("PUT", "POST", "DELETE"):
        refused = account.live.request(method, path, json={"consumerIds": [member, unknown, "none", member]})
        assert faults(refused) == {
            "consumerIds[1]": f"Unknown consumer {unknown}",
            "consumerIds[2]": "Unknown consumer none",
        }
