"""Generations: a generation is an index with a row in the table `generations`; the live generation serves reads.

A generation has a state, and a phase within the state. `docs/rebuild-states.md` has the diagram: every transition, the
process responsible, and the effect of each request in each phase. This module names states and phases and reads the
table. Only two modules write the table: `infra/operations/rebuild.py` (requests, and the first generation) and
`indexer/rebuild/transitions.py` (all further changes).

A change of state holds the advisory lock `BARRIER` exclusively. Every round of a drain holds `BARRIER` shared while the
round writes, so no round is half done when a state changes.
"""

import threading
from collections.abc import Container
from typing import Literal, NamedTuple, TypeAlias

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from infra import logs
from infra.database import revisions
from infra.database.engine import open_engine
from infra.index import mapping, naming
from infra.settings import Settings

log = structlog.get_logger()

State: TypeAlias = Literal["filling", "refreshed", "live", "kept", "dropped"]
"""Column `state`: whether drains write the index, and clients read the index."""
BuildPhase: TypeAlias = Literal["requested", "creating", "filling", "refilling", "verifying", "swapping"]
"""Column `phase` while the generation is built, in this order."""
EndPhase: TypeAlias = Literal["done", "failed", "cancelled"]
"""Column `phase` once the build has ended."""
Phase: TypeAlias = Literal[BuildPhase, EndPhase]
Pending: TypeAlias = Literal["cancel", "rollback"]
"""Column `wanted`: a request not carried out yet."""

ADVICE = "consumers index rebuild"
BARRIER = 0x67656E73
LOCK_BARRIER = sa.text("SELECT pg_advisory_xact_lock(:lock)").bindparams(lock=BARRIER)
"""Hold `BARRIER` exclusively until the transaction ends."""

LIVE = sa.text("SELECT id, index_name, mapping_digest, index_uuid, shards FROM generations WHERE state = 'live'")
NAMES = sa.text("SELECT index_name FROM generations")

DECLARED = {
    "document_version": mapping.DOCUMENT_VERSION,
    "mapping_digest": mapping.MAPPING_DIGEST,
    "fields": sorted(mapping.MAPPING["properties"]),
}
"""Columns of a generation with an index created by this code."""


class Live(NamedTuple):
    """The live generation."""

    id: int
    index_name: str
    mapping_digest: str
    index_uuid: str | None
    """None: not known yet."""
    shards: int


def live(connection: sa.Connection) -> Live | None:
    """Read the live generation; None before the first generation is created."""
    row = connection.execute(LIVE).one_or_none()
    return None if row is None else Live._make(row)


def free_name(connection: sa.Connection, existing: Container[str], prefix: str) -> str:
    """Choose the next index name not used by any generation or existing index."""
    used = set(connection.execute(NAMES).scalars())
    number = len(used) + 1
    while (name := naming.index_name(prefix, number)) in used or name in existing:
        number += 1
    return name


def is_as_declared(generation: Live, settings: Settings) -> bool:
    """Whether the live index has the mapping of this code and INDEX_SHARDS shards; log a warning if not."""
    if generation.mapping_digest != mapping.MAPPING_DIGEST:
        log.warning("mapping_differs", index=generation.index_name, advice=ADVICE)
        return False
    if generation.shards != settings.index_shards:
        log.warning("shards_differ", index=generation.index_name, shards=generation.shards, advice=ADVICE)
        return False
    return True


def warn_of_differences(settings: Settings) -> None:
    """Log a warning if the schema is that of a later release, or if the live index was not created with the mapping of
    this code, or with other INDEX_SHARDS.

    The check runs in a thread: the start of the process neither waits for the database nor fails without it.
    """

    def check() -> None:
        engine = open_engine(settings)
        try:
            with engine.connect() as connection:
                revisions.warn_if_newer(connection)
                if generation := live(connection):
                    is_as_declared(generation, settings)
        except DBAPIError as error:
            log.warning("release_check_failed", reason=logs.error_kind(error))
        finally:
            engine.dispose()

    threading.Thread(target=check, name="release", daemon=True).start()
