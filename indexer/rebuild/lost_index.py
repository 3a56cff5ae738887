"""Holds OpenSearch against the rows, each second: the rows are right.

An index that is gone, or another under its name (made by hand, restored from a snapshot), is known by its UUID; one
whose files were replaced by older ones, by the number of its last operation. Readers then have no index until a rebuild
has made one: an error, never an empty list. An alias that points elsewhere, as after a swap that was not recorded, is
put right.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch

from infra import logs
from infra.database.engine import open_engine
from infra.index import generations, naming
from infra.index.client import open_client
from infra.index.generations import BARRIER, KNOW, Index
from infra.operations import rebuild
from infra.settings import Settings

log = structlog.get_logger()

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 30
"""Between rebuilds of a lost index, should they fail."""

# Not while a state is being changed: then the aliases may be ahead of the rows.
TRY = sa.text("SELECT pg_try_advisory_xact_lock_shared(:lock)")
ROWS = sa.text("""
    SELECT id, index_name, index_uuid, state, lost_at IS NOT NULL AS is_lost, seen_seq_no FROM generations
    WHERE state <> 'dropped' AND (index_uuid IS NOT NULL OR state = 'live') ORDER BY id""")
LOST = sa.text("""
    UPDATE generations SET lost_at = present(),
        wanted = CASE WHEN state IN ('filling', 'refreshed') THEN 'cancel' END,
        error = CASE WHEN state IN ('filling', 'refreshed') THEN 'its index was removed' ELSE error END,
        keep_until = CASE WHEN state = 'kept' THEN present() ELSE keep_until END
    WHERE id = :id AND lost_at IS NULL""")
SEEN = sa.text("UPDATE generations SET seen_seq_no = :kept WHERE id = :id AND seen_seq_no < :kept")
# From now on the index of this UUID is another than the one that was made.
WENT_BACK = sa.text("UPDATE generations SET index_uuid = index_uuid || ' until it went back' WHERE id = :id")
BACK = sa.text("UPDATE generations SET lost_at = NULL WHERE id = :id AND state = 'live'")
MAY_START = sa.text("""
    SELECT NOT EXISTS (SELECT FROM generations WHERE state IN ('filling', 'refreshed')
        OR phase IN ('failed', 'cancelled') AND ended_at > now() - :seconds * interval '1 second')""")


def reconcile(engine: sa.Engine, client: OpenSearch, settings: Settings) -> None:
    """Look once, and put right what can be.

    Raises:
        OpenSearchException, DBAPIError: one of them does not answer.
        SearchError: OpenSearch does not confirm what it was told.
    """
    with engine.begin() as connection:
        if not connection.execute(TRY, {"lock": BARRIER}).scalar_one():
            return
        rows = connection.execute(ROWS).all()
        found = generations.look(client, settings.index_prefix)
        if _went_back(connection, client, settings, rows, found):
            rows = connection.execute(ROWS).all()
        for row in rows:
            index = found.get(row.index_name)
            if index and row.index_uuid is None:
                connection.execute(KNOW, {"id": row.id, "uuid": index.uuid})
            elif index is None or index.uuid != row.index_uuid:
                _lose(connection, client, row, index)
            elif naming.write_alias(row.index_name) not in index.aliases:
                client.indices.put_alias(index=row.index_name, name=naming.write_alias(row.index_name))
                log.warning("alias_restored", index=row.index_name)
        live = next((row for row in rows if row.state == "live"), None)
        if live:
            _look_at_live(connection, client, settings, live, found)


def _went_back(
    connection: sa.Connection,
    client: OpenSearch,
    settings: Settings,
    rows: Sequence[sa.Row[Any]],
    found: Mapping[str, Index],
) -> bool:
    """Whether an index has fewer operations than were seen on the disks of all its copies. A crash takes none of those,
    and whichever copy becomes the primary has them. Otherwise remember how many there are.
    """
    positions = generations.positions(client, settings.index_prefix)
    went_back = False
    for row in rows:
        index, position = found.get(row.index_name), positions.get(row.index_name)
        if index is None or position is None or index.uuid != row.index_uuid:
            continue
        if position.highest < row.seen_seq_no:
            log.error("index_went_back", index=row.index_name, seen=row.seen_seq_no, has=position.highest)
            connection.execute(WENT_BACK, {"id": row.id})
            went_back = True
        elif position.kept > row.seen_seq_no:
            connection.execute(SEEN, {"id": row.id, "kept": position.kept})
    return went_back


def _lose(connection: sa.Connection, client: OpenSearch, row: sa.Row[tuple[object, ...]], index: Index | None) -> None:
    if index and naming.write_alias(row.index_name) in index.aliases:
        client.indices.delete_alias(index=row.index_name, name=naming.write_alias(row.index_name))
    if connection.execute(LOST, {"id": row.id}).rowcount:
        log.error("index_lost", index=row.index_name, state=row.state, replaced=index is not None)


def _look_at_live(
    connection: sa.Connection,
    client: OpenSearch,
    settings: Settings,
    live: sa.Row[tuple[object, ...]],
    found: Mapping[str, Index],
) -> None:
    """Readers have this index and no other; if it is lost, none, until a rebuild is done."""
    alias = naming.read_alias(settings.index_prefix)
    read = {name for name, index in found.items() if alias in index.aliases}
    index = found.get(live.index_name)
    if index and (live.index_uuid is None or index.uuid == live.index_uuid):
        if live.is_lost:
            # The very same is back, and while it was away no change was forgotten.
            connection.execute(BACK, {"id": live.id})
        if read != {live.index_name}:
            generations.show(client, settings.index_prefix, live.index_name)
            log.warning("alias_restored", index=live.index_name, read=sorted(read))
        return
    for name in read:
        client.indices.delete_alias(index=name, name=alias)
    if connection.execute(MAY_START, {"seconds": AGAIN_SECONDS}).scalar_one():
        log.warning("rebuild_started", index=rebuild.start(connection, settings).index_name, reason="index lost")


def start(settings: Settings) -> None:
    """Look each second, in a thread of its own, until the process ends."""
    engine, client = open_engine(settings, name="reconcile"), open_client(settings)

    def run() -> None:
        while True:
            try:
                reconcile(engine, client, settings)
            except Exception as error:  # noqa: BLE001 (no fault of a library may end the thread)
                log.warning("reconcile_postponed", reason=logs.error_kind(error))
            time.sleep(LOOK_SECONDS)

    threading.Thread(target=run, name="reconcile", daemon=True).start()
