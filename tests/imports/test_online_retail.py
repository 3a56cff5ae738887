"""The real orders of a shop, compared with totals computed from the files."""

import csv
import shutil
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from infra.imports import kinds
from infra.imports.run import Counts
from infra.settings import ROOT
from tests.imports.import_environment import ImportEnvironment

FOLDER = ROOT.parent / "shared" / "data" / "online_retail"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder shared/data/online_retail is not beside the project"),
]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Copies, because the errors file is written beside the imported file."""
    return Path(shutil.copytree(FOLDER, tmp_path / "online_retail"))


def test_all_real_orders_but_credit_notes_are_imported(shop: ImportEnvironment, files: Path) -> None:
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

    orders_by_consumer: dict[str, list[dict[str, str]]] = defaultdict(list)
    for order in orders:
        if Decimal(order["amount"]) >= 0:
            orders_by_consumer[order["consumerExternalId"]].append(order)
    expected = {
        consumer["externalId"]: (
            len(orders_by_consumer[consumer["externalId"]]),
            sum((Decimal(order["amount"]) for order in orders_by_consumer[consumer["externalId"]]), Decimal()),
            max((order["placedAt"] for order in orders_by_consumer[consumer["externalId"]]), default=None),
        )
        for consumer in read(files / "consumers.csv")
    }
    newest = "to_char(last_order_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    stored = shop.stored(f"external_id, total_orders, total_order_value, {newest}")
    assert {external_id: tuple(totals) for external_id, *totals in stored} == expected
