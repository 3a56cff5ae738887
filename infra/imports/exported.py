"""Convert the texts of another system's export to texts of the fields."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from infra import emails, fields
from infra.imports import amounts, ids
from infra.imports.columns import Columns

STATUSES = ("CREATED", "COMPLETED", "CANCELLED", "REFUNDED")

REFERENCES = ("consumerId", "consumerExternalId", "consumerEmail")
AMOUNTS = ("amount", "refundedAmount", "baseAmount")
# Shops write this id for a customer without an account.
GUEST = ("0", "")


class Environment(msgspec.Struct, frozen=True):
    id: int
    currency: str
    region: str | None
    mode: str = "live"

    @property
    def conventions(self) -> fields.Conventions:
        return fields.Conventions(self.region, self.mode == "test")


def convert(
    texts: dict[str, str],
    columns: Columns,
    cells: Sequence[str],
    continued: Iterable[list[str]],
    environment: Environment,
) -> list[str]:
    """Change the texts of a row to texts of the fields; return the faults.

    Args:
        texts: by field, without empty texts; changed in place.
        columns: of an export.
        cells: of the row.
        continued: the cells of the further rows of the record.
        environment: the target environment.
    """
    rows = [cells, *map(columns.row, continued)]
    faults = _contradictions(columns, rows)
    convert_ids(texts)
    if "currencyCode" in texts:
        texts["currencyCode"] = texts["currencyCode"].upper()
    if columns.base_currency and columns.base_currency.text(cells).upper() != environment.currency:
        texts.pop("baseAmount", None)
    if "status" in texts:
        faults += _convert_status(texts, columns, cells)
    try:
        items = _items(columns, rows)
    except ValueError as error:
        return [*faults, f"items: {error}"]
    if items:
        texts["items"] = msgspec.json.encode(items).decode()
    return faults


def convert_ids(texts: dict[str, str]) -> None:
    """Leave out the id of a guest. Of several ids of a consumer, as a deal may have, only the first counts."""
    if "consumerExternalId" in texts:
        texts["consumerExternalId"] = texts["consumerExternalId"].partition(";")[0].strip()
    for name in ("externalId", "consumerExternalId"):
        if name in texts and ids.whole_id(texts[name]) in GUEST:
            del texts[name]


def _convert_status(texts: dict[str, str], columns: Columns, cells: Sequence[str]) -> list[str]:
    assert columns.export
    sent = texts["status"].lower().removeprefix("wc-")
    texts["status"] = columns.export.statuses.get(sent, sent.upper())
    if columns.cancelled_at and columns.cancelled_at.text(cells):
        texts["status"] = "CANCELLED"
    if texts["status"] in STATUSES:
        return []
    del texts["status"]
    known = ", ".join(columns.export.statuses)
    return [f"status: {sent!r} is not imported; imported are {known}, {', '.join(STATUSES)}"]


def _contradictions(columns: Columns, rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a fault for each field in which the rows of one order name different consumers or amounts."""
    if len(rows) == 1:
        return []
    faults = []
    for column in columns.fields:
        if column.name in (*REFERENCES, "amount"):
            texts = {_comparable(column.name, text): text for row in rows if (text := column.text(row))}
            if len(texts) > 1:
                shown = " and ".join(map(repr, list(texts.values())[:2]))
                faults.append(f"{column.name}: the rows of this order have {shown}")
    return faults


def _comparable(name: str, text: str) -> object:
    """Return a value that is equal for texts of the same consumer, or of the same amount."""
    if name == "consumerEmail":
        return emails.fold(text)
    if name == "amount":
        separator = amounts.decimal_separator(text)
        plain = amounts.money(text) if separator else text
        return Decimal(plain) if fields.DECIMAL.fullmatch(plain) else text
    return ids.whole_id(text)


def _items(columns: Columns, rows: Iterable[Sequence[str]]) -> list[dict[str, str | None]]:
    if not columns.items:
        return []
    product, quantity, price = columns.items
    return [
        {
            "productId": product.text(row),
            "quantity": amounts.money(quantity.text(row), columns.decimal),
            "unitAmount": amounts.money(price.text(row), columns.decimal) or None,
        }
        for row in rows
        if product.text(row)
    ]
