"""Load the sample data once, and store a key."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import psycopg
import sqlalchemy as sa

from infra.accounts import keys, organizations
from infra.accounts.organizations import Mode
from infra.database.engine import open_engine
from infra.local.folder import write_private
from infra.local.sample.audiences import Audience, audiences
from infra.local.sample.consumers import Consumer, persons
from infra.local.sample.orders import BASE_CURRENCY, Order, orders
from infra.settings import Settings

NAME = "demo"
MODE: Mode = "live"
LOCK = 0x64656D6F
Row: TypeAlias = Consumer | Order | Audience
CHUNK = 1_000
"""Rows of a statement: the triggers hold all rows in memory."""

INSERT_MEMBERS = sa.text("""
    INSERT INTO audience_members (environment_id, audience_id, consumer_id)
    SELECT :environment_id, a.id, c.id FROM audiences a JOIN consumers c ON c.environment_id = a.environment_id
    WHERE a.environment_id = :environment_id AND a.type = 'STATIC' AND c.metadata -> 'tags' ? a.name""")


def ensure_demo(settings: Settings, folder: Path) -> str:
    """Create the organization `demo` with the sample data if missing, and return a key.

    The key is stored in `demo.key` in the folder. A new key is created if the file is missing, or if the key is no
    longer valid or belongs to another database. Existing data is never changed. All work is one transaction, so the
    process may be killed at any step.
    """
    engine = open_engine(settings)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            if not any(organization.name == NAME for organization in organizations.list_all(connection)):
                organizations.create(connection, NAME, currency=BASE_CURRENCY, region="US")
                load(connection, organizations.environment_id(connection, NAME, MODE))
            return _key(connection, folder / "demo.key")
    finally:
        engine.dispose()


def load(connection: sa.Connection, environment_id: int) -> None:
    """Insert all sample consumers, their orders, and the audiences."""
    connection.execute(sa.text("SET LOCAL consumers.lane = 'bulk'"))
    people = list(persons())
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    _copy(raw, environment_id, Consumer, [person.consumer for person in people])
    _copy(raw, environment_id, Order, list(orders(people)))
    _copy(raw, environment_id, Audience, audiences())
    connection.execute(INSERT_MEMBERS, {"environment_id": environment_id})


def _copy(connection: psycopg.Connection, environment_id: int, kind: type[Row], rows: Sequence[Row]) -> None:
    statement = f"COPY {kind.__name__.lower()}s (environment_id, {', '.join(kind._fields)}) FROM STDIN"
    for start in range(0, len(rows), CHUNK):
        with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows[start : start + CHUNK]:
                copy.write_row((environment_id, *map(_plain, row)))


def _plain(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _key(connection: sa.Connection, file: Path) -> str:
    """Return the key in the file, or create and store a key."""
    if file.exists():
        secret = file.read_text("ascii", errors="replace").strip()
        if _opens_demo(keys.find(connection, secret)):
            return secret
    secret = keys.create(connection, NAME, MODE, name="sample data").key
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Before the commit: a kill between the two leaves a file with an invalid key, which the next start replaces.
    write_private(file, secret)
    return secret


def _opens_demo(key: keys.Key | None) -> bool:
    return bool(
        key
        and (key.organization, key.mode) == (NAME, MODE)
        and key.revoked_at is None
        and (key.expires_at is None or key.expires_at > datetime.now(UTC))
    )
