"""The members of dynamic audiences, asked from the index: only OpenSearch evaluates rules (contract.md §4).

The index follows the database, so the export waits until every change of the snapshot is searchable. All audiences are
then read at one moment of the index, a point in time. Consumers that changed between the snapshot and that moment are
members by their later state; a consumer that is not in the snapshot is left out (`conversion.py`).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.exports.snapshot import DynamicAudience
from infra.database.floors import LANE_FLOORS, rows_of_environment
from infra.filters.clauses import Clause, clause
from infra.filters.stored_rules import decode, expression
from infra.index import naming
from infra.index.hits import Hit, SearchResponse

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2
KEEP_ALIVE = "2m"
PAGE_ROWS = 10_000

# As for consistency tokens (`api/freshness.py`): the longest waiting change of a lane is enough, and a refused change
# does not count.
WAITS = sa.text(f"""
    SELECT EXISTS (SELECT FROM generations WHERE state = 'live' AND lost_at IS NOT NULL) OR EXISTS (
        SELECT FROM ({LANE_FLOORS}) AS f CROSS JOIN LATERAL (
            SELECT xid FROM outbox WHERE {rows_of_environment(":environment_id", "f.lane", "f.seq")} LIMIT 1) head
        WHERE head.xid < CAST(:xid AS xid8))""")
NOW = sa.text("SELECT date_trunc('milliseconds', clock_timestamp())")

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class IndexBehind(Exception):  # noqa: N818 (a state of the index)
    """The index does not contain the changes of the snapshot in time."""


class MemberReader:
    """Reads the members of an environment's dynamic audiences."""

    def __init__(self, engine: sa.Engine, client: OpenSearch, alias: str, environment_id: int) -> None:
        """Take the resources.

        Args:
            engine: to see what is searchable.
            client: with answers as JSON text.
            alias: the read alias.
            environment_id: of the audiences.
        """
        self._engine, self._client, self._alias, self._environment_id = engine, client, alias, environment_id

    def wait(self, xid: str) -> None:
        """Wait until the changes of all transactions with a lower number are searchable.

        Raises:
            IndexBehind: see there.
        """
        until = time.monotonic() + WAIT_SECONDS
        values = {"environment_id": self._environment_id, "xid": xid}
        while True:
            with self._engine.connect() as connection:
                if not connection.execute(WAITS, values).scalar_one():
                    return
            if time.monotonic() > until:
                raise IndexBehind
            time.sleep(POLL_SECONDS)

    @contextmanager
    def moment(self) -> Iterator[tuple[str, datetime]]:
        """Hold a point in time of the index; return its id, and the database's time of it."""
        routing = naming.routing(self._environment_id)
        created: Any = self._client.create_pit(index=self._alias, params={"keep_alive": KEEP_ALIVE, "routing": routing})
        pit: str = msgspec.json.decode(created)["pit_id"]
        try:
            with self._engine.connect() as connection:
                yield pit, connection.execute(NOW).scalar_one()
        finally:
            self._client.delete_pit(body={"pit_id": [pit]})

    def rows(self, pit: str, audiences: Sequence[DynamicAudience], region: str | None) -> Iterator[bytes]:
        """Yield a line of CSV for each member of each audience: the columns of the table `members`."""
        for audience in audiences:
            members = clause(expression(decode(audience.rules)), region)
            for consumer_id in self._members(pit, members):
                yield f"{audience.id},{consumer_id},\n".encode()

    def _members(self, pit: str, members: Clause) -> Iterator[str]:
        filters = [{"term": {"environmentId": str(self._environment_id)}}, members]
        body: dict[str, Any] = {
            "pit": {"id": pit, "keep_alive": KEEP_ALIVE},
            "query": {"bool": {"filter": filters}},
            "sort": ["id"],
            "size": PAGE_ROWS,
            "_source": False,
            "track_total_hits": False,
        }
        while True:
            answer: Any = self._client.search(body=body, params={"allow_partial_search_results": "false"})
            hits = _decode(answer).hits.hits
            for hit in hits:
                yield hit.id
            if len(hits) < PAGE_ROWS:
                return
            body["search_after"] = hits[-1].sort[:1]
