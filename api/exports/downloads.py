"""Downloads of the files of exports: whole, or a range after an interruption."""

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Response
from litestar.response import Stream

from api.answers import entity_tags, is_none_match
from api.auth import Caller
from api.edge import IS_HEAD
from api.error_codes import ErrorCode
from api.errors import RETRY_AFTER_SECONDS, Problem, not_found
from api.exports.ranges import NotSatisfiable, requested
from api.request import AnyRequest
from infra.exports.requests import Export, ExportFile
from infra.exports.store import STORE_ERRORS, open_store
from infra.logs import error_kind
from infra.settings import Settings

log = structlog.get_logger()

MEDIA_TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".sql": "application/sql",
}


_store = cache(open_store)


async def download(request: AnyRequest, settings: Settings, caller: Caller, export: Export, name: str) -> Response[Any]:
    """Return the response with a file, or a range of it.

    Raises:
        Problem: 404 if the export has no such file, 416 for a range behind the end, 503 if the store does not answer.
    """
    file = next((file for file in export.files if file.name == name), None)
    if file is None:
        raise not_found("Export")
    tag = f'"{file.sha256}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes"}
    if is_none_match(entity_tags(request, "if-none-match"), [tag]):
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    start, end, status = _range(request, file, tag)
    if status == HTTPStatus.PARTIAL_CONTENT:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    headers |= {"Content-Length": str(end - start), "Content-Disposition": f'attachment; filename="{name}"'}
    parts: AsyncIterator[bytes] | tuple[()] = ()
    try:
        store = await asyncio.to_thread(_store, settings)
        if request.scope["state"].get(IS_HEAD):
            await store.require(export.id, export.claim, name)
        else:
            parts = await store.open(export.id, export.claim, name, start, end)
            log.info("export_downloaded", export=export.id, file=name, key=caller.key_id, personal=export.personal)
    except FileNotFoundError:
        raise not_found("Export") from None
    except STORE_ERRORS as error:
        log.error("export_store_failed", export=export.id, reason=error_kind(error))  # noqa: TRY400 (its kind says enough)
        raise unavailable("The store of the exports does not answer: repeat the request later") from None
    # A header, because the media type of the route would replace that of a stream.
    headers["Content-Type"] = MEDIA_TYPES[name[name.rindex(".") :]]
    return Stream(parts, status_code=status, headers=headers)


def unavailable(message: str) -> Problem:
    """Build the 503 for exports."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Exports unavailable",
        code=ErrorCode.EXPORTS_UNAVAILABLE,
        message=message,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _range(request: AnyRequest, file: ExportFile, tag: str) -> tuple[int, int, HTTPStatus]:
    """Return the first byte of the response, the byte behind the last, and the status."""
    # A client that continues a download of another file gets the whole file.
    is_same = request.headers.get("if-range", tag) == tag
    try:
        chosen = requested(request.headers.get("range"), file.bytes) if is_same else None
    except NotSatisfiable:
        status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        headers = {"Content-Range": f"bytes */{file.bytes}"}
        raise Problem(
            status, "Range not satisfiable", message=f"The file has {file.bytes} bytes", headers=headers
        ) from None
    if chosen is None:
        return 0, file.bytes, HTTPStatus.OK
    return *chosen, HTTPStatus.PARTIAL_CONTENT
