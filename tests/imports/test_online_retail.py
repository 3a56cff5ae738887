"""The real orders of a shop, against what plain Python makes of the same files."""

import csv
import shutil
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from infra.imports import kinds
from infra.imports.run import Counts
from infra.settings import ROOT
from tests.imports.shop import Shop

FOLDER = ROOT.parent / "shared" / "data" / "online_retail"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real orders (shared/data/online_retail) are not here"),
]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Copies, since the errors file is put beside what is imported."""
    return Path(shutil.copytree(FOLDER, tmp_path / "online_retail"))


def test_all_real_orders_go_in_but_the_credit_notes_and_every_total_is_right(shop: Shop, files: Path) -> None:
    imported = shop.import_file(kinds.CONSUMERS, files / "consumers.csv")
    assert imported == Counts(read=4372, inserted=4372)
    imported = shop.import_file(kinds.ORDERS, files / "orders.csv")
    errors = files / "orders.errors.csv"
    assert imported == Counts(read=22190, inserted=18536, rejected=3654, errors_file=str(errors))

    orders = read(files / "orders.csv")
    credit_notes = [
        {"errorLine": str(line), "errorReasons": "amount: Must be 0 or more", **order}
        for line, order in enumerate(orders, start=2)
        if Decimal(order["amount"]) < 0
    ]
    assert read(errors) == credit_notes

    of: dict[str, list[dict[str, str]]] = defaultdict(list)
    for order in orders:
        if Decimal(order["amount"]) >= 0:
            of[order["consumerExternalId"]].append(order)
    expected = {
        consumer["externalId"]: (
            len(of[consumer["externalId"]]),
            sum((Decimal(order["amount"]) for order in of[consumer["externalId"]]), Decimal()),
            max((order["placedAt"] for order in of[consumer["externalId"]]), default=None),
        )
        for consumer in read(files / "consumers.csv")
    }
    newest = "to_char(last_order_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    stored = shop.stored(f"external_id, total_orders, total_order_value, {newest}")
    assert {external_id: tuple(totals) for external_id, *totals in stored} == expected
