"""Write standby generations: a generation being built, and a generation kept for a rollback.

Every round writes the standby generations together with the live generation, but only the live generation decides when
an outbox row is deleted. A change a standby generation did not take, for any reason, is recorded as a miss and written
later by `indexer/rebuild/refill.py`. After a failure a standby generation is skipped for a while, so rounds stay
fast.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from indexer.drain.bulk import Document, IndexUnavailable, fit_to_mapping, refresh, write
from indexer.drain.claims import Generation
from infra import logs
from infra.backoff import Backoff
from infra.index import mapping, naming

log = structlog.get_logger()

TIMEOUT_SECONDS = 1.0
"""Time a round waits for a standby generation, after the write to the live generation."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0

INSERT_MISSES = sa.text("""
    INSERT INTO generation_misses (generation_id, environment_id, consumer_id, version, reason)
    SELECT :generation_id, m.* FROM unnest(CAST(:environments AS int[]), CAST(:ids AS text[]),
        CAST(:versions AS bigint[]), CAST(:reasons AS text[])) AS m""")

_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="standby")
_backoffs: defaultdict[str, Backoff] = defaultdict(lambda: Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
"""By name of the index, for this process."""


class PendingWrite(NamedTuple):
    """A write in a thread."""

    generation: Generation
    batch: Sequence[Document]
    reasons: Future[Mapping[str, str]]


class Misses(NamedTuple):
    """Documents a generation did not take: the reason by consumer id."""

    generation: Generation
    reasons: Mapping[str, str]


def start_writes(
    client: OpenSearch, generations: Sequence[Generation], batch: Sequence[Document]
) -> list[PendingWrite]:
    """Start to write the documents to each generation, in threads."""
    return [
        PendingWrite(generation, batch, _threads.submit(_write, client, generation, batch))
        for generation in generations
    ]


def collect_misses(writes: Iterable[PendingWrite]) -> list[Misses]:
    """Wait for the writes and return the misses. A write without an answer in time is a miss. Never raises."""
    return [Misses(pending.generation, reasons) for pending in writes if (reasons := _result(pending))]


def record_misses(connection: sa.Connection, misses: Iterable[Misses], batch: Sequence[Document]) -> None:
    """Record misses among the documents of `batch`."""
    for generation, reasons in misses:
        missed = [document for document in batch if document.consumer_id in reasons]
        if missed:
            values = {
                "generation_id": generation.id,
                "environments": [document.environment_id for document in missed],
                "ids": [document.consumer_id for document in missed],
                "versions": [document.version for document in missed],
                "reasons": [reasons[document.consumer_id][:200] for document in missed],
            }
            connection.execute(INSERT_MISSES, values)


def _result(pending: PendingWrite) -> Mapping[str, str]:
    try:
        return pending.reasons.result(TIMEOUT_SECONDS)
    except TimeoutError:
        _skip(pending.generation, "timeout")
        return dict.fromkeys((document.consumer_id for document in pending.batch), "timeout")


def _skip(generation: Generation, reason: str) -> None:
    """Skip a generation for a while, longer after each failure."""
    seconds = _backoffs[generation.index_name].pause()
    log.warning("generation_skipped", index=generation.index_name, seconds=seconds, reason=reason)


def _write(client: OpenSearch, generation: Generation, batch: Sequence[Document]) -> Mapping[str, str]:
    """Write the documents; return the reason for each document the generation did not take."""
    ids = [document.consumer_id for document in batch]
    if generation.document_version > mapping.DOCUMENT_VERSION:
        return dict.fromkeys(ids, "built by newer code than this worker's")
    if _backoffs[generation.index_name].is_pausing:
        return dict.fromkeys(ids, "skipped")
    alias = naming.write_alias(generation.index_name)
    try:
        items = write(client, alias, fit_to_mapping(batch, generation.fields), TIMEOUT_SECONDS)
        if generation.is_refreshed:
            refresh(client, generation.index_name, TIMEOUT_SECONDS)
    except (OpenSearchException, IndexUnavailable) as error:
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        _skip(generation, reason)
        return dict.fromkeys(ids, reason)
    reasons = {
        consumer_id: item.error_kind for consumer_id, item in zip(ids, items, strict=True) if not item.is_indexed
    }
    if ids and len(reasons) == len(ids) and all(item.is_index_unavailable for item in items):
        _skip(generation, items[0].error_kind)
    else:
        _backoffs.pop(generation.index_name, None)
    return reasons
