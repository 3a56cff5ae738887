"""The backlog by lane, counted at a low cost for queues of any length."""

from typing import Any

import sqlalchemy as sa

from infra.operations import outbox
from tests.indexer.conftest import Pipeline


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


def test_backlog_reads_few_pages_of_a_long_queue(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="bulk", first=1, last=20, each=10_000)
    pipeline.fill_outbox(lane="live", first=1, last=1, each=3)
    pipeline.run("UPDATE outbox SET parked_at = now() WHERE seq % 70000 = 0")
    engine = pipeline.database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE outbox")
        [(pages,)] = connection.exec_driver_sql("SELECT pg_relation_size('outbox') / 8192")
        explain = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {outbox.BACKLOG.text}")
        plan: Any = connection.execute(explain, {"count_limit": 1000}).scalar_one()
    assert plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"] < pages / 4
