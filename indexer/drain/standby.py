"""Write standby generations: a generation being built, and a generation kept for a rollback.

Every round writes the standby generations together with the live generation, but only the live generation decides when
an outbox row is deleted. A change a standby generation did not take, for any reason, is recorded as a miss and written
later by `indexer/rebuild/refill.py`. After a failure a standby generation is skipped for a while, so rounds stay
fast.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import NamedTuple

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from indexer.drain.bulk import Document, IndexUnavailable, convert_all, refresh, write
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


class Writer:
    """Writes the portions of a round to a generation, in a thread, and refreshes the index at the end of the round."""

    def __init__(self, client: OpenSearch, generation: Generation) -> None:
        self._generation = generation
        self._batch: list[Document] = []
        self._portions: SimpleQueue[Sequence[Document] | None] = SimpleQueue()
        portions = iter(self._portions.get, None)
        self._reasons: Future[Mapping[str, str]] = _threads.submit(_write, client, generation, portions)

    def write(self, portion: Sequence[Document]) -> None:
        """Write a portion, after the portions before."""
        self._batch += portion
        self._portions.put(portion)

    def end(self) -> None:
        """End the round. No portion may follow."""
        self._portions.put(None)

    def misses(self, until: float) -> "Misses":
        """Wait for the writes, and return the misses. Without an answer until then every document is a miss."""
        try:
            reasons = self._reasons.result(max(0, until - time.monotonic()))
        except TimeoutError:
            _skip(self._generation, "timeout")
            reasons = dict.fromkeys((document.consumer_id for document in self._batch), "timeout")
        return Misses(self._generation, reasons)


class Misses(NamedTuple):
    """Documents a generation did not take: the reason by consumer id."""

    generation: Generation
    reasons: Mapping[str, str]


@contextmanager
def writers(client: OpenSearch, generations: Sequence[Generation]) -> Iterator[list[Writer]]:
    """Yield a writer for each generation. The writers end with the block."""
    writers = [Writer(client, generation) for generation in generations]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.end()


def collect_misses(writers: Iterable[Writer]) -> list[Misses]:
    """Wait for the writers, which must have ended, and return the misses. Never raises."""
    until = time.monotonic() + TIMEOUT_SECONDS
    return [misses for writer in writers if (misses := writer.misses(until)).reasons]


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


def _skip(generation: Generation, reason: str) -> None:
    """Skip a generation for a while, longer after each failure."""
    seconds = _backoffs[generation.index_name].pause()
    log.warning("generation_skipped", index=generation.index_name, seconds=seconds, reason=reason)


def _write(client: OpenSearch, generation: Generation, portions: Iterable[Sequence[Document]]) -> Mapping[str, str]:
    """Write the portions, and refresh the index; return the reason for each document the generation did not take."""
    ids: list[str] = []
    reasons: dict[str, str] = {}
    for portion in portions:
        ids += [document.consumer_id for document in portion]
        reasons |= _write_portion(client, generation, portion)
    if generation.is_refreshed and len(reasons) < len(ids):
        try:
            refresh(client, generation.index_name, TIMEOUT_SECONDS)
        except (OpenSearchException, IndexUnavailable) as error:
            return _miss_all(generation, ids, error)
    return reasons


def _write_portion(client: OpenSearch, generation: Generation, portion: Sequence[Document]) -> Mapping[str, str]:
    ids = [document.consumer_id for document in portion]
    if generation.document_version > mapping.DOCUMENT_VERSION:
        return dict.fromkeys(ids, "built by newer code than this worker's")
    if _backoffs[generation.index_name].is_pausing:
        return dict.fromkeys(ids, "skipped")
    alias = naming.write_alias(generation.index_name)
    try:
        items = write(client, alias, convert_all(portion, generation), TIMEOUT_SECONDS)
    except OpenSearchException as error:
        return _miss_all(generation, ids, error)
    reasons = {
        consumer_id: item.error_kind for consumer_id, item in zip(ids, items, strict=True) if not item.is_indexed
    }
    if ids and len(reasons) == len(ids) and all(item.is_index_unavailable for item in items):
        _skip(generation, items[0].error_kind)
    else:
        _backoffs.pop(generation.index_name, None)
    return reasons


def _miss_all(
    generation: Generation, ids: Sequence[str], error: OpenSearchException | IndexUnavailable
) -> dict[str, str]:
    """Skip the generation for a while; return the error as the reason for each document."""
    reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
    _skip(generation, reason)
    return dict.fromkeys(ids, reason)
