"""The generations beside the live one: one that is being built, one that is kept to go back to.

They are written together with the live one and decide nothing: what one of them does not take, whatever the reason, is
recorded as missed and written again later (`indexer/rebuild/refill.py`). One that fails is left alone for a while.
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

PATIENCE_SECONDS = 1.0
"""How long a round waits for such a generation, once, after the live one is written."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0

MISSED = sa.text("""
    INSERT INTO generation_misses (generation_id, environment_id, consumer_id, version, reason)
    SELECT :generation_id, m.* FROM unnest(CAST(:environments AS int[]), CAST(:ids AS text[]),
        CAST(:versions AS bigint[]), CAST(:reasons AS text[])) AS m""")

_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="copies")


_backoffs: defaultdict[str, Backoff] = defaultdict(lambda: Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
"""Of this process, by the index's name."""


class PendingWrite(NamedTuple):
    """A write that goes on."""

    generation: Generation
    batch: Sequence[Document]
    missed: Future[Mapping[str, str]]


class Misses(NamedTuple):
    """What a generation did not take: the reason by consumer."""

    generation: Generation
    reasons: Mapping[str, str]


def start_writes(
    client: OpenSearch, generations: Sequence[Generation], batch: Sequence[Document]
) -> list[PendingWrite]:
    """Write the documents to these generations, while the caller does something else."""
    return [PendingWrite(each, batch, _threads.submit(_write, client, each, batch)) for each in generations]


def collect_misses(begun: Iterable[PendingWrite]) -> list[Misses]:
    """Wait a little for what was begun; what has no answer by then is missed. Never raises."""
    return [Misses(each.generation, reasons) for each in begun if (reasons := _outcome(each))]


def record_misses(connection: sa.Connection, missed: Iterable[Misses], batch: Sequence[Document]) -> None:
    """Record what was missed, of these documents."""
    for generation, reasons in missed:
        lacking = [written for written in batch if written.consumer_id in reasons]
        if lacking:
            values = {
                "generation_id": generation.id,
                "environments": [written.environment_id for written in lacking],
                "ids": [written.consumer_id for written in lacking],
                "versions": [written.version for written in lacking],
                "reasons": [reasons[written.consumer_id][:200] for written in lacking],
            }
            connection.execute(MISSED, values)


def _outcome(begun: PendingWrite) -> Mapping[str, str]:
    try:
        return begun.missed.result(PATIENCE_SECONDS)
    except TimeoutError:
        _leave_alone(begun.generation, "timeout")
        return dict.fromkeys((written.consumer_id for written in begun.batch), "timeout")


def _leave_alone(generation: Generation, reason: str) -> None:
    seconds = _backoffs[generation.index_name].pause()
    log.warning("generation_left_alone", index=generation.index_name, seconds=seconds, reason=reason)


def _write(client: OpenSearch, generation: Generation, batch: Sequence[Document]) -> Mapping[str, str]:
    """Answers the documents that were not taken, and why."""
    ids = [written.consumer_id for written in batch]
    if generation.document_version > mapping.DOCUMENT_VERSION:
        return dict.fromkeys(ids, "built by newer code than this worker's")
    if _backoffs[generation.index_name].is_pausing:
        return dict.fromkeys(ids, "left alone")
    alias = naming.write_alias(generation.index_name)
    try:
        items = write(client, alias, fit_to_mapping(batch, generation.fields), PATIENCE_SECONDS)
        if generation.is_refreshed:
            refresh(client, generation.index_name, PATIENCE_SECONDS)
    except (OpenSearchException, IndexUnavailable) as error:
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        _leave_alone(generation, reason)
        return dict.fromkeys(ids, reason)
    reasons = {name: item.error_kind for name, item in zip(ids, items, strict=True) if not item.is_written}
    if ids and len(reasons) == len(ids) and all(item.is_index_unavailable for item in items):
        _leave_alone(generation, items[0].error_kind)
    else:
        _backoffs.pop(generation.index_name, None)
    return reasons
