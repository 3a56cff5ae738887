"""Check records by the rules of `infra.fields`, in pure functions for use in several processes."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from infra import emails, fields
from infra.imports import amounts, exported, ids, values
from infra.imports.columns import METADATA, Columns, texts_reader
from infra.imports.exported import REFERENCES, STATUSES, Environment
from infra.imports.rows import Record

Rule = Callable[[str], Any]
ORDINARY_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,10})(\.[0-9]{1,4})?")
"""Amounts with a decimal point that no rule changes or refuses."""
Row = tuple[Any, ...]
"""A row of the staging table: position in the chunk, a value for each of the kind's columns, metadata as JSON."""


class Rules(msgspec.Struct, frozen=True):
    """The rules of one kind of row; plain functions, because they are pickled for the processes."""

    columns: dict[str, str]
    """Field name in the API → column of the staging table, in the order of a row."""
    rules: Callable[[Environment, Columns], dict[str, Rule]]
    """Rule by field."""
    faults: Callable[[Mapping[str, str], Mapping[str, str], Environment], list[str]]
    """Faults between fields, from the valid fields, the texts of all non-empty fields, and the environment."""
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Returns the values to store, from the valid fields."""
    added: dict[str, str] = {}
    """As `columns`, for values that `complete` adds."""

    @property
    def staged(self) -> tuple[str, ...]:
        """The columns of a row, without its position and its metadata."""
        return (*self.columns.values(), *self.added.values())


class Checked(msgspec.Struct):
    rows: list[Row]
    rejects: dict[int, str]
    """Position in the chunk → all reasons, joined."""


def consumer_rules(environment: Environment, columns: Columns) -> dict[str, Rule]:
    rules: dict[str, Rule] = {
        field.name: partial(_apply, field, environment.conventions) for field in fields.CONSUMER_FIELDS
    }
    return rules | {"externalId": _id_rule("externalId", columns)}


def _id_rule(name: str, columns: Columns) -> Rule:
    return partial(ids.exact_id, is_decimal=name in columns.decimal_ids)


def _apply(field: fields.ConsumerField, conventions: fields.Conventions, value: str) -> Any:
    return field.rule(value, conventions)


def consumer_columns(valid: dict[str, Any]) -> dict[str, Any]:
    email, email_as_sent = emails.columns(valid.get("email"))
    return valid | {"email": email, "emailAsSent": email_as_sent}


def consumer_faults(_: Mapping[str, str], present: Mapping[str, str], _environment: Environment) -> list[str]:
    if "externalId" in present or "email" in present:
        return []
    return ["externalId or email: one is required, or importing again would insert the row again"]


def order_rules(_: Environment, columns: Columns) -> dict[str, Rule]:
    has_point = columns.decimal == "." or not (columns.decimal or columns.export)
    amount = partial(_amount, columns, has_point=has_point)
    return {
        "consumerId": fields.external_id,
        "consumerExternalId": _id_rule("consumerExternalId", columns),
        "consumerEmail": emails.fold,
        "externalId": _id_rule("externalId", columns),
        "status": _status,
        "amount": amount,
        "refundedAmount": amount,
        "currencyCode": fields.currency,
        "baseAmount": amount,
        "items": values.items,
        "placedAt": partial(_timestamp, columns.zone, columns.export.times if columns.export else ()),
    }


def order_faults(valid: Mapping[str, str], present: Mapping[str, str], environment: Environment) -> list[str]:
    faults = []
    if "externalId" not in present:
        faults.append("externalId: required, or importing again would insert the row again")
    if "refundedAmount" not in valid and "baseAmount" not in valid:
        return faults
    known = {name: Decimal(valid[name]) for name in exported.AMOUNTS if name in valid}
    return faults + money_faults(
        known.get("amount"),
        known.get("refundedAmount"),
        known.get("baseAmount"),
        local=valid.get("currencyCode") == environment.currency,
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
    complete=consumer_columns,
    added={"emailAsSent": "email_as_sent"},
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
        "items": "items",
        "placedAt": "placed_at",
    },
    rules=order_rules,
    faults=order_faults,
)


def check(kind: Rules, environment: Environment, columns: Columns, records: Iterable[Record]) -> Checked:
    """Check a chunk. An empty cell counts as missing and leaves the stored value unchanged."""
    checked = Checked([], {})
    rules = kind.rules(environment, columns)
    read_texts, read_metadata = texts_reader(columns.fields), texts_reader(columns.metadata, trim=False)
    conversions: dict[str, Callable[[str], Any]] = {**values.TYPES, "number": partial(_number, columns)}
    types = {column.name: conversions[column.kind] for column in columns.metadata}
    has_references = not columns.export and len(columns.names & set(REFERENCES)) > 1
    stored_names = (*kind.columns, *kind.added)
    for position, record in enumerate(records):
        if record.fault:
            checked.rejects[position] = record.fault
            continue
        cells = columns.row(record.cells)
        texts = read_texts(cells)
        faults = exported.convert(texts, columns, cells, record.continued, environment) if columns.export else []
        valid: dict[str, Any] = {}
        for name, text in texts.items():
            try:
                if "#" in text:
                    ids.refuse_error(text)
                valid[name] = rules[name](_clean(text))
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if has_references and len(texts.keys() & set(REFERENCES)) > 1:
            faults.append(f"only one of {', '.join(REFERENCES)} can name the consumer")
        faults += kind.faults(valid, texts, environment)
        metadata, metadata_faults = _metadata(types, read_metadata(cells)) if types else (None, [])
        faults += metadata_faults
        if faults:
            checked.rejects[position] = "; ".join(faults)
        else:
            stored = kind.complete(valid)
            checked.rows.append((position, *map(stored.get, stored_names), metadata))
    return checked


def _metadata(types: Mapping[str, Callable[[str], Any]], texts: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """Return the metadata as JSON text, and its faults."""
    result: dict[str, Any] = {}
    faults = []
    for key, text in texts.items():
        try:
            result[key] = types[key](_clean(text))
        except ValueError as error:
            faults.append(f"{METADATA}{key}: {error}")
    if not result or faults:
        return None, faults
    try:
        return msgspec.json.encode(fields.metadata(result)).decode(), []
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


def _amount(columns: Columns, value: str, *, has_point: bool) -> str:
    if has_point and ORDINARY_AMOUNT.fullmatch(value):
        return value
    ids.refuse_scientific(value)
    return f"{fields.amount(_with_point(columns, value)):f}"


def _number(columns: Columns, value: str) -> Any:
    return values.number(_with_point(columns, value.strip()))


def _with_point(columns: Columns, value: str) -> str:
    """Return an amount with a decimal point: in a file with our own names, others need `--decimal`."""
    return amounts.money(value, columns.decimal) if columns.export or columns.decimal else amounts.with_point(value)


def _timestamp(zone: str | None, formats: Sequence[str], value: str) -> str:
    return values.moment(value, zone, formats).isoformat()
