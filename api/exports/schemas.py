"""Bodies and answers of the exports' endpoints (contract.md §6)."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import msgspec

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import Fault
from api.pages import PageInfo, PageParameters
from api.scopes import FieldScope
from api.validation import Input
from infra.exports.requests import Format, State
from infra.exports.tables import TABLES, TableName
from infra.wire import Time

ID = "exp_01JBK3Q8X5W5V0B6T1R2M3N4P5"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class ExportCreate(Input):
    """A request for an export."""

    field_scopes = (FieldScope("personal", "read:consumers"),)
    example: ClassVar[dict[str, Any]] = {"tables": list(TABLES), "format": "parquet", "personal": False}

    tables: Annotated[
        list[TableName], msgspec.Meta(min_length=1, max_length=len(TABLES), description="All tables by default.")
    ] = msgspec.field(default_factory=lambda: list(TABLES))
    format: Format = "parquet"
    """The format of the files: `parquet` by default."""
    personal: bool = False
    """Whether to include addresses, numbers, names, external ids and metadata. False by default."""

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        if len(set(self.tables)) < len(self.tables):
            yield Fault("tables", "Must name each table once", ErrorCode.DUPLICATE)


class ExportListParameters(PageParameters):
    """Parameters of the list of exports."""

    kind = "exports"


class ExportFile(msgspec.Struct, rename="camel"):
    """A file of an export."""

    name: str
    """The name of the file."""
    table: TableName | None
    """The table; null for the files with descriptions."""
    rows: int | None
    """Number of rows; null for the files with descriptions."""
    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the file, in hexadecimal digits; also the `ETag` of the download."""
    href: str
    """The path of the download."""

    example: ClassVar[dict[str, Any]] = {
        "name": "consumers-0001.parquet",
        "table": "consumers",
        "rows": 1000000,
        "bytes": 52428800,
        "sha256": SHA256,
        "href": f"/api/v1/exports/{ID}/files/consumers-0001.parquet",
    }


class Sums(msgspec.Struct, rename="camel", omit_defaults=True):
    """Sums of a table, computed by the database in the snapshot of the export."""

    rows: int
    """Number of rows."""
    total_orders: int | None = None
    """Of consumers: the sum of `total_orders`."""
    total_order_value: str | None = None
    """Of consumers: the exact sum of `total_order_value`."""
    counting: int | None = None
    """Of orders: the number of orders that count."""
    value: str | None = None
    """Of orders: the exact sum of `value`."""

    example: ClassVar[dict[str, Any]] = {"rows": 3300000, "counting": 3100000, "value": "98765432.1000"}


class Export(msgspec.Struct, rename="camel"):
    """An export: tables at one moment of the database, as files."""

    id: Annotated[str, msgspec.Meta(pattern="^exp_[0-9A-HJKMNP-TV-Z]{26}$")]
    """The id."""
    state: State
    """`queued`, `running`, then `done` with files, or `failed`; `expired` when the files have been deleted."""
    progress: float
    """From 0 to 1."""
    tables: list[TableName]
    """The tables of the export."""
    format: Format
    """The format of the files."""
    personal: bool
    """Whether the export has personal data."""
    key_id: str | None
    """The key of the request; null for the operator of the service."""
    requested_at: Time
    """Time of the request."""
    finished_at: Time | None
    """Time of the end."""
    as_of: Time | None
    """The moment of the database: the export has every change committed by then, and no later change."""
    members_as_of: Time | None
    """The moment of the index for members of dynamic audiences; null without such audiences."""
    consistency_token: str | None
    """The `Consistency-Token` for a list with at least the changes of the export."""
    sums: dict[str, Sums]
    """Numbers of rows and sums by table."""
    files: list[ExportFile]
    """The files, once all of them are complete."""
    error: str | None
    """Why the export failed."""
    expires_at: Time | None
    """When the files are deleted."""

    example: ClassVar[dict[str, Any]] = {
        "id": ID,
        "state": "done",
        "progress": 1.0,
        "tables": ["orders"],
        "format": "parquet",
        "personal": False,
        "keyId": "key_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "requestedAt": "2024-11-01T10:00:00.000Z",
        "finishedAt": "2024-11-01T10:00:20.000Z",
        "asOf": "2024-11-01T10:00:01.000Z",
        "membersAsOf": None,
        "consistencyToken": "AW3T1hWQc9xdkodhU-pfsLjw6VdaZzyHUA",
        "sums": {"orders": Sums.example},
        "files": [ExportFile.example],
        "error": None,
        "expiresAt": "2024-11-02T10:00:20.000Z",
    }


class ExportPage(msgspec.Struct, rename="camel"):
    """A page of exports, newest first."""

    data: list[Export]
    """The exports, also without files: a record for audits."""
    page_info: PageInfo

    example: ClassVar[dict[str, Any]] = {"data": [Export.example], "pageInfo": PageInfo.example}
