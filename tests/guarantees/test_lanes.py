"""What people wait for never stands behind what they do not (design.md §1, G6)."""

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from tests.service import Account, Service, new_account
from tests.waiting import wait_until

ROWS = 20_000
WRITES = 3
IMPORT = sa.text("""
    INSERT INTO consumers (environment_id, full_name)
    SELECT :e, 'Imported ' || n FROM generate_series(1, :rows) AS n""")
LEFT = sa.text("SELECT count(*) FROM outbox WHERE environment_id = :e AND lane = 'bulk'")


@pytest.fixture
def neighbour(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        yield account


def left(account: Account) -> int:
    """Rows of the import that are not indexed yet."""
    with account.database.engine.connect() as connection:
        return int(connection.execute(LEFT, {"e": account.live_environment}).scalar_one())


def start_import(account: Account) -> None:
    with account.database.engine.begin() as connection:
        connection.execute(sa.text("SELECT set_config('consumers.lane', 'bulk', true)"))
        connection.execute(IMPORT, {"e": account.live_environment, "rows": ROWS})


def write_and_read(client: httpx.Client, name: str) -> None:
    response = client.post("/consumers", json={"fullName": name}, headers={"Prefer": "wait=10"})
    assert response.headers["Index-State"] == "searchable"
    headers = {"Consistency-Token": response.headers["Consistency-Token"], "Prefer": "wait=0"}
    found = client.get("/consumers", params={"search": name}, headers=headers)
    assert "Index-Stale" not in found.headers
    assert [row["id"] for row in found.json()["data"]] == [response.json()["id"]]


def test_writes_are_searchable_at_once_while_an_import_is_indexed(
    account: Account, neighbour: Account, service: Service
) -> None:
    with service.without("background", "beat"):
        start_import(account)
    assert left(account) > 0
    wait_until(lambda: left(account) < ROWS, what="the import's beginning")
    for number in range(WRITES):
        for name, client in (("Importer", account.live), ("Neighbour", neighbour.live)):
            write_and_read(client, f"{name} Number{number}")
            assert left(account) > 0, "the import was done before"
    wait_until(lambda: not left(account), timeout=120, what="the import's end")
    found = account.live.get("/consumers", params={"search": f"imported {ROWS}"})
    assert len(found.json()["data"]) == 1
