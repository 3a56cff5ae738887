"""Upserts of a consumer that another transaction stores, changes or deletes at the same time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.api.resources import create
from tests.service import Account
from tests.waiting import wait_until

LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:value, :environment))")
INSERT = sa.text("INSERT INTO consumers (environment_id, email, external_id) VALUES (:environment, :email, :key)")
IS_WAITING = sa.text("""
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_blocking_pids(pid) @> ARRAY[CAST(:pid AS int)])""")


@contextmanager
def committed_during(
    account: Account, changes: Sequence[tuple[sa.TextClause, Mapping[str, Any]]], request: Callable[[], httpx.Response]
) -> Iterator[httpx.Response]:
    """Make changes, send a request, commit once the request waits for the transaction; yield the response."""
    engine = account.database.engine
    observing = engine.execution_options(isolation_level="AUTOCOMMIT")
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection, observing.connect() as observer:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        for statement, values in changes:
            connection.execute(statement, {"environment": account.live_environment, **values})
        response = pool.submit(request)
        wait_until(lambda: observer.execute(IS_WAITING, {"pid": pid}).scalar_one(), what="the request to wait")
        connection.commit()
        yield response.result()


def people(number: int) -> list[dict[str, str]]:
    return [{"externalId": f"crm-{n:02}", "email": f"{n:02}@example.com"} for n in range(number)]


def stored_by_another(items: Sequence[Mapping[str, str]]) -> list[tuple[sa.TextClause, Mapping[str, Any]]]:
    """Return the locks and inserts of a concurrent upsert."""
    values = sorted(value for item in items for value in item.values())
    rows = [{"email": item["email"], "key": item["externalId"]} for item in items]
    return [*((LOCK, {"value": value}) for value in values), *((INSERT, row) for row in rows)]


@pytest.mark.parametrize("by", ["externalId", "email"])
@pytest.mark.parametrize(("number", "on_error"), [(1, "abort"), (20, "abort"), (20, "continue")])
def test_new_consumers_of_another_request_are_found(account: Account, by: str, number: int, on_error: str) -> None:
    items = people(number)
    sent = [items[0] | {"fullName": "Ann"}, *items[1:]]
    path = f"/consumers/batch/upsert?matchBy={by}&onError={on_error}"
    with committed_during(account, stored_by_another(items), lambda: account.live.post(path, json=sent)) as response:
        assert response.is_success, response.text
        content = response.json()
    assert (content["updated"], content["unchanged"]) == (1, number - 1)


@pytest.mark.parametrize("by", ["externalId", "email"])
def test_new_consumer_of_another_request_is_changed(account: Account, by: str) -> None:
    [item] = people(1)
    changes, path = stored_by_another([item]), f"/consumers/upsert?matchBy={by}"
    with committed_during(account, changes, lambda: account.live.post(path, json=item | {"fullName": "Ann"})) as found:
        assert (found.status_code, found.json()["fullName"]) == (200, "Ann"), found.text


def test_consumer_that_loses_its_value_is_not_changed(account: Account) -> None:
    other = create(account.live, externalId="crm-1", fullName="Bob")["id"]
    change = sa.text("UPDATE consumers SET external_id = NULL WHERE environment_id = :environment AND id = :id")
    item = {"externalId": "crm-1", "fullName": "Ann"}
    upsert = "/consumers/upsert"
    with committed_during(account, [(change, {"id": other})], lambda: account.live.post(upsert, json=item)) as made:
        assert made.status_code == 201, made.text
    before = account.live.get(f"/consumers/{other}").json()
    assert (before["fullName"], before["externalId"]) == ("Bob", None)


@pytest.mark.parametrize("number", [1, 20])
def test_new_orders_of_another_request_are_found(account: Account, number: int) -> None:
    buyer = create(account.live)["id"]
    insert = sa.text("""
        INSERT INTO orders (environment_id, consumer_id, external_id, amount, currency_code, base_amount)
        VALUES (:environment, :buyer, :key, 1, 'USD', 1)""")
    keys = [f"o-{n:02}" for n in range(number)]
    locks = [(LOCK, {"value": key}) for key in keys]
    changes = [*locks, *((insert, {"buyer": buyer, "key": key}) for key in keys)]
    items = [{"externalId": key, "consumerId": buyer, "amount": 1} for key in keys]
    items[0]["status"] = "CANCELLED"
    path = "/orders/batch/upsert"
    with committed_during(account, changes, lambda: account.live.post(path, json=items)) as response:
        content = response.json()
        assert response.status_code == 200, response.text
    assert (content["updated"], content["unchanged"]) == (1, number - 1)
