"""Customers and orders of a real shop, imported from CSV files and listed by order value."""

import csv
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import sqlalchemy as sa

from infra.imports.run import Counts
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


class Shop(NamedTuple):
    account: Account
    files: Path
    counts: dict[str, Counts]
    """The output of each import."""


@pytest.fixture(scope="module")
def shop(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop's organization, imported by the command line and indexed. The files are copies: errors stand beside."""
    files = Path(shutil.copytree(FILES, tmp_path_factory.mktemp("online_retail") / "files"))
    counts = {}
    with new_account(service, currency="GBP", region="GB") as account:
        for kind, status in (("consumers", 0), ("orders", 1)):
            command = [f"{sys.prefix}/bin/consumers", "import", kind, str(files / f"{kind}.csv"), "--json"]
            done = subprocess.run(
                [*command, "--org", account.name],
                env=os.environ | service.database.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == status, done.stderr
            counts[kind] = msgspec.json.decode(done.stdout, type=Counts)
        account.settled()
        yield Shop(account, files, counts)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def truth() -> dict[str, Totals]:
    """Compute each customer's totals from the files; credit notes are not imported."""
    orders: dict[str, list[tuple[Decimal, str]]] = defaultdict(list)
    for row in read(FILES / "orders.csv"):
        if Decimal(row["amount"]) >= 0:
            moment = row["placedAt"].replace("Z", ".000Z")
            orders[row["consumerExternalId"]].append((Decimal(row["amount"]), moment))
    return {
        customer: Totals(
            len(orders[customer]),
            sum((amount for amount, _ in orders[customer]), Decimal(0)),
            max((moment for _, moment in orders[customer]), default=None),
        )
        for customer in (row["externalId"] for row in read(FILES / "consumers.csv"))
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


def test_all_real_orders_but_credit_notes_are_imported(shop: Shop) -> None:
    errors = shop.files / "orders.errors.csv"
    assert shop.counts == {
        "consumers": Counts(read=4372, inserted=4372),
        "orders": Counts(read=22190, inserted=18536, rejected=3654, errors_file=str(errors)),
    }
    credit_notes = [
        {"errorLine": str(line), "errorReasons": "amount: Must be 0 or more", **order}
        for line, order in enumerate(read(shop.files / "orders.csv"), start=2)
        if Decimal(order["amount"]) < 0
    ]
    assert read(errors) == credit_notes


def test_stored_totals_equal_the_files(shop: Shop) -> None:
    stored = sa.text("""
        SELECT external_id, total_orders, total_order_value,
            to_char(last_order_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        FROM consumers WHERE environment_id = :environment""")
    with shop.account.database.engine.connect() as connection:
        rows = connection.execute(stored, {"environment": shop.account.live_environment}).all()
    assert {customer: Totals(*totals) for customer, *totals in rows} == truth()
    assert len(rows) == shop.counts["consumers"].inserted


@pytest.mark.parametrize("direction", ["desc", "asc"])
def test_list_by_order_value_equals_the_ranking_of_the_files(shop: Shop, direction: str) -> None:
    rows = walk(shop.account, sortBy="totalOrderValue", sortDir=direction)
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
def test_lists_by_count_and_last_order_equal_the_files(shop: Shop, sort: str, direction: str) -> None:
    rows = walk(shop.account, sortBy=sort, sortDir=direction)
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
