"""Make an export, from the snapshot to the list of its files. Runs in a process of its own (`process.py`).

The steps are: copy the rows into temporary files, ask the index for members of dynamic audiences, convert, check, store
the files, list them. A process killed at any step has listed nothing, and another process begins anew.
"""

import shutil
import time
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import psycopg
import sqlalchemy as sa
import structlog
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.exc import DBAPIError

from indexer.exports import claims, snapshot
from indexer.exports.claims import MAX_ATTEMPTS, ClaimedExport, ClaimLost, Result
from indexer.exports.conversion import Converter, Differs, described
from indexer.exports.failures import NO_SPACE, SPACE_FACTOR, UNFINISHED, ExportFailed, is_full, require_space
from indexer.exports.heartbeat import Heartbeat
from indexer.exports.members import IndexBehind, MemberReader
from indexer.exports.snapshot import Snapshot
from indexer.exports.spool import Spool, Writer
from infra import logs
from infra.database import sealing_keys
from infra.exports import analytics
from infra.exports.manifest import MANIFEST, SCRIPT, Manifest, encoded
from infra.exports.requests import ExportFile
from infra.exports.store import STORE_ERRORS, ExportStore, open_store
from infra.exports.tables import MEMBERS
from infra.index import naming
from infra.index.client import open_writer
from infra.seals import Keyring
from infra.settings import Settings
from infra.tokens import sealed_token
from infra.wire import time as written_time

log = structlog.get_logger()

TRANSIENT = (psycopg.Error, DBAPIError, OpenSearchException, duckdb.Error, IndexBehind, Differs, *STORE_ERRORS)
"""Failures that may be gone at the next attempt."""
COPIED, CONVERTED, STORED = 0.5, 0.9, 1.0
"""The progress at the end of a step."""


class Resources(NamedTuple):
    """The servers and the folder of an export."""

    settings: Settings
    engine: sa.Engine
    """With room for two connections."""
    store: ExportStore
    folder: Path
    """For temporary files; of this export alone."""


def run(settings: Settings, engine: sa.Engine, folder: Path, export: ClaimedExport, heartbeat: Heartbeat) -> None:
    """Make a claimed export, or record the failure. Never raises an error of the servers or of the disk.

    Args:
        settings: with the addresses of the servers and of the store.
        engine: with room for two connections.
        folder: for temporary files; created, and deleted at the end. No other export uses the folder at the same time.
        export: claimed by this process.
        heartbeat: of the export.
    """
    began = time.monotonic()
    try:
        _remove(folder)  # temporary files of a killed process
        folder.mkdir(parents=True)
        resources = Resources(settings, engine, open_store(settings), folder)
        result = _make(resources, export, heartbeat)
        claims.finish(engine, export, result, settings.exports_hours)
    except ClaimLost:
        log.warning("export_taken_over", export=export.id)
    except ExportFailed as error:
        _end(engine, export, str(error), error.reason)
    except TRANSIENT as error:
        if is_full(error):
            _end(engine, export, NO_SPACE, logs.error_kind(error))
        else:
            _postpone(engine, export, error)
    else:
        log.info("export_done", export=export.id, seconds=round(time.monotonic() - began, 1), **_rows(result))
        with suppress(*STORE_ERRORS):  # otherwise they are deleted with the export
            resources.store.delete(export.id, but_claim=export.claim)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _rows(result: Result) -> dict[str, int]:
    return {table: sums["rows"] for table, sums in result.sums.items()}


def _make(resources: Resources, export: ClaimedExport, heartbeat: Heartbeat) -> Result:
    folder = resources.folder
    for disk in filter(None, (folder, resources.store.folder)):
        require_space(disk, SPACE_FACTOR * export.expected_bytes)
    began = time.monotonic()
    taken = snapshot.take(
        resources.settings,
        resources.engine,
        export,
        folder,
        lambda share, rows: heartbeat.advance(share * COPIED, rows),
    )
    log.info("export_copied", export=export.id, seconds=round(time.monotonic() - began, 1))
    members_as_of = None
    with closing(Converter(folder, export.format, personal=export.personal)) as converter:
        if taken.dynamic:
            members, members_as_of = _dynamic_members(resources, export, taken, converter)
            taken.spools["members"] = taken.spools["members"].joined(members)
        if "members" in export.tables:
            taken.sums["members"] = {"rows": taken.spools["members"].rows}
        files = _convert(export, taken, converter, heartbeat)
    files += _descriptions(resources, export, taken, members_as_of, files)
    _store(resources.store, export, folder, files, heartbeat)
    return Result(
        as_of=taken.as_of,
        members_as_of=members_as_of,
        **taken.mark._asdict(),
        sums=taken.sums,
        files=files,
        spool_bytes=sum(spool.bytes for spool in taken.spools.values()),
    )


def _dynamic_members(
    resources: Resources, export: ClaimedExport, taken: Snapshot, converter: Converter
) -> tuple[Spool, datetime]:
    """Return the members of dynamic audiences that are consumers of the snapshot, and the moment of the index."""
    settings = resources.settings
    client = open_writer(settings)
    try:
        reader = MemberReader(resources.engine, client, naming.read_alias(settings.index_prefix), export.environment_id)
        reader.wait(taken.mark.xid)
        writer = Writer(resources.folder, "dynamic", lambda _: None)
        with reader.moment() as (pit, moment):
            writer.write_all(reader.rows(pit, taken.dynamic, taken.organization.region))
    finally:
        client.close()
    spool = Spool(MEMBERS.columns, writer.parts, writer.rows)
    return converter.keep_members(spool, taken.spools.get("consumers") or taken.spools["ids"]), moment


def _convert(export: ClaimedExport, taken: Snapshot, converter: Converter, heartbeat: Heartbeat) -> list[ExportFile]:
    """Convert and check each table; return the entries of the files."""
    entries = list[ExportFile]()
    parts = sum(len(taken.spools[name].parts) for name in export.tables)
    converted = 0

    def progress() -> None:
        nonlocal converted
        converted += 1
        heartbeat.advance(COPIED + (CONVERTED - COPIED) * converted / parts)

    for name in export.tables:
        spool = taken.spools[name]
        files = converter.convert(name, spool, progress)
        rows = converter.check(name, spool.columns, files, taken.sums[name])
        entries += [described(file, name, count) for file, count in zip(files, rows, strict=True)]
    return entries


def _descriptions(
    resources: Resources,
    export: ClaimedExport,
    taken: Snapshot,
    members_as_of: datetime | None,
    files: list[ExportFile],
) -> list[ExportFile]:
    """Write the files that describe the export; return their entries."""
    organization, as_of = taken.organization, written_time(taken.as_of)
    columns = {name: taken.spools[name].columns for name in export.tables}
    script = resources.folder / SCRIPT
    about = f"Export {export.id} of {organization.environment}, as of {as_of}"
    script.write_text(analytics.script(export.format, columns, about), encoding="utf-8")
    entry = described(script, None, None)
    with resources.engine.connect() as connection:
        seal = Keyring(sealing_keys.read(connection)).of(export.environment_id)
    manifest = Manifest(
        id=export.id,
        environment=organization.environment,
        currency=organization.currency,
        as_of=as_of,
        members_as_of=written_time(members_as_of) if members_as_of else None,
        consistency_token=sealed_token(seal, *taken.mark),
        tables=export.tables,
        format=export.format,
        personal=export.personal,
        attributes=organization.attributes,
        sums=taken.sums,
        files=[*files, entry],
    )
    path = resources.folder / MANIFEST
    path.write_bytes(encoded(manifest))
    return [entry, described(path, None, None)]


def _store(
    store: ExportStore, export: ClaimedExport, folder: Path, files: list[ExportFile], heartbeat: Heartbeat
) -> None:
    total, stored = sum(file.bytes for file in files), 0
    for file in files:
        if store.folder:
            require_space(store.folder, file.bytes)
        store.put(export.id, export.claim, folder / file.name)
        stored += file.bytes
        heartbeat.advance(CONVERTED + (STORED - CONVERTED) * stored / total)


def _postpone(engine: sa.Engine, export: ClaimedExport, error: Exception) -> None:
    """Return the export to the queue; after `MAX_ATTEMPTS`, end it."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, Differs) else logs.error_kind(error)
    if export.attempts >= MAX_ATTEMPTS:
        _end(engine, export, UNFINISHED, reason)
        return
    log.warning("export_postponed", export=export.id, attempt=export.attempts, reason=reason)
    try:
        claims.release(engine, export)
    except (ClaimLost, DBAPIError) as failure:
        # Without a heartbeat, another attempt begins after a while.
        log.warning("export_not_released", export=export.id, reason=logs.error_kind(failure))


def _end(engine: sa.Engine, export: ClaimedExport, message: str, reason: str) -> None:
    log.error("export_failed", export=export.id, attempt=export.attempts, reason=reason)
    try:
        claims.fail(engine, export, message)
    except (ClaimLost, DBAPIError) as failure:
        log.warning("export_not_ended", export=export.id, reason=logs.error_kind(failure))
