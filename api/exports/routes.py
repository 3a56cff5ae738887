"""The exports' endpoints (contract.md §6). The indexer makes the exports (`indexer/exports/`)."""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog
from litestar import Controller, Response, delete, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec

from api.answers import Answer, location, ok
from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import Problem
from api.exports import downloads, rows
from api.exports.schemas import Export, ExportCreate, ExportListParameters, ExportPage
from api.request import AnyRequest
from api.route_options import route_options
from api.scopes import require
from api.transactions import Transaction
from infra.exports import requests
from infra.exports.store import NOT_CONFIGURED
from infra.queue import EXPORT

log = structlog.get_logger()

UNCOMPRESSED = "is_uncompressed"
"""The option of routes whose answers are not compressed: a range counts the bytes of the file itself."""
READ = route_options("read:analytics", "reads")
WRITE = route_options("read:analytics", "writes")
PARTIAL: dict[int, ResponseSpec] = {
    HTTPStatus.PARTIAL_CONTENT: ResponseSpec(bytes, generate_examples=False, description="A range of the file")
}


class ExportController(Controller):
    path = "/exports"
    tags = ("Exports",)

    @get("/", opt=READ, summary="List exports, newest first")
    async def page(self, parameters: ExportListParameters, caller: Caller, state: State) -> Response[ExportPage]:
        async with state.budget.connection(caller) as connection:
            return ok(await rows.page(connection, caller, parameters)).response()

    @post("/", opt=WRITE, status_code=HTTPStatus.ACCEPTED, summary="Request an export")
    async def create(
        self, payload: ExportCreate, caller: Caller, transaction: Transaction, state: State
    ) -> Response[Export]:
        if state.settings.exports_url is None:
            raise downloads.unavailable(f"This service has no exports: {NOT_CONFIGURED}")
        response = await transaction.run_sync(_request, caller, payload, render=_accepted)
        await asyncio.to_thread(state.task_queue.send, EXPORT)
        return response

    @get("/{export_id:str}", opt=READ, summary="Get an export")
    async def fetch(self, export_id: str, caller: Caller, state: State) -> Response[Export]:
        async with state.budget.connection(caller) as connection:
            export = await connection.run_sync(rows.find, caller, export_id)
        return ok(rows.shown(caller, export)).response()

    @delete("/{export_id:str}", opt=WRITE, status_code=200, summary="Stop an export, or delete its files")
    async def remove(self, export_id: str, caller: Caller, transaction: Transaction) -> Response[Export]:
        return await transaction.run_sync(_delete, caller, export_id, render=ok)

    @get(
        "/{export_id:str}/files/{name:str}",
        opt=READ | {UNCOMPRESSED: True},
        media_type="application/octet-stream",
        responses=PARTIAL,
        summary="Download a file of an export",
        description="`Range` continues an interrupted download. A file with personal data requires the scope "
        "`read:consumers` as well.",
    )
    async def download(
        self, request: AnyRequest, export_id: str, name: str, caller: Caller, state: State
    ) -> Response[bytes]:
        async with state.budget.connection(caller) as connection:
            export = await connection.run_sync(rows.find, caller, export_id)
        if export.personal:
            require(request, "read:consumers", ", required for an export with personal data")
        response: Response[Any] = await downloads.download(request, state.settings, caller, export, name)
        return response


def _request(connection: sa.Connection, caller: Caller, payload: ExportCreate) -> Export:
    try:
        export = requests.request(
            connection,
            caller.environment_id,
            tables=payload.tables,
            file_format=payload.format,
            personal=payload.personal,
            key_id=caller.key_id,
        )
    except requests.ExportError as error:
        raise Problem(HTTPStatus.CONFLICT, "Conflict", code=ErrorCode.TOO_MANY_EXPORTS, message=str(error)) from None
    log.info(
        "export_requested",
        export=export.id,
        key=caller.key_id,
        organization=caller.organization_id,
        environment=caller.mode,
        tables=export.tables,
        personal=export.personal,
    )
    return rows.shown(caller, export)


def _delete(connection: sa.Connection, caller: Caller, export_id: str) -> Export:
    rows.find(connection, caller, export_id)
    export = requests.delete(connection, caller.environment_id, export_id)
    assert export, "found in this transaction"
    log.info("export_deleted", export=export_id, key=caller.key_id)
    return rows.shown(caller, export)


def _accepted(export: Export) -> Answer:
    return Answer(HTTPStatus.ACCEPTED, msgspec.json.encode(export), location("exports", export.id))
