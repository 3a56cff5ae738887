"""A reindex: consumers are gone through by ranges of ids, and those that are chosen get a row in the outbox.

The drain reads the rows themselves and writes them anew, so no document is made here, and memory does not grow.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.verify.compare import Range
from infra.filters.clauses import Clause
from infra.operations import reindex
from infra.operations.reindex import CHOSEN, ReindexScope

ROWS = 2_000
"""Consumers of a range, and of a transaction."""

LAST = sa.text("""
    SELECT c.id FROM consumers c
    WHERE c.id > :after AND (CAST(:environment_id AS int) IS NULL OR c.environment_id = :environment_id)
    ORDER BY c.id OFFSET :rows - 1 LIMIT 1""")
APPEND = sa.text(f"""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT c.environment_id, c.id, c.version, 'bulk' {CHOSEN}
        AND c.id > :after AND (CAST(:last AS text) IS NULL OR c.id <= :last)""")


class Page(NamedTuple):
    """Consumers to choose from."""

    range: Range
    ids: list[str] | None
    """These alone; None: all of the range."""


class _Hit(msgspec.Struct):
    sort: tuple[str]


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Answer(msgspec.Struct):
    hits: _Hits


_answer = msgspec.json.Decoder(_Answer).decode


def total(connection: sa.Connection, client: OpenSearch, alias: str, scope: ReindexScope) -> int:
    """How many will be written.

    Raises:
        OpenSearchException, DBAPIError: one of them does not answer.
    """
    found_by = reindex.index_query(connection, scope)
    return reindex.count_rows(connection, scope) if found_by is None else reindex.count_matches(client, alias, found_by)


def pages(engine: sa.Engine, client: OpenSearch, alias: str, scope: ReindexScope, after: str) -> Iterator[Page]:
    """All of them, from after an id.

    Raises:
        OpenSearchException, DBAPIError: one of them does not answer.
    """
    for page in _named(scope.ids, after) if scope.ids else _ranges(engine, scope, after):
        with engine.connect() as connection:
            found_by = reindex.index_query(connection, scope)
        if found_by is None:
            yield page
        else:
            yield from _matching(client, alias, found_by, page.range)


def append(connection: sa.Connection, scope: ReindexScope, page: Page) -> int:
    """Have those of a page written that are chosen; answer how many."""
    ids = scope.ids if page.ids is None else page.ids
    values = msgspec.structs.asdict(scope) | page.range._asdict() | {"ids": ids}
    return connection.execute(APPEND, values).rowcount


def _named(ids: list[str], after: str) -> Iterator[Page]:
    """By the ids that were given, which need not be of consumers."""
    left = [each for each in ids if each > after]
    for start in range(0, len(left), ROWS):
        part = left[start : start + ROWS]
        yield Page(Range(after, part[-1]), part)
        after = part[-1]
    yield Page(Range(after, None), [])


def _ranges(engine: sa.Engine, scope: ReindexScope, after: str) -> Iterator[Page]:
    last: str | None = after
    while last is not None:
        values = {"after": after, "environment_id": scope.environment_id, "rows": ROWS}
        with engine.connect() as connection:
            last = connection.execute(LAST, values).scalar_one_or_none()
        yield Page(Range(after, last), None)
        after = last or ""


def _matching(client: OpenSearch, alias: str, found_by: Clause, part: Range) -> Iterator[Page]:
    """Those that the index finds, in several pages if it has more of them there than the database."""
    after = part.after
    while True:
        window = {name: value for name, value in (("gt", after), ("lte", part.last)) if value}
        query = {"bool": {"filter": [found_by, {"range": {"id": window}}]}}
        body = {"query": query, "sort": ["id"], "size": ROWS, "_source": False, "track_total_hits": False}
        answer: Any = client.search(index=alias, body=body, params={"allow_partial_search_results": "false"})
        found = [hit.sort[0] for hit in _answer(answer).hits.hits]
        if len(found) < ROWS:
            yield Page(Range(after, part.last), found)
            return
        yield Page(Range(after, found[-1]), found)
        after = found[-1]
