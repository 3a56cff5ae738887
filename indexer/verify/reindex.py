"""Execute a reindex: walk through the ids in ranges and add an outbox row for each chosen consumer.

The drain reads the rows and writes the documents, so no document is made here and memory does not grow.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.verify.ranges import IdRange, id_ranges
from infra.filters.clauses import Clause
from infra.index.hits import Hit, SearchResponse
from infra.operations.reindex import CHOSEN, ReindexScope, count_matches, count_rows, index_query

PAGE_ROWS = 2_000
"""Consumers of a page. Each page is a transaction."""

APPEND = sa.text(f"""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT c.environment_id, c.id, c.version, 'bulk' {CHOSEN}
        AND c.id > :after AND (CAST(:last AS text) IS NULL OR c.id <= :last)""")

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class Page(NamedTuple):
    """Consumers to choose from."""

    range: IdRange
    ids: list[str] | None
    """Consumers of the range to choose from; None: all."""


def count_chosen(connection: sa.Connection, client: OpenSearch, alias: str, scope: ReindexScope) -> int:
    """Count the chosen consumers: in the database or, with a filter, in the index.

    Raises:
        OpenSearchException, DBAPIError: OpenSearch or the database cannot be used.
    """
    query = index_query(connection, scope)
    return count_rows(connection, scope) if query is None else count_matches(client, alias, query)


def pages(engine: sa.Engine, client: OpenSearch, alias: str, scope: ReindexScope, after: str) -> Iterator[Page]:
    """Yield pages, together all ids greater than `after`.

    Raises:
        OpenSearchException, DBAPIError: OpenSearch or the database cannot be used.
    """
    if scope.ids:
        candidates = _pages_of_ids(scope.ids, after)
    else:
        ranges = id_ranges(engine, scope.environment_id, after, PAGE_ROWS)
        candidates = (Page(id_range, None) for id_range in ranges)
    for page in candidates:
        with engine.connect() as connection:
            query = index_query(connection, scope)
        if query is None:
            yield page
        else:
            yield from _matching_pages(client, alias, query, page.range)


def append(connection: sa.Connection, scope: ReindexScope, page: Page) -> int:
    """Add the chosen consumers of a page to the outbox, and return how many."""
    ids = scope.ids if page.ids is None else page.ids
    values = msgspec.structs.asdict(scope) | page.range._asdict() | {"ids": ids}
    return connection.execute(APPEND, values).rowcount


def _pages_of_ids(ids: list[str], after: str) -> Iterator[Page]:
    """Yield pages of requested ids, in order. An id need not be the id of a consumer."""
    remaining = [consumer_id for consumer_id in ids if consumer_id > after]
    for start in range(0, len(remaining), PAGE_ROWS):
        page_ids = remaining[start : start + PAGE_ROWS]
        yield Page(IdRange(after, page_ids[-1]), page_ids)
        after = page_ids[-1]
    yield Page(IdRange(after, None), [])


def _matching_pages(client: OpenSearch, alias: str, query: Clause, id_range: IdRange) -> Iterator[Page]:
    """Yield the matches of a range: several pages if the index holds more matches there than the database rows."""
    after = id_range.after
    while True:
        bounds = {name: value for name, value in (("gt", after), ("lte", id_range.last)) if value}
        body = {
            "query": {"bool": {"filter": [query, {"range": {"id": bounds}}]}},
            "sort": ["id"],
            "size": PAGE_ROWS,
            "_source": False,
            "track_total_hits": False,
        }
        response: Any = client.search(index=alias, body=body, params={"allow_partial_search_results": "false"})
        ids = [hit.sort[0] for hit in _decode(response).hits.hits]
        if len(ids) < PAGE_ROWS:
            yield Page(IdRange(after, id_range.last), ids)
            return
        yield Page(IdRange(after, ids[-1]), ids)
        after = ids[-1]
