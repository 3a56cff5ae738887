"""E-mail addresses that are not stored under their key (`infra/emails.py`): rows of earlier releases.

`consumers migrate` stores each such address under its key. If another consumer has the key, both consumers are kept as
they are: they were two for the merchant. A search finds both; a new consumer cannot take the address.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from infra import emails
from infra.database.engine import OPAQUE_ENVIRONMENT_ID

# Every other address is equal to its key in lower case.
CANDIDATES = sa.text("""
    SELECT id, environment_id, email FROM consumers
    WHERE email_as_sent IS NULL AND (octet_length(email) <> length(email) OR email ILIKE '%xn--%') ORDER BY id""")
OWNER = sa.text(f"""
    SELECT id FROM consumers WHERE environment_id = {OPAQUE_ENVIRONMENT_ID}
        AND email_key = lower(:key COLLATE pg_c_utf8) COLLATE "C" """)
STORE = sa.text("UPDATE consumers SET email = :key, email_as_sent = :email WHERE id = :id AND email = :email")
USE_BULK_LANE = sa.text("SELECT set_config('consumers.lane', 'bulk', true)")
BUSY = {"23505", "40P01", "55P03"}
"""PostgreSQL's codes of a value taken meanwhile, a deadlock, and a lock that was not granted in time."""


class Misplaced(NamedTuple):
    """An address that is not stored under its key."""

    id: str
    environment_id: int
    email: str
    key: str


def misplaced(connection: sa.Connection) -> Iterator[Misplaced]:
    """Yield the addresses that are not stored under their key. Reads the whole table."""
    for row in connection.execute(CANDIDATES).all():
        stored = emails.columns(row.email)
        if stored != (row.email, None):
            assert stored.email is not None
            yield Misplaced(row.id, row.environment_id, row.email, stored.email)


def owner(connection: sa.Connection, address: Misplaced) -> str | None:
    """Return the id of the consumer that has the key of an address."""
    values = {"environment_id": address.environment_id, "key": address.key}
    owner_id: str | None = connection.execute(OWNER, values).scalar_one_or_none()
    return owner_id


def store_under_keys(connection: sa.Connection) -> Sequence[Misplaced]:
    """Store addresses under their keys; return those whose key is taken, or whose row is in use."""
    kept = []
    for address in misplaced(connection):
        connection.execute(USE_BULK_LANE)
        if owner(connection, address) not in {None, address.id} or not _store(connection, address):
            kept.append(address)
        connection.commit()
    connection.commit()
    return kept


def _store(connection: sa.Connection, address: Misplaced) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(STORE, {"id": address.id, "email": address.email, "key": address.key})
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in BUSY:
            raise
        return False
    return True
