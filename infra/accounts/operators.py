"""The keys of operators, for `/api/v1/ops/*` alone (contract.md §1). Every function runs in the caller's transaction.

An operator's key belongs to no organization: the operations reach the whole index, with every merchant's data.
"""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from infra.accounts import organizations
from infra.accounts.key_secrets import checked_expiry, hint, new_secret, secret_hash
from infra.accounts.organizations import OrganizationError
from infra.ids import new_ids

PREFIX = "op_"
COMMAND = "consumers operator create"
"""The command that makes a key, for messages."""

COLUMNS = "id, name, hint, created_at, expires_at, revoked_at, last_used_at"
INSERT = sa.text("""
    INSERT INTO operator_keys (id, name, secret_hash, hint, expires_at)
    VALUES (:id, :name, :secret_hash, :hint, :expires_at) RETURNING id, name, expires_at""")
ALL = sa.text(f"SELECT {COLUMNS} FROM operator_keys ORDER BY created_at, id")
REVOKE = sa.text(f"""
    UPDATE operator_keys SET revoked_at = coalesce(revoked_at, present()) WHERE id = :id RETURNING {COLUMNS}""")


class OperatorKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An operator's key without the secret."""

    id: str
    name: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewOperatorKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new key of an operator, with the secret, which is known only now."""

    id: str
    key: str
    name: str
    expires_at: datetime | None


def create(connection: sa.Connection, *, name: str = "default", expires_at: datetime | None = None) -> NewOperatorKey:
    """Create a key. Show the secret now: only a hash is stored.

    Raises:
        OrganizationError: a value is invalid.
    """
    secret = new_secret(PREFIX)
    values = {
        "id": new_ids("opkey_", 1)[0],
        "name": organizations.checked_name("key's name", name),
        "secret_hash": secret_hash(secret),
        "hint": hint(secret, PREFIX),
        "expires_at": checked_expiry(expires_at),
    }
    row = connection.execute(INSERT, values).mappings().one()
    return NewOperatorKey(key=secret, **row)


def list_all(connection: sa.Connection) -> list[OperatorKey]:
    """Return all keys of operators, the oldest first; revoked and expired keys are included."""
    return [msgspec.convert(row, OperatorKey, from_attributes=True) for row in connection.execute(ALL)]


def revoke(connection: sa.Connection, key_id: str) -> OperatorKey:
    """Revoke a key for good. A revoked key keeps the time of the first revocation.

    Raises:
        OrganizationError: no operator's key has this id.
    """
    row = connection.execute(REVOKE, {"id": key_id}).one_or_none()
    if row is None:
        raise OrganizationError(f"there is no operator key {key_id!r}; `consumers operator list` lists them")
    return msgspec.convert(row, OperatorKey, from_attributes=True)
