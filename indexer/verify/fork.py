"""Compare the documents that were written to the index after a fork of the database.

A fork is the moment up to which two histories of the database are the same: the last WAL position that a promoted
standby has replayed, or the moment of a backup. Changes after the fork are lost, and their documents may be in the
index. These documents are found by two numbers, and by no clock:

- The sequence number that OpenSearch gives to each write of a shard. The number is recorded in `generations` every
  second, so the copy in the database after the fork is from before the fork: the lost writes have higher numbers.
- The version. Versions of the new epoch begin above all versions of the lost history.

A frozen worker may write lost documents late. So the index is searched again and again for a while.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import refresh
from indexer.verify.compare import Comparison
from indexer.verify.suspects import BATCH, ComparedIndex, confirm
from infra.index.hits import Hit, SearchResponse

FOLLOW_SECONDS = 60
"""How long after the begin of an epoch the index is searched for late writes: longer than a round of a drain, and than
all time limits of a frozen worker's connections."""
BEFORE_ALL = -1
"""Below every sequence number."""

FORK = sa.text("""
    SELECT e.number, e.reason, e.version_floor,
        CASE WHEN e.live_generation ->> 'index_uuid' = g.index_uuid
            THEN coalesce(e.live_generation -> 'seen_seq_nos', '[]') ELSE '[]' END AS seq_nos,
        e.number = (SELECT max(number) FROM epochs)
            AND clock_timestamp() < e.began_at + :seconds * interval '1 second' AS is_followed
    FROM epochs e LEFT JOIN generations g ON g.index_name = :index WHERE e.number = :epoch""")

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class Fork(NamedTuple):
    """The begin of an epoch, for the comparison of an index."""

    number: int
    reason: str
    version_floor: int
    """Documents of lost changes have lower versions."""
    seq_nos: list[int]
    """For each shard: documents of lost changes have higher sequence numbers."""
    is_followed: bool
    """Whether late writes are still expected. The run of the next epoch finds late writes as well."""

    @property
    def may_have_lost_changes(self) -> bool:
        """Whether the whole index is to be compared afterwards. A restart alone loses no change that was committed."""
        return self.reason != "restart"


def read(connection: sa.Connection, epoch: int, index: str) -> Fork:
    """Read the fork at the begin of an epoch."""
    values = {"epoch": epoch, "index": index, "seconds": FOLLOW_SECONDS}
    return Fork._make(connection.execute(FORK, values).one())


def comparisons(
    engine: sa.Engine, client: OpenSearch, index: ComparedIndex, fork: Fork, position: str
) -> Iterator[Comparison]:
    """Compare the documents of lost changes, shard by shard; yield a comparison for each page.

    The position of a comparison is a sequence number for each shard. The last page has no position once late writes are
    no longer expected.

    Raises:
        OpenSearchException, IndexUnavailable, DBAPIError: OpenSearch or the database cannot be used.
    """
    refresh(client, index.name)
    recorded = [int(number) for number in position.split(",")] if position else fork.seq_nos
    seq_nos = [*recorded, *[BEFORE_ALL] * (index.shards - len(recorded))]
    for shard in range(index.shards):
        is_last = False
        while not is_last:
            hits = _written_after(client, index.name, fork, shard, seq_nos[shard])
            seq_nos[shard] = hits[-1].sort[0] if hits else seq_nos[shard]
            is_last = len(hits) < BATCH
            confirmed = confirm(engine, client, index, [hit.id for hit in hits])
            is_end = is_last and shard == index.shards - 1 and not fork.is_followed
            last = None if is_end else ",".join(map(str, seq_nos))
            yield Comparison(last, len(hits), confirmed.in_flight, confirmed.differences)


def _written_after(client: OpenSearch, index: str, fork: Fork, shard: int, seq_no: int) -> list[Hit]:
    filters = [{"range": {"_seq_no": {"gt": seq_no}}}, {"range": {"version": {"lt": fork.version_floor}}}]
    body = {
        "query": {"bool": {"filter": filters}},
        "sort": ["_seq_no"],
        "size": BATCH,
        "_source": False,
        "track_total_hits": False,
    }
    params = {"allow_partial_search_results": "false", "preference": f"_shards:{shard}"}
    response: Any = client.search(index=index, body=body, params=params)
    return _decode(response).hits.hits
