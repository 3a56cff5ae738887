"""Claims of outbox rows: concurrent drains claim different rows, and each environment gets its share."""

import pytest
import sqlalchemy as sa

from indexer.drain import claims
from infra.database.engine import open_engine
from infra.database.floors import USE_INDEX_ORDER
from tests.indexer.conftest import Pipeline


def claimed(pipeline: Pipeline, lane: str = "live", rows: int = claims.ROWS) -> dict[int, int]:
    """Claim rows of a lane, and return their number by environment."""
    with pipeline.database.engine.connect() as connection, connection.begin():
        numbers = [environment for environment, _ in claims.claim(connection, lane, rows).versions.values()]
    return {number: numbers.count(number) for number in sorted(set(numbers))}


def test_concurrent_drains_claim_different_rows(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=3, each=1000)
    engine = pipeline.database.engine
    with engine.connect() as one, engine.connect() as other, one.begin(), other.begin():
        taken = [set(claims.claim(connection, "live").versions) for connection in (one, other)]
    assert not taken[0] & taken[1]
    assert len(taken[0]) == len(taken[1]) == claims.ROWS


def test_every_environment_has_its_share_of_a_round(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1, each=5000)
    pipeline.fill_outbox(lane="live", first=2, last=5, each=200)
    assert claimed(pipeline) == dict.fromkeys(range(1, 6), 200)


def test_unused_shares_go_to_other_environments(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1, each=5000)
    pipeline.fill_outbox(lane="live", first=2, last=50, each=1)
    taken = claimed(pipeline)
    assert [taken[number] for number in range(2, 51)] == [1] * 49
    assert taken[1] == claims.ROWS - 49


def test_imports_and_single_changes_use_different_lanes(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="bulk", first=1, last=2, each=5000)
    pipeline.fill_outbox(lane="live", first=1, last=1, each=1)
    assert claimed(pipeline, "live") == {1: 1}
    assert claimed(pipeline, "bulk") == {1: claims.ROWS // 2, 2: claims.ROWS // 2}


def test_parked_rows_and_rows_with_a_later_retry_are_skipped(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1, each=5)
    pipeline.run("UPDATE outbox SET parked_at = now() WHERE seq % 5 = 0")
    pipeline.run("UPDATE outbox SET retry_at = now() + interval '1 hour' WHERE seq % 5 = 1")
    pipeline.run("UPDATE outbox SET retry_at = now() - interval '1 hour' WHERE seq % 5 = 2")
    assert claimed(pipeline) == {1: 3}


def test_claim_cost_does_not_grow_with_the_queues(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=50, each=4000)
    pipeline.run("ANALYZE outbox")
    values = {"environments": list(range(1, 51)), "after": [0] * 50, "lane": "live", "share": 15, "rows": 750}
    explain = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {claims.CLAIM.text}")
    with pipeline.database.engine.connect() as connection:
        [plan] = connection.execute(explain, values).scalar_one()
    assert plan["Plan"]["Actual Rows"] == 750
    assert plan["Plan"]["Shared Hit Blocks"] < 10 * 750


@pytest.mark.parametrize("after", [0, 1500, 3000])
def test_claim_cost_does_not_grow_with_the_waiting_environments(pipeline: Pipeline, after: int) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=3000, each=1)
    pipeline.run("ANALYZE outbox")
    explain = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {claims.CLAIM_FAR.text}")
    values = {"after": after, "lane": "live", "resting": None, "share": 16, "rows": 64}
    with pipeline.database.engine.connect() as connection:
        connection.execute(USE_INDEX_ORDER)
        [plan] = connection.execute(explain, values).scalar_one()
    assert plan["Plan"]["Actual Rows"] == 64
    assert plan["Plan"]["Shared Hit Blocks"] < 20 * 64


def test_claims_walk_around_the_environments(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1100, each=2)
    with pipeline.database.engine.connect() as connection, connection.begin():
        first = claims.claim(connection, "live")
        assert list(first.queues) == list(range(1, 501))
        assert first.others_wait
        connection.execute(sa.text("DELETE FROM outbox WHERE environment_id BETWEEN 300 AND 400"))
        second = claims.claim(connection, "live", after=1000)
    assert list(second.queues) == [*range(1001, 1101), *range(1, 300), *range(401, 502)]
    assert set(map(len, second.queues.values())) == {2}


def test_plans_of_an_empty_outbox_do_not_slow_a_later_burst(pipeline: Pipeline) -> None:
    """A session caches plans, and a plan made for an empty outbox scans the whole outbox for every row."""
    forget = claims.DELETE_INDEXED.text.replace(":ids", "$1").replace(":versions", "$2")
    ids = [f"cons_{number:026}" for number in range(1, 501)]
    values = f"'{{{','.join(ids)}}}', array_fill(1::bigint, ARRAY[{len(ids)}])"
    execute = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE forget ({values})".replace(":", r"\:"))
    engine = open_engine(pipeline.database.settings, name="live")
    with pipeline.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE outbox"))
    with engine.connect() as session:
        session.execute(sa.text(f"PREPARE forget (text[], bigint[]) AS {forget}"))
        for _ in range(12):  # PostgreSQL may cache a generic plan from the sixth execution on
            session.execute(execute)
        session.commit()
        pipeline.fill_outbox(lane="live", first=0, last=0, each=3000)
        [done] = session.execute(execute).scalar_one()
    engine.dispose()
    assert done["Plan"]["Shared Hit Blocks"] < 10 * len(ids)
