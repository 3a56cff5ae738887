"""Unique values of consumers: finds taken and repeated values, and releases values that move within a batch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import Fault, ItemFault
from infra import emails
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.index.documents import ConsumerRow
from infra.unique_values import Claim, judge, settle


class Unique(NamedTuple):
    """A unique field."""

    name: str
    column: str
    """In the rows to store."""
    exists: str
    """The message if another consumer has the value."""
    code: ErrorCode


UNIQUE = (
    Unique("email", "email", "Email already exists", ErrorCode.EMAIL_TAKEN),
    Unique("externalId", "external_id", "External ID already exists", ErrorCode.EXTERNAL_ID_TAKEN),
)
# A separate subquery for each value uses the index of the column. Most values have no owner, and are not returned.
OWNERS = sa.text(f"""
    WITH owners AS MATERIALIZED (
        SELECT 'email' AS "column", w.value, (
            SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
                AND c.email_key = lower(w.value COLLATE pg_c_utf8) COLLATE "C") AS id
        FROM unnest(CAST(:email AS text[])) AS w (value)
        UNION ALL
        SELECT 'external_id', w.value, (
            SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
                AND c.external_id = w.value)
        FROM unnest(CAST(:external_id AS text[])) AS w (value))
    SELECT * FROM owners WHERE id IS NOT NULL""")
# The values of rows that other rows of the batch take over (`infra/unique_values.py`).
RELEASE = sa.text("""
    UPDATE consumers SET
        email = CASE WHEN id = ANY(:email) THEN NULL ELSE email END,
        email_as_sent = CASE WHEN id = ANY(:email) THEN NULL ELSE email_as_sent END,
        external_id = CASE WHEN id = ANY(:external_id) THEN NULL ELSE external_id END
    WHERE environment_id + 0 = :environment_id AND id = ANY(:ids)""")


async def release(connection: AsyncConnection, caller: Caller, released: Mapping[str, Sequence[str]]) -> None:
    """Take the values of rows that other rows of the batch take over. `released` holds ids by column."""
    if ids := sorted({consumer_id for of_column in released.values() for consumer_id in of_column}):
        await connection.execute(RELEASE, {"environment_id": caller.environment_id, "ids": ids, **released})


def key(unique: Unique, value: str | None) -> str | None:
    """Return the form of a value by which the database compares it."""
    return emails.fold(value) if value is not None and unique.column == "email" else value


def stored_key(unique: Unique, row: ConsumerRow) -> str | None:
    """Return the key of a row's value; None for an address stored under another key (`_changed_values`)."""
    if unique.column != "email":
        return row.external_id
    if row.email is None or emails.columns(row.address) != (row.email, row.email_as_sent):
        return None
    return emails.fold(row.email)


async def find_faults(
    connection: AsyncConnection, caller: Caller, claims: Mapping[str, Sequence[Claim]]
) -> tuple[list[ItemFault], dict[str, list[str]]]:
    """Return a fault for each value that is taken or repeated, and by column the ids of rows to release."""
    owners = await _owners(connection, caller, claims)
    faults, released = list[ItemFault](), dict[str, list[str]]()
    for unique in UNIQUE:
        verdict = judge(claims[unique.column], owners[unique.column])
        released[unique.column] = list(verdict.released)
        faults += [ItemFault(item, _fault(unique, owner=owner)) for item, owner in verdict.taken.items()]
        faults += [ItemFault(item, _fault(unique, taker=first)) for item, first in verdict.repeated.items()]
    return sorted(faults, key=lambda fault: fault.index), released


class Failures(NamedTuple):
    """The items of a batch that fail alone."""

    faults: list[ItemFault]
    repeats: Sequence[int]
    """Items that would change a consumer which an earlier item of the batch changes."""
    released: Mapping[str, Sequence[str]]
    """By column, the ids of rows to release."""


async def find_failures(
    connection: AsyncConnection, caller: Caller, claims: Mapping[int, Mapping[str, Claim]], rows: Mapping[int, str]
) -> Failures:
    """Decide which items of a batch fail. An item that fails keeps its old values, and takes none.

    Args:
        connection: in a transaction.
        caller: the environment.
        claims: by item, the claims of the columns that change.
        rows: by item, the ids of stored consumers.
    """
    by_column = {
        unique.column: [of_item[unique.column] for of_item in claims.values() if unique.column in of_item]
        for unique in UNIQUE
    }
    settlement = settle(claims, rows, await _owners(connection, caller, by_column))
    uniques = {unique.column: unique for unique in UNIQUE}
    faults = [
        ItemFault(item, _fault(uniques[column], owner=owner, taker=taker))
        for item, column, owner, taker in settlement.conflicts
    ]
    return Failures(faults, settlement.repeats, settlement.released)


async def _owners(
    connection: AsyncConnection, caller: Caller, claims: Mapping[str, Sequence[Claim]]
) -> dict[str, dict[str, str]]:
    """Return by column, for each value that an item takes, the id of the consumer that has the value."""
    values = {
        column: list({claim.after for claim in of_column if claim.after not in {None, claim.before}})
        for column, of_column in claims.items()
    }
    owners: dict[str, dict[str, str]] = {column: {} for column in values}
    if any(values.values()):
        for column, value, owner in await connection.execute(
            OWNERS, {"environment_id": caller.environment_id, **values}
        ):
            owners[column][value] = owner
    return owners


def _fault(unique: Unique, *, owner: str | None = None, taker: int | None = None) -> Fault:
    """Return the fault of a value that a consumer has, or that another item of the batch takes."""
    if taker is not None:
        return Fault(unique.name, f"Same as [{taker}]", ErrorCode.DUPLICATE)
    return Fault(unique.name, unique.exists, unique.code, owner)
