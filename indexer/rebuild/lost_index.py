"""Compare OpenSearch with the rows of `generations` every second, and correct OpenSearch: the rows are right.

- A deleted index, or an index replaced under the same name (created by hand, restored from a snapshot), is detected by
  the UUID.
- A shard with older files in place of the current files is detected by the sequence numbers: the highest number is
  below the highest number seen on disk in every copy. A crash cannot cause this, because every copy that can become the
  primary has the operations seen on disk. One such shard is enough, because its environments lack documents.
- When the live index is lost, reads have no index until the end of a rebuild: an error, never an empty list. The
  rebuild starts automatically. With SERVE_INCOMPLETE_INDEX, reads have an incomplete index meanwhile: the replacement
  of this installation, or the index that is being built. The API marks every such answer as stale.
- In a cluster of several nodes, a node that is cut off may answer with an old state. So an index counts as lost only
  after several comparisons in a row, each with answers of all shards (`doubts.py`).
- A missing or misdirected alias, for example after a swap without a commit, is corrected, and another number of
  replicas than INDEX_REPLICAS.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch

from indexer.liveness import signs_of_life
from indexer.rebuild import transitions
from indexer.rebuild.doubts import Doubts
from infra import logs
from infra.database import epochs, installation
from infra.database.engine import open_engine
from infra.index import indices, naming, ownership
from infra.index.client import open_client
from infra.index.generations import BARRIER
from infra.index.indices import Index
from infra.index.ownership import ForeignIndexError
from infra.operations import rebuild
from infra.settings import Settings

log = structlog.get_logger()

INTERVAL_SECONDS = 1.0
RESTART_SECONDS = 30
"""Pause after a failed or cancelled rebuild before a lost live index starts the next rebuild."""

# False while a transition holds the barrier: during a swap the aliases may be ahead of the rows.
TRY_BARRIER = sa.text("SELECT pg_try_advisory_xact_lock_shared(:lock)").bindparams(lock=BARRIER)
GENERATIONS = sa.text("""
    SELECT id, index_name, index_uuid, state, lost_at IS NOT NULL AS is_lost, seen_seq_nos FROM generations
    WHERE state <> 'dropped' AND (index_uuid IS NOT NULL OR state = 'live') ORDER BY id""")
MAY_START = sa.text("""
    SELECT NOT EXISTS (SELECT FROM generations WHERE state IN ('filling', 'refreshed')
        OR phase IN ('failed', 'cancelled') AND ended_at > now() - :seconds * interval '1 second')""")


def reconcile(engine: sa.Engine, client: OpenSearch, settings: Settings, doubts: Doubts | None = None) -> None:
    """Compare and correct once.

    Args:
        engine: of the database.
        client: with decoded answers.
        settings: with the prefix of the indices.
        doubts: the faults seen so far; by default none.

    Raises:
        OpenSearchException, DBAPIError: OpenSearch or the database does not answer.
        SearchError: OpenSearch did not acknowledge a correction, or did not answer for all shards.
        ForeignIndexError: an index belongs to another installation. Nothing was corrected.
    """
    doubts = doubts or Doubts(client)
    with engine.begin() as connection:
        # First, because a new epoch remembers the last recorded position of the index before the fork.
        epochs.check(connection)
        if connection.execute(TRY_BARRIER).scalar_one():
            with doubts.comparison():
                _compare(connection, client, settings, doubts)


def _compare(connection: sa.Connection, client: OpenSearch, settings: Settings, doubts: Doubts) -> None:
    rows = connection.execute(GENERATIONS).all()
    existing = indices.existing(client, settings.index_prefix)
    ownership.require_own(connection, existing, settings.index_prefix)
    if _check_seq_nos(connection, client, settings, rows, existing, doubts):
        rows = connection.execute(GENERATIONS).all()
    for row in rows:
        index = existing.get(row.index_name)
        if index and row.index_uuid is None:
            rebuild.record_uuid(connection, row.id, index.uuid)
        elif index is None or index.uuid != row.index_uuid:
            if doubts.are_confirmed(row.index_name):
                _record_lost(connection, client, row, index)
        else:
            _correct(client, settings, row.index_name, index)
            if index.installation is None:
                ownership.claim(client, row.index_name, index, installation.read(connection))
    _remove_late_indices(connection, rows, existing)
    live = next((row for row in rows if row.state == "live"), None)
    if live:
        # The loss was committed by an earlier comparison, so the API knows that answers are stale.
        serves_incomplete = settings.serve_incomplete_index and live.is_lost
        names = [live.index_name, *(row.index_name for row in rows if row.state in {"filling", "refreshed"})]
        incomplete = _incomplete_index(connection, names, existing) if serves_incomplete else None
        _check_live(connection, client, settings, live, existing, doubts, incomplete)


def _remove_late_indices(connection: sa.Connection, rows: Sequence[sa.Row[Any]], existing: Mapping[str, Index]) -> None:
    """Have indices deleted that appeared after the removal of their generation."""
    names = existing.keys() - {row.index_name for row in rows}
    owner = installation.read(connection) if names else None
    own = sorted(name for name in names if existing[name].installation == owner)
    if own and transitions.remove_again(connection, own):
        log.warning("late_indices_removed", indices=own)


def _check_seq_nos(
    connection: sa.Connection,
    client: OpenSearch,
    settings: Settings,
    rows: Sequence[sa.Row[Any]],
    existing: Mapping[str, Index],
    doubts: Doubts,
) -> bool:
    """Record the sequence numbers of each shard; where a number decreased, disown the index.

    Returns whether an index was disowned.
    """
    seq_nos = indices.seq_nos(client, settings.index_prefix)
    disowned = False
    for row in rows:
        index, shards = existing.get(row.index_name), seq_nos.get(row.index_name)
        if index is None or not shards or index.uuid != row.index_uuid:
            continue
        seen = dict(enumerate(row.seen_seq_nos))
        older = {number for number, shard in shards.items() if shard.max_seq_no < seen.get(number, -1)}
        if older:
            if not doubts.are_confirmed(row.index_name):
                continue
            for number in sorted(older):
                numbers = {"seen": seen[number], "has": shards[number].max_seq_no}
                log.error("index_seq_no_decreased", index=row.index_name, shard=number, **numbers)
            transitions.disown_uuid(connection, row.id)
            disowned = True
        elif any(shard.global_checkpoint > seen.get(number, -1) for number, shard in shards.items()):
            checkpoints = {number: shard.global_checkpoint for number, shard in shards.items()}
            highest = [checkpoints.get(number, -1) for number in range(max(checkpoints) + 1)]
            transitions.record_seq_nos(connection, row.id, highest)
    return disowned


def _correct(client: OpenSearch, settings: Settings, name: str, index: Index) -> None:
    """Restore the write alias of an index, and the number of replicas, if INDEX_REPLICAS is set."""
    if naming.write_alias(name) not in index.aliases:
        client.indices.put_alias(index=name, name=naming.write_alias(name))
        log.warning("alias_restored", index=name)
    if settings.index_replicas not in {None, index.replicas}:
        indices.set_replicas(client, name, settings.index_replicas)
        log.info("replicas_changed", index=name, replicas=settings.index_replicas)


def _record_lost(
    connection: sa.Connection, client: OpenSearch, row: sa.Row[tuple[object, ...]], index: Index | None
) -> None:
    """Record a lost index, and remove the write alias from a replacement, so that no drain writes there."""
    if index and naming.write_alias(row.index_name) in index.aliases:
        client.indices.delete_alias(index=row.index_name, name=naming.write_alias(row.index_name))
    if transitions.record_lost(connection, row.id):
        log.error("index_lost", index=row.index_name, state=row.state, replaced=index is not None)


def _check_live(
    connection: sa.Connection,
    client: OpenSearch,
    settings: Settings,
    live: sa.Row[tuple[object, ...]],
    existing: Mapping[str, Index],
    doubts: Doubts,
    incomplete: str | None,
) -> None:
    """Point the read alias at the live index alone. If the live index is lost, start a rebuild.

    The alias of a lost index is removed, or points at the incomplete index, if there is one.
    """
    alias = naming.read_alias(settings.index_prefix)
    read = {name for name, index in existing.items() if alias in index.aliases}
    index = existing.get(live.index_name)
    if index and (live.index_uuid is None or index.uuid == live.index_uuid):
        if live.is_lost:
            # The same index is back, and no change was deleted from the outbox meanwhile.
            transitions.record_found_again(connection, live.id)
        if read != {live.index_name}:
            indices.switch_reads(client, settings.index_prefix, live.index_name)
            log.warning("alias_restored", index=live.index_name, read=sorted(read))
        return
    if not doubts.are_confirmed(live.index_name):
        return
    if incomplete:
        _serve_incomplete(client, settings, incomplete, read)
    else:
        for name in read:
            client.indices.delete_alias(index=name, name=alias)
    if connection.execute(MAY_START, {"seconds": RESTART_SECONDS}).scalar_one():
        log.warning("rebuild_started", index=rebuild.start(connection, settings).index_name, reason="index lost")


def _incomplete_index(connection: sa.Connection, names: Sequence[str], existing: Mapping[str, Index]) -> str | None:
    """Return the first of the indices that exists and belongs to this installation."""
    owner = installation.read(connection)
    return next((name for name in names if name in existing and existing[name].installation == owner), None)


def _serve_incomplete(client: OpenSearch, settings: Settings, name: str, read: Collection[str]) -> None:
    """Point the read alias at an incomplete index, and make searchable what it has so far."""
    client.indices.refresh(index=name)
    if set(read) != {name}:
        indices.switch_reads(client, settings.index_prefix, name)
        log.warning("incomplete_index_served", index=name)


def start(settings: Settings) -> None:
    """Compare every second, in a separate thread, until the process ends."""
    engine, client = open_engine(settings, name="reconcile"), open_client(settings)
    doubts = Doubts(client)

    def run() -> None:
        advance = signs_of_life.loop("reconcile")
        while True:
            advance()
            try:
                reconcile(engine, client, settings, doubts)
            except ForeignIndexError as error:
                log.error("index_refused", reason=str(error))  # noqa: TRY400 (the message says all)
            except Exception as error:  # noqa: BLE001 (no fault of a library may end the thread)
                log.warning("reconcile_postponed", reason=logs.error_kind(error))
            time.sleep(INTERVAL_SECONDS)

    threading.Thread(target=run, name="reconcile", daemon=True).start()
