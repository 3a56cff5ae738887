"""Customers and orders of a real shop, imported from CSV files and listed by order value."""

import csv
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from infra.settings import ROOT
from tests.service import Account, Service, new_account

FILES = ROOT.parent / "shared" / "data" / "online_retail"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FILES.is_dir(), reason="the folder shared/data/online_retail is not beside the project"),
]


class Totals(NamedTuple):
    orders: int
    value: Decimal
    last: str | None


@pytest.fixture(scope="module")
def shop(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The shop's organization, imported by the command line and indexed."""
    folder = tmp_path_factory.mktemp("online_retail")
    with new_account(service, currency="GBP") as account:
        for kind, status in (("consumers", 0), ("orders", None)):
            file = folder / f"{kind}.csv"
            file.write_bytes((FILES / f"{kind}.csv").read_bytes())
            command = [f"{sys.prefix}/bin/consumers", "import", kind, str(file), "--org", account.name]
            done = subprocess.run(
                command, env=os.environ | service.database.environ, capture_output=True, text=True, check=False
            )
            assert status is None or done.returncode == status, done.stderr
        account.settled()
        yield account


def truth() -> dict[str, Totals]:
    """Compute each customer's totals from the files; credit notes are not imported."""
    with (FILES / "consumers.csv").open(encoding="utf-8", newline="") as file:
        customers = [row["externalId"] for row in csv.DictReader(file)]
    orders: dict[str, list[tuple[Decimal, str]]] = defaultdict(list)
    with (FILES / "orders.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if Decimal(row["amount"]) >= 0:
                moment = row["placedAt"].replace("Z", ".000Z")
                orders[row["consumerExternalId"]].append((Decimal(row["amount"]), moment))
    return {
        customer: Totals(
            len(orders[customer]),
            sum((amount for amount, _ in orders[customer]), Decimal(0)),
            max((moment for _, moment in orders[customer]), default=None),
        )
        for customer in customers
    }


def walk(account: Account, **parameters: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        after: dict[str, str] = {"after": cursor} if cursor else {}
        page = account.live.get("/consumers", params={"first": "100", **parameters, **after}).json()
        rows += page["data"]
        cursor = page["pageInfo"]["endCursor"]
        if not cursor:
            return rows


@pytest.mark.parametrize("direction", ["desc", "asc"])
def test_list_by_order_value_equals_the_ranking_of_the_files(shop: Account, direction: str) -> None:
    rows = walk(shop, sortBy="totalOrderValue", sortDir=direction)
    expected = truth()
    assert {row["externalId"] for row in rows} == expected.keys()
    ids = {row["externalId"]: row["id"] for row in rows}
    ranking = sorted(
        expected, key=lambda customer: (expected[customer].value, ids[customer]), reverse=direction == "desc"
    )
    assert [row["externalId"] for row in rows] == ranking
    for row in rows:
        totals = expected[row["externalId"]]
        assert (row["totalOrders"], Decimal(str(row["totalOrderValue"])), row["lastOrderAt"]) == totals


@pytest.mark.parametrize("sort", ["totalOrders", "lastOrderAt"])
@pytest.mark.parametrize("direction", ["desc", "asc"])
def test_lists_by_count_and_last_order_equal_the_files(shop: Account, sort: str, direction: str) -> None:
    rows = walk(shop, sortBy=sort, sortDir=direction)
    expected = truth()
    value = {customer: one.orders if sort == "totalOrders" else one.last or "" for customer, one in expected.items()}
    ids = {row["externalId"]: row["id"] for row in rows}
    ranking = sorted(
        (customer for customer in expected if value[customer] != ""),
        key=lambda customer: (value[customer], ids[customer]),
        reverse=direction == "desc",
    )
    nulls = sorted(expected.keys() - set(ranking), key=ids.__getitem__, reverse=direction == "desc")
    assert [row["externalId"] for row in rows] == ranking + nulls
