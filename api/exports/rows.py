"""Rows of `exports`: the conversion to the API's type, and pages of them."""

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.cursors import Cursors
from api.errors import not_found
from api.exports.schemas import Export, ExportFile, ExportListParameters, ExportPage, Sums
from api.keyset import newest_first
from infra.exports import requests
from infra.exports.requests import OF_ENVIRONMENT, export_of
from infra.ids import is_id
from infra.tokens import sealed_token
from infra.wire import time

SELECT = OF_ENVIRONMENT.replace("SELECT", "SELECT octet_length(x.files::text) AS long_bytes,", 1)


async def page(connection: AsyncConnection, caller: Caller, parameters: ExportListParameters) -> ExportPage:
    """Return a page, newest first.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
    """
    rows, info = await newest_first(
        connection,
        SELECT,
        {"environment_id": caller.environment_id},
        ("x.requested_at", "x.id"),
        parameters.paging(),
        Cursors(caller.seal, parameters.kind, parameters.list_parameters(), caller.environment_id),
    )
    return ExportPage([shown(caller, export_of(row)) for row in rows], info)


def find(connection: sa.Connection, caller: Caller, export_id: str) -> requests.Export:
    """Return an export of the environment.

    Raises:
        Problem: 404.
    """
    export = requests.find(connection, caller.environment_id, export_id) if is_id("exp_", export_id) else None
    if export is None:
        raise not_found("Export")
    return export


def shown(caller: Caller, export: requests.Export) -> Export:
    """Return an export as in responses."""
    return Export(
        id=export.id,
        state=export.state,
        progress=round(export.progress, 3),
        tables=export.tables,
        format=export.format,
        personal=export.personal,
        key_id=export.key_id,
        requested_at=time(export.requested_at),
        finished_at=time(export.finished_at) if export.finished_at else None,
        as_of=time(export.as_of) if export.as_of else None,
        members_as_of=time(export.members_as_of) if export.members_as_of else None,
        consistency_token=sealed_token(caller.seal, export.xid, export.epoch, export.lsn) if export.xid else None,
        sums=msgspec.convert(export.sums, dict[str, Sums]),
        files=[
            ExportFile(**msgspec.structs.asdict(file), href=f"/api/v1/exports/{export.id}/files/{file.name}")
            for file in export.files
        ],
        error=export.error,
        expires_at=time(export.expires_at) if export.expires_at else None,
    )
