"""Organizations and their two environments (contract.md §1). Every function runs in the caller's transaction."""

import unicodedata
from datetime import datetime
from typing import Any, Literal

import msgspec
import phonenumbers
import sqlalchemy as sa

from infra.currencies import CURRENCIES
from infra.errors import ExplainedError
from infra.ids import new_ids

Mode = Literal["live", "test"]
MODES: tuple[Mode, ...] = ("live", "test")
MAX_NAME_LENGTH = 255
"""The limit of the column."""

COLUMNS = "id, name, currency, region, limit_reads, limit_writes, limit_batch, limit_stored_mib, created_at, deleted_at"
INSERT = sa.text(f"""
    INSERT INTO organizations (id, name, currency, region) VALUES (:id, :name, :currency, :region)
    ON CONFLICT (name) DO NOTHING RETURNING {COLUMNS}""")
INSERT_ENVIRONMENTS = sa.text("""
    INSERT INTO environments (organization_id, mode) SELECT :id, mode FROM unnest(CAST(:modes AS text[])) AS mode""")
ALL = sa.text(f"SELECT {COLUMNS} FROM organizations ORDER BY name")
BY_NAME = sa.text(f"SELECT {COLUMNS} FROM organizations WHERE name = :name")
SET_LIMITS = sa.text(f"""
    UPDATE organizations SET limit_reads = coalesce(CAST(:reads AS int), limit_reads),
        limit_writes = coalesce(CAST(:writes AS int), limit_writes),
        limit_batch = coalesce(CAST(:batch AS int), limit_batch),
        limit_stored_mib = coalesce(CAST(:stored_mib AS int), limit_stored_mib)
    WHERE name = :name AND deleted_at IS NULL RETURNING {COLUMNS}""")
MARK_DELETED = sa.text(f"UPDATE organizations SET deleted_at = present() WHERE id = :id RETURNING {COLUMNS}")
REVOKE_KEYS = sa.text("""
    UPDATE api_keys SET revoked_at = present() WHERE revoked_at IS NULL AND environment_id IN (
        SELECT id FROM environments WHERE organization_id = :id)""")
ENVIRONMENT = sa.text("SELECT id FROM environments WHERE organization_id = :organization_id AND mode = :mode")


class OrganizationError(ExplainedError):
    """The request cannot be carried out. The message is a single line, for the caller."""


class Organization(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A customer of this service. A limit of None means the service's default; 0 means no limit."""

    id: str
    name: str
    currency: str
    region: str | None
    limit_reads: int | None
    limit_writes: int | None
    limit_batch: int | None
    limit_stored_mib: int | None
    created_at: datetime
    deleted_at: datetime | None
    """Since when the organization is being deleted in the background; None for all others."""


def create(connection: sa.Connection, name: str, *, currency: str = "USD", region: str | None = None) -> Organization:
    """Create an organization with both environments.

    Args:
        connection: in a transaction.
        name: unique; 1 to 255 characters.
        currency: an ISO 4217 code; the organization's totals are in this currency.
        region: a country's two letters; phone numbers in national form are read as numbers of this country.

    Raises:
        OrganizationError: the name is taken, or a value is invalid.
    """
    if currency not in CURRENCIES:
        raise OrganizationError(f"the currency {currency!r} is not an ISO 4217 code: use one such as GBP")
    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise OrganizationError(f"the region {region!r} is not a country code: use two letters such as GB")
    values = {"id": new_ids("org_", 1)[0], "name": checked_name("name", name), "currency": currency, "region": region}
    created = connection.execute(INSERT, values).one_or_none()
    if created is None:
        get(connection, name)
        raise OrganizationError(f"there is an organization {name!r} already: use another name")
    connection.execute(INSERT_ENVIRONMENTS, {"id": created.id, "modes": list(MODES)})
    return msgspec.convert(created, Organization, from_attributes=True)


def list_all(connection: sa.Connection) -> list[Organization]:
    """Return all organizations, ordered by name."""
    return [msgspec.convert(row, Organization, from_attributes=True) for row in connection.execute(ALL)]


def get(connection: sa.Connection, name: str) -> Organization:
    """Return the organization with a name.

    Raises:
        OrganizationError: no organization has this name, or the organization is being deleted.
    """
    row = connection.execute(BY_NAME, {"name": checked_name("name", name)}).one_or_none()
    organization = _organization(row, name)
    if organization.deleted_at:
        raise OrganizationError(f"the organization {name!r} is being deleted: wait until `consumers org list` omits it")
    return organization


def set_limits(connection: sa.Connection, name: str, limits: dict[str, int]) -> Organization:
    """Set how many requests a minute each environment of an organization may send, and how much it may store.

    Args:
        connection: in a transaction.
        name: of the organization.
        limits: any of `reads`, `writes`, `batch` and `stored_mib`; 0 means no limit. An absent limit stays.

    Raises:
        OrganizationError: no organization has this name, or the organization is being deleted.
    """
    get(connection, name)
    unchanged = dict.fromkeys(("reads", "writes", "batch", "stored_mib"))
    values = {"name": checked_name("name", name)} | unchanged | limits
    return _organization(connection.execute(SET_LIMITS, values).one_or_none(), name)


def delete(connection: sa.Connection, name: str) -> Organization:
    """Mark an organization as deleted, and revoke its keys. The indexer deletes the data (`indexer/erasure.py`).

    API processes cache a key: wait for `keys.CACHE_SECONDS` after the commit before relying on the revocation.

    Raises:
        OrganizationError: no organization has this name, or the organization is being deleted already.
    """
    values = {"id": get(connection, name).id}
    connection.execute(REVOKE_KEYS, values)
    return _organization(connection.execute(MARK_DELETED, values).one(), name)


def environment_id(connection: sa.Connection, organization: str, mode: Mode) -> int:
    """Return the id of an organization's environment.

    Raises:
        OrganizationError: no organization has this name.
    """
    values = {"organization_id": get(connection, organization).id, "mode": mode}
    number: int = connection.execute(ENVIRONMENT, values).scalar_one()
    return number


def parse_environment(name: str) -> tuple[str, Mode]:
    """Split the name of an environment, such as `shop:live`, into organization and mode.

    Raises:
        OrganizationError: the name has another form.
    """
    organization, _, mode = name.rpartition(":")
    for known_mode in MODES:
        if organization and mode == known_mode:
            return organization, known_mode
    raise OrganizationError("an environment is ORG:MODE: an organization's name, a colon, and live or test")


def named_environment(connection: sa.Connection, name: str) -> int:
    """Return the id of the environment with a name such as `shop:live`.

    Raises:
        OrganizationError: the name has another form, or no organization has this name.
    """
    return environment_id(connection, *parse_environment(name))


def checked_name(field: str, value: str) -> str:
    """Normalize a name for output in a terminal, and reject invisible and control characters.

    Args:
        field: the name of the field for the error message.
        value: as entered.

    Raises:
        OrganizationError: the name is empty, too long, or has characters that are not printable.
    """
    text = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(text) <= MAX_NAME_LENGTH or not text.isprintable():
        raise OrganizationError(f"the {field} must be 1 to {MAX_NAME_LENGTH} printable characters")
    return text


def _organization(row: sa.Row[Any] | None, name: str) -> Organization:
    if row is None:
        raise OrganizationError(f"there is no organization {name!r}; `consumers org list` lists them")
    return msgspec.convert(row, Organization, from_attributes=True)
