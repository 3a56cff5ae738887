"""Check records by the rules of `infra.fields`, in pure functions for use in several processes."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from infra import fields
from infra.imports.columns import METADATA, Columns
from infra.imports.rows import Record

Rule = Callable[[str], Any]
Row = tuple[Any, ...]
"""A row of the staging table: position in the chunk, a value for each of the kind's columns, metadata as JSON."""

STATUSES = ("CREATED", "COMPLETED", "CANCELLED", "REFUNDED")
REFERENCES = ("consumerId", "consumerExternalId", "consumerEmail")


class Environment(msgspec.Struct, frozen=True):
    id: int
    currency: str
    region: str | None


class Rules(msgspec.Struct, frozen=True):
    """The rules of one kind of row; plain functions, because they are pickled for the processes."""

    columns: dict[str, str]
    """Field name in the API → column of the staging table, in the order of a row."""
    rules: Callable[[Environment], dict[str, Rule]]
    """Rule by field."""
    faults: Callable[[Mapping[str, str], set[str], Environment], list[str]]
    """Faults between fields, from the valid fields, the names of all non-empty fields, and the environment."""


class Checked(msgspec.Struct):
    rows: list[Row]
    rejects: dict[int, str]
    """Position in the chunk → all reasons, joined."""


def consumer_rules(environment: Environment) -> dict[str, Rule]:
    return {field.name: partial(_apply, field, environment.region) for field in fields.CONSUMER_FIELDS}


def _apply(field: fields.ConsumerField, region: str | None, value: str) -> Any:
    return field.rule(value, region)


def consumer_faults(_values: Mapping[str, str], present: set[str], _environment: Environment) -> list[str]:
    if "externalId" in present or "email" in present:
        return []
    return ["externalId or email: one is required, or importing again would insert the row again"]


def order_rules(_: Environment) -> dict[str, Rule]:
    return {
        "consumerId": fields.external_id,
        "consumerExternalId": fields.external_id,
        "consumerEmail": str,
        "externalId": fields.external_id,
        "status": _status,
        "amount": _amount,
        "refundedAmount": _amount,
        "currencyCode": fields.currency,
        "baseAmount": _amount,
        "placedAt": _timestamp,
    }


def order_faults(values: Mapping[str, str], present: set[str], environment: Environment) -> list[str]:
    faults = []
    if "externalId" not in present:
        faults.append("externalId: required, or importing again would insert the row again")
    if len(present.intersection(REFERENCES)) > 1:
        faults.append(f"only one of {', '.join(REFERENCES)} can name the consumer")
    amounts = {name: Decimal(values[name]) for name in ("amount", "refundedAmount", "baseAmount") if name in values}
    return faults + money_faults(
        amounts.get("amount"),
        amounts.get("refundedAmount"),
        amounts.get("baseAmount"),
        local=values.get("currencyCode") == environment.currency,
        currency=environment.currency,
    )


def money_faults(
    amount: Decimal | None, refunded: Decimal | None, base: Decimal | None, *, local: bool, currency: str
) -> list[str]:
    """Return the faults between the known amounts (contract.md §3); `local`: in the environment's currency."""
    faults = []
    if amount is not None and refunded is not None and refunded > amount:
        faults.append("refundedAmount: must be at most amount")
    if local and amount is not None and base is not None and base != amount:
        faults.append(f"baseAmount: must equal amount in {currency}")
    return faults


CONSUMERS = Rules(
    columns={field.name: field.column for field in fields.CONSUMER_FIELDS},
    rules=consumer_rules,
    faults=consumer_faults,
)
ORDERS = Rules(
    columns={
        "consumerId": "consumer_id",
        "consumerExternalId": "consumer_external_id",
        "consumerEmail": "email",
        "externalId": "external_id",
        "status": "status",
        "amount": "amount",
        "refundedAmount": "refunded_amount",
        "currencyCode": "currency_code",
        "baseAmount": "base_amount",
        "placedAt": "placed_at",
    },
    rules=order_rules,
    faults=order_faults,
)


def check(kind: Rules, environment: Environment, columns: Columns, records: Iterable[Record]) -> Checked:
    """Check a chunk. An empty cell counts as missing and leaves the stored value unchanged."""
    checked = Checked([], {})
    rules = kind.rules(environment)
    for position, record in enumerate(records):
        if record.fault:
            checked.rejects[position] = record.fault
            continue
        values: dict[str, Any] = {}
        faults = []
        for index, name in columns.fields:
            if cell := record.cells[index]:
                try:
                    values[name] = rules[name](_clean(cell))
                except ValueError as error:
                    faults.append(f"{name}: {error}")
        present = {name for index, name in columns.fields if record.cells[index]}
        faults += kind.faults(values, present, environment)
        metadata, metadata_faults = _metadata(columns, record)
        faults += metadata_faults
        if faults:
            checked.rejects[position] = "; ".join(faults)
        else:
            checked.rows.append((position, *map(values.get, kind.columns), metadata))
    return checked


def _metadata(columns: Columns, record: Record) -> tuple[str | None, list[str]]:
    """Return the metadata cells that are not empty, as JSON text, and their faults."""
    cells = {key: cell for index, key in columns.metadata if (cell := record.cells[index])}
    faults = [f"{METADATA}{key}: must not contain NUL" for key, cell in cells.items() if "\0" in cell]
    if not cells or faults:
        return None, faults
    try:
        return msgspec.json.encode(fields.metadata(cells)).decode(), []
    except ValueError as error:
        return None, [f"metadata: {error}"]


def _clean(cell: str) -> str:
    if "\0" in cell:
        raise ValueError("must not contain NUL")
    return cell


def _status(value: str) -> str:
    if value not in STATUSES:
        raise ValueError(f"must be one of {', '.join(STATUSES)}")
    return value


def _amount(value: str) -> str:
    return f"{fields.amount(value):f}"


def _timestamp(value: str) -> str:
    return fields.timestamp(value).isoformat()
