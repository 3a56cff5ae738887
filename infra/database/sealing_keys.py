"""The keys that seal tokens, entity tags and cursors (`infra/seals.py`).

A migration makes the first key, and `consumers migrate` replaces a lost key. Texts sealed with a lost key are invalid;
nothing else depends on a key.
"""

import secrets
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

SECRET_BYTES = 64
"""AES-SIV uses two keys of 256 bits."""
UNDEFINED_TABLE = "42P01"

REPLACE_LOST = sa.text("""
    INSERT INTO sealing_keys (secret) SELECT :secret WHERE NOT EXISTS (SELECT FROM sealing_keys)""")
READ = sa.text(
    "SELECT id, secret, unsealed_until, short_tokens_until, plain_cursors_until FROM sealing_keys ORDER BY id"
)


class SealingKeyMissing(Exception):  # noqa: N818 (named for the state of the database)
    """The database has no sealing key."""

    def __init__(self) -> None:
        super().__init__("The database has no sealing key: run `consumers migrate`, and start this process again")


class SealingKey(NamedTuple):
    id: int
    secret: bytes
    unsealed_until: datetime | None
    """Until when the formats before sealing are accepted as well."""
    short_tokens_until: datetime | None = None
    """Until when tokens are made without an epoch, because processes of the release before may run."""
    plain_cursors_until: datetime | None = None
    """Until when cursors are made without the parameters of the list, for the same reason."""


def ensure(connection: sa.Connection) -> None:
    """Make a key unless there is one. The caller holds the lock of the migrations, and commits."""
    connection.execute(REPLACE_LOST, {"secret": secrets.token_bytes(SECRET_BYTES)})


def read(connection: sa.Connection) -> list[SealingKey]:
    """Return all keys, the newest last.

    Raises:
        SealingKeyMissing: there is none, or the database is not migrated to this release.
    """
    try:
        keys = [SealingKey._make(row) for row in connection.execute(READ)]
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE:
            raise
        raise SealingKeyMissing from error
    if not keys:
        raise SealingKeyMissing
    return keys
