"""The secret keys of an environment (contract.md §1). Every function runs in the caller's transaction."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal, get_args

import msgspec
import sqlalchemy as sa

from infra.accounts import operators, organizations
from infra.accounts.key_secrets import checked_expiry, hint, new_secret, secret_hash
from infra.accounts.organizations import Mode, OrganizationError
from infra.ids import new_ids

Scope = Literal[
    "read:consumers",
    "write:consumers",
    "read:orders",
    "write:orders",
    "read:audiences",
    "write:audiences",
    "read:analytics",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ADMIN: Final = "admin"
"""A scope of keys made by earlier releases, which opened the operations. It opens nothing now."""
ADMIN_REMOVED = f"the scope admin was removed: operators have keys of their own, made by `{operators.COMMAND}`"

CACHE_SECONDS = 3.0
"""How long an API process caches a key; a revoked key stops working within this time."""

INSERT = sa.text("""
    INSERT INTO api_keys (id, environment_id, name, secret_hash, hint, scopes, expires_at)
    VALUES (:id, :environment_id, :name, :secret_hash, :hint, :scopes, :expires_at)
    RETURNING id, name, scopes, expires_at""")
_KEY = """
    SELECT k.id, o.name AS organization, e.mode, k.name, k.hint, k.scopes, k.created_at, k.expires_at, k.revoked_at,
        k.last_used_at
    FROM api_keys k JOIN environments e ON e.id = k.environment_id JOIN organizations o ON o.id = e.organization_id"""
BY_ID = sa.text(f"{_KEY} WHERE k.id = :id")
BY_SECRET = sa.text(f"{_KEY} WHERE k.secret_hash = :secret_hash")
OF_ORGANIZATION = sa.text(f"{_KEY} WHERE o.id = :organization_id ORDER BY k.created_at, k.id")
LOCK = sa.text("SELECT id FROM api_keys WHERE id = :id FOR UPDATE")
EXPIRE = sa.text("""
    UPDATE api_keys SET expires_at = least(expires_at, present() + :seconds * interval '1 second') WHERE id = :id""")
REVOKE = sa.text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, present()) WHERE id = :id")


class Key(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key without the secret: only a hash is stored."""

    id: str
    organization: str
    mode: Mode
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new key, with the secret, which is known only now."""

    id: str
    key: str
    organization: str
    mode: Mode
    name: str
    scopes: list[str]
    expires_at: datetime | None


def create(
    connection: sa.Connection,
    organization: str,
    mode: Mode,
    *,
    name: str = "default",
    scopes: Iterable[str] = SCOPES,
    expires_at: datetime | None = None,
) -> NewKey:
    """Create a key. Show the secret now: only a hash is stored.

    Raises:
        OrganizationError: no organization has this name, or a value is invalid.
    """
    prefix = f"sk_{mode}_"
    secret = new_secret(prefix)
    values = {
        "id": new_ids("key_", 1)[0],
        "environment_id": organizations.environment_id(connection, organization, mode),
        "name": organizations.checked_name("key's name", name),
        "secret_hash": secret_hash(secret),
        "hint": hint(secret, prefix),
        "scopes": _checked_scopes(scopes),
        "expires_at": checked_expiry(expires_at),
    }
    row = connection.execute(INSERT, values).mappings().one()
    return NewKey(key=secret, organization=organization, mode=mode, **row)


def list_all(connection: sa.Connection, organization: str) -> list[Key]:
    """Return all keys of an organization, the oldest first; revoked and expired keys are included.

    Raises:
        OrganizationError: no organization has this name.
    """
    values = {"organization_id": organizations.get(connection, organization).id}
    return [msgspec.convert(row, Key, from_attributes=True) for row in connection.execute(OF_ORGANIZATION, values)]


def find(connection: sa.Connection, secret: str) -> Key | None:
    """Return the key with a secret, valid or not; None if no key has this secret."""
    row = connection.execute(BY_SECRET, {"secret_hash": secret_hash(secret)}).one_or_none()
    return None if row is None else msgspec.convert(row, Key, from_attributes=True)


def revoke(connection: sa.Connection, key_id: str) -> Key:
    """Revoke a key for good. A revoked key keeps the time of the first revocation.

    Raises:
        OrganizationError: no key has this id.
    """
    connection.execute(REVOKE, {"id": key_id})
    return _get(connection, key_id)


def rotate(connection: sa.Connection, key_id: str, *, overlap_seconds: int = 0) -> NewKey:
    """Revoke a key and create another with the same environment, name, scopes and expiry.

    The removed scope `admin` is left out.

    Args:
        connection: in a transaction.
        key_id: of the key to replace.
        overlap_seconds: how long the key stays valid beside the new one. 0: the key is revoked.

    Raises:
        OrganizationError: no key has this id, the key is no longer valid, or the key has no other scope than `admin`.
    """
    connection.execute(LOCK, {"id": key_id})
    old = _get(connection, key_id)
    if old.revoked_at or (old.expires_at and old.expires_at <= datetime.now(UTC)):
        raise OrganizationError(f"the key {key_id} is revoked or expired: create another")
    scopes = [scope for scope in old.scopes if scope != ADMIN]
    if not scopes:
        raise OrganizationError(f"the key {key_id} has no scope but admin: {ADMIN_REMOVED}")
    if overlap_seconds:
        connection.execute(EXPIRE, {"id": key_id, "seconds": overlap_seconds})
    else:
        revoke(connection, key_id)
    return create(connection, old.organization, old.mode, name=old.name, scopes=scopes, expires_at=old.expires_at)


def _get(connection: sa.Connection, key_id: str) -> Key:
    row = connection.execute(BY_ID, {"id": key_id}).one_or_none()
    if row is None:
        raise OrganizationError(f"there is no key {key_id!r}; `consumers key list` lists them")
    return msgspec.convert(row, Key, from_attributes=True)


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    requested = set(scopes)
    allowed = ", ".join(SCOPES)
    if ADMIN in requested:
        raise OrganizationError(ADMIN_REMOVED)
    if unknown := sorted(requested.difference(SCOPES)):
        raise OrganizationError(f"unknown scopes: {', '.join(unknown)}; allowed are {allowed}")
    if not requested:
        raise OrganizationError(f"a key needs a scope: give at least one of {allowed}")
    return [scope for scope in SCOPES if scope in requested]
