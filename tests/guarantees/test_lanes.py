"""Single changes never wait for an import (design.md §1, G6)."""

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


def queued_rows(account: Account) -> int:
    """Return the number of imported consumers not yet indexed."""
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
    listed = client.get("/consumers", params={"search": name}, headers=headers)
    assert "Index-Stale" not in listed.headers
    assert [row["id"] for row in listed.json()["data"]] == [response.json()["id"]]


def test_writes_are_searchable_at_once_during_an_import(account: Account, neighbour: Account, service: Service) -> None:
    with service.without("background", "beat"):
        start_import(account)
    assert queued_rows(account) > 0
    wait_until(lambda: queued_rows(account) < ROWS, what="the import to begin")
    for number in range(WRITES):
        for name, client in (("Importer", account.live), ("Neighbour", neighbour.live)):
            write_and_read(client, f"{name} Number{number}")
            assert queued_rows(account) > 0, "the import has already ended"
    wait_until(lambda: not queued_rows(account), timeout=120, what="the import to end")
    listed = account.live.get("/consumers", params={"search": f"imported {ROWS}"})
    assert len(listed.json()["data"]) == 1
