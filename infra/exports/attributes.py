"""Attributes: values in the metadata of consumers that an organization has declared for analysts.

Metadata is personal data, because merchants may write anything into it. A declared path is not: the merchant says that
its values identify no person. An export has a typed column for each declared path.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import msgspec
import sqlalchemy as sa

from infra.accounts.organizations import OrganizationError, get
from infra.fields import METADATA_DEPTH, METADATA_KEY_LENGTH

METADATA = "metadata."
MAX_ATTRIBUTES = 50
"""As many as metadata may have keys."""
COLUMN_PREFIX = "attr_"
Type = Literal["text", "number", "boolean"]
TYPES: tuple[Type, ...] = get_args(Type)
NOT_IN_NAMES = re.compile(r"\W")
EXPECTED = f"use metadata.KEY:TYPE, such as metadata.country:text, with the type {', '.join(TYPES)}"
TOO_DEEP = f"a path has at most {METADATA_DEPTH} keys, of at most {METADATA_KEY_LENGTH} characters each"

SET = sa.text("UPDATE organizations SET attributes = CAST(:attributes AS jsonb) WHERE id = :id")
READ = sa.text("SELECT attributes FROM organizations WHERE id = :id")


class Attribute(msgspec.Struct, frozen=True):
    """A declared path in metadata."""

    path: str
    """Without `metadata.`; further keys, after dots, lead into objects."""
    type: Type

    @property
    def column(self) -> str:
        """The name of the column in an export."""
        return COLUMN_PREFIX + NOT_IN_NAMES.sub("_", self.path)


def parse(texts: Iterable[str]) -> list[Attribute]:
    """Parse declarations such as `metadata.points:number`.

    Raises:
        OrganizationError: a declaration has another form, a path or a column occurs twice, or there are too many.
    """
    attributes = [_parse(text) for text in texts]
    if len(attributes) > MAX_ATTRIBUTES:
        raise OrganizationError(f"at most {MAX_ATTRIBUTES} attributes are allowed, not {len(attributes)}")
    columns: dict[str, str] = {}
    for attribute in attributes:
        # The names of columns are compared without case, as SQL does.
        if other := columns.get(attribute.column.lower()):
            if other == attribute.path:
                raise OrganizationError(f"{METADATA}{other} is declared twice: declare it once")
            raise OrganizationError(
                f"{METADATA}{attribute.path} and {METADATA}{other} would both be the column {attribute.column}: "
                "declare one of the two"
            )
        columns[attribute.column.lower()] = attribute.path
    return attributes


def _parse(text: str) -> Attribute:
    name, colon, kind = text.rpartition(":")
    path = name.removeprefix(METADATA)
    keys = path.split(".")
    is_path = name.startswith(METADATA) and all(keys) and path.isprintable()
    if is_path and (len(keys) > METADATA_DEPTH or max(map(len, keys)) > METADATA_KEY_LENGTH):
        raise OrganizationError(f"the attribute {text!r} is invalid: {TOO_DEEP}")
    for known in TYPES:
        if colon and is_path and kind == known:
            return Attribute(path, known)
    raise OrganizationError(f"the attribute {text!r} is invalid: {EXPECTED}")


def declare(connection: sa.Connection, organization: str, attributes: Sequence[Attribute]) -> None:
    """Replace the declared attributes of an organization.

    Raises:
        OrganizationError: no organization has this name, or the organization is being deleted.
    """
    stored = msgspec.json.encode(attributes).decode()
    connection.execute(SET, {"id": get(connection, organization).id, "attributes": stored})


def declared(connection: sa.Connection, organization: str) -> list[Attribute]:
    """Return the declared attributes of an organization.

    Raises:
        OrganizationError: no organization has this name, or the organization is being deleted.
    """
    stored: Any = connection.execute(READ, {"id": get(connection, organization).id}).scalar_one()
    return msgspec.convert(stored, list[Attribute])
