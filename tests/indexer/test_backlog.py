"""The backlog by lane, counted at a low cost for queues of any length."""

from typing import Any

import sqlalchemy as sa

from infra.database.floors import NEAR
from infra.operations import outbox
from tests.indexer.conftest import Pipeline

WAITING_ENVIRONMENTS = max(NEAR, outbox.MANY) + 1000
"""So many environments that neither all rows are read nor all environments are compared."""


def waiting_and_parked(pipeline: Pipeline) -> dict[str, tuple[int, int]]:
    """Return the number of waiting and of parked rows by lane."""
    with pipeline.database.engine.connect() as connection:
        return {lane.lane: (lane.waiting, lane.parked) for lane in outbox.backlog(connection)}


def test_backlog_includes_empty_lanes(pipeline: Pipeline) -> None:
    assert waiting_and_parked(pipeline) == {"live": (0, 0), "bulk": (0, 0)}
    pipeline.fill_outbox(lane="bulk", first=1, last=3, each=4)
    pipeline.run("UPDATE outbox SET parked_at = now() WHERE environment_id = 2")
    pipeline.fill_outbox(lane="live", first=7, last=7, each=1)
    assert waiting_and_parked(pipeline) == {"live": (1, 0), "bulk": (8, 4)}


def test_backlog_age_is_the_oldest_of_all_environments(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=5, each=2)
    pipeline.run("UPDATE outbox SET created_at = now() - environment_id % 4 * interval '1 hour'")
    pipeline.run("UPDATE outbox SET created_at = now() - interval '1 day', parked_at = now() WHERE environment_id = 5")
    with pipeline.database.engine.connect() as connection:
        live, bulk = outbox.backlog(connection)
    assert 3 * 3600 <= live.oldest_seconds < 4 * 3600
    assert bulk.oldest_seconds == 0
    # A refused document does not make the lane old: it is tried again later, and then parked.
    pipeline.run("UPDATE outbox SET attempts = 1, retry_at = now() + interval '1 minute' WHERE environment_id = 3")
    with pipeline.database.engine.connect() as connection:
        live, _ = outbox.backlog(connection)
        lag_ms = connection.execute(outbox.LIVE_LAG_MS).scalar_one()
    assert 2 * 3600 <= live.oldest_seconds < 3 * 3600
    assert (live.waiting, live.refused, live.parked) == (8, 2, 2)
    assert 3 * 3600 <= lag_ms / 1000 < 4 * 3600


def buffers(pipeline: Pipeline, query: str, **values: Any) -> int:
    """Return the number of pages that a query reads."""
    with pipeline.database.engine.connect() as connection:
        plan: Any = connection.execute(sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"), values).scalar_one()
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def test_age_of_the_backlog_does_not_take_longer_with_more_merchants(pipeline: Pipeline) -> None:
    read: list[int] = []
    for number in range(2):
        first = number * WAITING_ENVIRONMENTS
        pipeline.fill_outbox(lane="live", first=first + 1, last=first + WAITING_ENVIRONMENTS, each=1)
        pipeline.run("ANALYZE outbox")
        read.append(buffers(pipeline, outbox.LIVE_LAG_MS.text))
    assert read[1] < read[0] + outbox.MANY
    pipeline.run("UPDATE outbox SET created_at = now() - interval '2 hours' WHERE environment_id = 1")
    with pipeline.database.engine.connect() as connection:
        live, _ = outbox.backlog(connection)
        lag_ms = connection.execute(outbox.LIVE_LAG_MS).scalar_one()
    assert min(live.oldest_seconds, lag_ms / 1000) >= 2 * 3600


def test_backlog_reads_few_pages_of_a_long_queue(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="bulk", first=1, last=20, each=10_000)
    pipeline.fill_outbox(lane="live", first=1, last=1, each=3)
    pipeline.run("UPDATE outbox SET parked_at = now() WHERE seq % 70000 = 0")
    pipeline.run("ANALYZE outbox")
    [(pages,)] = pipeline.run("SELECT pg_relation_size('outbox') / 8192")
    assert buffers(pipeline, outbox.BACKLOG.text, count_limit=1000) < pages / 4
