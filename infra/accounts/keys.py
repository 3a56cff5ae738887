"""The secret keys to an environment (contract.md §1), each in the caller's transaction."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal, get_args

import msgspec
import sqlalchemy as sa

from infra.accounts import organizations, tables
from infra.accounts.organizations import Mode, OrganizationError
from infra.accounts.tables import api_keys, environments
from infra.ids import new_ids

Scope = Literal[
    "read:consumers",
    "write:consumers",
    "read:orders",
    "write:orders",
    "read:audiences",
    "write:audiences",
    "read:analytics",
    "admin",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ADMIN: Final = "admin"
DEFAULT_SCOPES = tuple(scope for scope in SCOPES if scope != ADMIN)

HINT_LENGTH = 12
"""Characters of a secret that may be shown: its kind and four more."""


class Key(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key as it can be looked at: its secret is not known any more."""

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
    """A key at the one moment when its secret is known."""

    id: str
    key: str
    organization: str
    mode: Mode
    name: str
    scopes: list[str]
    expires_at: datetime | None


KEYS = (
    sa.select(
        *(api_keys.c[name] for name in Key.__struct_fields__ if name not in {"organization", "mode"}),
        tables.organizations.c.name.label("organization"),
        environments.c.mode,
    )
    .join(environments, environments.c.id == api_keys.c.environment_id)
    .join(tables.organizations, tables.organizations.c.id == environments.c.organization_id)
)


def create(
    connection: sa.Connection,
    organization: str,
    mode: Mode,
    *,
    name: str = "default",
    scopes: Iterable[str] = DEFAULT_SCOPES,
    expires_at: datetime | None = None,
) -> NewKey:
    """Create a key. Only the hash of its secret is kept: show it now.

    Raises:
        OrganizationError: there is no such organization, or a value is wrong.
    """
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise OrganizationError("a key cannot expire in the past")
    secret = f"sk_{mode}_{secrets.token_urlsafe(32)}"
    values = {
        "id": new_ids("key_", 1)[0],
        "environment_id": organizations.environment_id(connection, organization, mode),
        "name": organizations.label("key's name", name),
        "secret_hash": secret_hash(secret),
        "hint": secret[:HINT_LENGTH],
        "scopes": _scopes(scopes),
        "expires_at": expires_at,
    }
    returned = (api_keys.c.id, api_keys.c.name, api_keys.c.scopes, api_keys.c.expires_at)
    row = connection.execute(sa.insert(api_keys).values(values).returning(*returned)).one()
    return NewKey(key=secret, organization=organization, mode=mode, **row._mapping)  # noqa: SLF001 (its public name)


def every(connection: sa.Connection, organization: str) -> list[Key]:
    """All keys of an organization, also those that are no longer valid, the oldest first.

    Raises:
        OrganizationError: there is no such organization.
    """
    found = organizations.get(connection, organization)
    query = KEYS.where(tables.organizations.c.id == found.id).order_by(api_keys.c.created_at, api_keys.c.id)
    return [msgspec.convert(row, Key, from_attributes=True) for row in connection.execute(query)]


def find(connection: sa.Connection, secret: str) -> Key | None:
    """Look a key up by its secret; valid or not."""
    query = KEYS.where(api_keys.c.secret_hash == secret_hash(secret))
    row = connection.execute(query).one_or_none()
    return row and msgspec.convert(row, Key, from_attributes=True)


def revoke(connection: sa.Connection, key_id: str) -> Key:
    """Make a key invalid for good; one that is so already stays as it is.

    Raises:
        OrganizationError: there is no such key.
    """
    update = (
        sa.update(api_keys)
        .where(api_keys.c.id == key_id)
        .values(revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.func.present()))
    )
    connection.execute(update)
    return _key(connection, key_id)


def rotate(connection: sa.Connection, key_id: str) -> NewKey:
    """Revoke a key and create another with its environment, name, scopes and expiry.

    Raises:
        OrganizationError: there is no such key, or it is not valid any more.
    """
    connection.execute(sa.select(api_keys.c.id).where(api_keys.c.id == key_id).with_for_update())
    old = _key(connection, key_id)
    if old.revoked_at or (old.expires_at and old.expires_at <= datetime.now(UTC)):
        raise OrganizationError(f"the key {key_id} is revoked or expired: create another")
    revoke(connection, key_id)
    return create(connection, old.organization, old.mode, name=old.name, scopes=old.scopes, expires_at=old.expires_at)


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret. A plain digest will do: it has 256 random bits, so there is nothing to guess."""
    return hashlib.sha256(secret.encode()).digest()


def _key(connection: sa.Connection, key_id: str) -> Key:
    row = connection.execute(KEYS.where(api_keys.c.id == key_id)).one_or_none()
    if row is None:
        raise OrganizationError(f"there is no key {key_id!r}; `consumers key list` names them")
    return msgspec.convert(row, Key, from_attributes=True)


def _scopes(given: Iterable[str]) -> list[str]:
    wanted = set(given)
    if unknown := sorted(wanted.difference(SCOPES)):
        raise OrganizationError(f"unknown scopes: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    if not wanted:
        raise OrganizationError(f"a key needs a scope at least; there are {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in wanted]
