"""Organizations and their two environments (contract.md §1), each in the caller's transaction."""

import unicodedata
from datetime import datetime
from typing import Any, Literal

import msgspec
import phonenumbers
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from infra import fields
from infra.accounts.tables import environments, organizations
from infra.ids import new_ids

Mode = Literal["live", "test"]
MODES: tuple[Mode, ...] = ("live", "test")


class OrganizationError(Exception):
    """What was asked for cannot be done; the message is one line for the person who asked."""


class Organization(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A customer of this service. A limit of None is the service's default, one of 0 is none at all."""

    id: str
    name: str
    currency: str
    region: str | None
    limit_reads: int | None
    limit_writes: int | None
    limit_batch: int | None
    created_at: datetime


ORGANIZATION = [organizations.c[name] for name in Organization.__struct_fields__]


def create(connection: sa.Connection, name: str, *, currency: str = "USD", region: str | None = None) -> Organization:
    """Create an organization with both of its environments.

    Args:
        connection: in a transaction.
        name: unique; 1 to 255 characters.
        currency: of ISO 4217; the one its totals are in.
        region: two letters; phone numbers in national form are read as being of this country.

    Raises:
        OrganizationError: the name is taken, or a value is wrong.
    """
    try:
        fields.currency(currency)
    except ValueError as error:
        raise OrganizationError(f"the currency {currency!r} is not one of ISO 4217, such as GBP") from error
    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise OrganizationError(f"the region {region!r} is not a country's two letters, such as GB")
    values = {"id": new_ids("org_", 1)[0], "name": label("name", name), "currency": currency, "region": region}
    insert = (
        pg.insert(organizations).values(values).on_conflict_do_nothing(index_elements=["name"]).returning(*ORGANIZATION)
    )
    created = connection.execute(insert).one_or_none()
    if created is None:
        raise OrganizationError(f"there is an organization {name!r} already")
    connection.execute(sa.insert(environments), [{"organization_id": created.id, "mode": mode} for mode in MODES])
    return msgspec.convert(created, Organization, from_attributes=True)


def every(connection: sa.Connection) -> list[Organization]:
    """All organizations by name."""
    rows = connection.execute(sa.select(*ORGANIZATION).order_by(organizations.c.name))
    return [msgspec.convert(row, Organization, from_attributes=True) for row in rows]


def get(connection: sa.Connection, name: str) -> Organization:
    """Find an organization by its name.

    Raises:
        OrganizationError: there is none.
    """
    query = sa.select(*ORGANIZATION).where(organizations.c.name == label("name", name))
    return _organization(connection.execute(query).one_or_none(), name)


def limit(connection: sa.Connection, name: str, limits: dict[str, int]) -> Organization:
    """Set how many requests a minute an environment of it may send.

    Args:
        connection: in a transaction.
        name: of the organization.
        limits: for some of reads, writes and batch; 0 is no limit. Those not given stay.

    Raises:
        OrganizationError: there is no such organization.
    """
    if not limits:
        return get(connection, name)
    update = (
        sa.update(organizations)
        .where(organizations.c.name == label("name", name))
        .values({f"limit_{kind}": number for kind, number in limits.items()})
        .returning(*ORGANIZATION)
    )
    return _organization(connection.execute(update).one_or_none(), name)


def environment_id(connection: sa.Connection, name: str, mode: Mode) -> int:
    """Find the environment of an organization.

    Raises:
        OrganizationError: there is no such organization.
    """
    organization = get(connection, name)
    query = sa.select(environments.c.id).where(
        environments.c.organization_id == organization.id, environments.c.mode == mode
    )
    found: int = connection.execute(query).scalar_one()
    return found


def named_environment(connection: sa.Connection, name: str) -> int:
    """Find an environment by its organization's name, a colon, and its mode, such as `shop:live`.

    Raises:
        OrganizationError: it is no such name, or there is no such organization.
    """
    organization, _, mode = name.rpartition(":")
    for known in MODES:
        if organization and mode == known:
            return environment_id(connection, organization, known)
    raise OrganizationError("an environment is an organization's name, a colon, and live or test")


def _organization(row: sa.Row[Any] | None, name: str) -> Organization:
    if row is None:
        raise OrganizationError(f"there is no organization {name!r}; `consumers org list` names them")
    return msgspec.convert(row, Organization, from_attributes=True)


def label(what: str, value: str) -> str:
    """Check a name that people will read in a terminal: nothing in it may be invisible, or act there."""
    text = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(text) <= 255 or not text.isprintable():  # noqa: PLR2004 (the schema's)
        raise OrganizationError(f"the {what} must be 1 to 255 printable characters")
    return text
