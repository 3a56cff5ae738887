"""`manifest.json`: the description of an export, and the check sums of its files."""

from collections.abc import Sequence
from typing import Any

import msgspec

from infra.exports.attributes import Attribute
from infra.exports.requests import ExportFile, Format
from infra.exports.tables import TableName

MANIFEST, SCRIPT = "manifest.json", "analytics.sql"
SCHEMA_VERSION = 1
"""Moves when a column is removed or has another type, and stays for a new column."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The manifest of an export."""

    schema_version: int = SCHEMA_VERSION
    id: str
    environment: str
    """Organization and mode, such as `shop:live`."""
    currency: str
    """Currency of all values without a currency of their own."""
    as_of: str
    """The moment of the database: the files have every change committed by then."""
    members_as_of: str | None
    """The moment of the index for members of dynamic audiences; null without such audiences."""
    consistency_token: str
    """The token for a list with at least the changes of the export."""
    tables: Sequence[TableName]
    format: Format
    personal: bool
    attributes: Sequence[Attribute]
    """The declared attributes of consumers."""
    sums: dict[str, dict[str, Any]]
    """Numbers of rows and sums by table, from the database."""
    files: Sequence[ExportFile]


def encoded(manifest: Manifest) -> bytes:
    """Return the content of the file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
