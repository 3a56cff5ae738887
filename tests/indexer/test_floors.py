"""The floors of the outbox: no scan walks through deleted rows, and no waiting row is ever below its floor."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import sqlalchemy as sa

from api import freshness
from indexer import floors, waiting_work
from indexer.drain import claims
from indexer.floors import Floors
from infra.database.floors import USE_INDEX_ORDER
from infra.operations import outbox
from tests.indexer.conftest import Pipeline

INSERT = """
    INSERT INTO outbox (environment_id, consumer_id, version, lane) VALUES (1, 'cons_' || lpad('1', 26, '0'), 1, 'live')
    RETURNING seq"""
DEAD = 20_000
CONSUMERS = [f"cons_{1_000_000 + number:026}" for number in range(1, 101)]


def move(pipeline: Pipeline, mover: Floors) -> int:
    """Move the floors; return the floor of the lane `live`."""
    with pipeline.database.engine.begin() as connection:
        mover.move(connection)
    [(seq,)] = pipeline.run("SELECT coalesce(max(seq), 0) FROM outbox_floors WHERE lane = 'live'")
    return int(seq)


def waiting_seqs(pipeline: Pipeline) -> list[int]:
    rows = pipeline.run("SELECT seq FROM outbox WHERE parked_at IS NULL AND retry_at IS NULL ORDER BY seq")
    return [seq for (seq,) in rows]


def last_seq(pipeline: Pipeline) -> int:
    return int(pipeline.run("SELECT last_value FROM outbox_seq_seq")[0][0])


def claimed_ids(pipeline: Pipeline) -> set[str]:
    with pipeline.database.engine.connect() as connection, connection.begin():
        return set(claims.claim(connection, "live").versions)


def test_floor_is_the_first_waiting_row_or_above_the_last(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=3, each=10)
    pipeline.run("DELETE FROM outbox WHERE environment_id = 1")
    mover = Floors()
    assert move(pipeline, mover) == waiting_seqs(pipeline)[0]
    pipeline.run("DELETE FROM outbox")
    assert move(pipeline, mover) == last_seq(pipeline) + 1


def test_refused_row_does_not_hold_the_floor(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1, each=3)
    pipeline.run("UPDATE outbox SET parked_at = now() WHERE seq % 3 = 0")
    pipeline.run("UPDATE outbox SET retry_at = now() + interval '1 hour' WHERE seq % 3 = 1")
    pipeline.run("DELETE FROM outbox WHERE seq % 3 = 2")
    assert move(pipeline, Floors()) == last_seq(pipeline) + 1


def test_floor_waits_for_open_transactions_with_changes_only(pipeline: Pipeline) -> None:
    mover = Floors()
    engine = pipeline.database.engine
    with engine.connect() as writer, engine.connect() as reader, engine.connect() as other:
        reader.execute(sa.text("SELECT FROM outbox"))
        other.execute(sa.text("CREATE TEMPORARY TABLE copied AS SELECT pg_current_xact_id()"))
        seq = writer.execute(sa.text(INSERT)).scalar_one()
        pipeline.run(INSERT.replace("RETURNING seq", ""))
        pipeline.run("DELETE FROM outbox")
        assert [move(pipeline, mover) for _ in range(3)] == [0, 0, 0]
        writer.commit()
        assert move(pipeline, mover) == seq
        assert claimed_ids(pipeline)
        pipeline.run("DELETE FROM outbox")
        assert move(pipeline, mover) == last_seq(pipeline) + 1


@pytest.mark.parametrize("seed", range(3))
def test_no_waiting_row_is_below_the_floor_in_any_order(pipeline: Pipeline, seed: int) -> None:
    steps = random.Random(seed)
    movers = [Floors(), Floors()]
    with ExitStack() as stack:
        open_writers: list[Any] = []
        for _ in range(150):
            match steps.choice(("insert", "end", "delete", "move", "move")):
                case "insert":
                    writer = stack.enter_context(pipeline.database.engine.connect())
                    writer.execute(sa.text(INSERT))
                    open_writers.append(writer)
                case "end" if open_writers:
                    writer = open_writers.pop(steps.randrange(len(open_writers)))
                    writer.rollback() if steps.random() < 0.2 else writer.commit()
                    writer.close()
                case "delete" if seqs := waiting_seqs(pipeline):
                    pipeline.run("DELETE FROM outbox WHERE seq = :seq", seq=steps.choice(seqs))
                case _:
                    move(pipeline, steps.choice(movers))
            [(below,)] = pipeline.run("""
                SELECT count(*) FROM outbox WHERE lane = 'live' AND seq < (
                    SELECT coalesce(max(seq), 0) FROM outbox_floors WHERE lane = 'live')""")
            assert below == 0
            if len(open_writers) > 6:
                open_writers.pop(0).close()
        for writer in open_writers:
            writer.commit()
    last = [move(pipeline, mover) for mover in movers for _ in range(2)][-1]
    assert last == (waiting_seqs(pipeline) or [last_seq(pipeline) + 1])[0]


@pytest.mark.parametrize("way", ["command", "by hand", "due"])
def test_row_that_waits_again_is_claimed(pipeline: Pipeline, way: str) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1, each=2)
    pipeline.run("UPDATE outbox SET attempts = 5, retry_at = now() + interval '1 hour'")
    if way != "due":
        pipeline.run("UPDATE outbox SET parked_at = now()")
    move(pipeline, Floors())
    assert not claimed_ids(pipeline)
    if way == "command":
        with pipeline.database.engine.begin() as connection:
            assert outbox.retry(connection, environment_id=1, ids=None) == 2
    elif way == "by hand":
        pipeline.run("UPDATE outbox SET parked_at = NULL, retry_at = NULL")
    else:
        pipeline.run("UPDATE outbox SET retry_at = now() - interval '1 second'")
    assert len(claimed_ids(pipeline)) == 2
    pipeline.drain()
    assert pipeline.waiting() == 0


def test_floor_above_the_sequence_is_removed(pipeline: Pipeline) -> None:
    pipeline.fill_outbox(lane="live", first=1, last=1, each=9)
    pipeline.run("DELETE FROM outbox")
    mover = Floors()
    assert move(pipeline, mover) > 1
    pipeline.run("ALTER TABLE outbox ALTER COLUMN seq RESTART")
    pipeline.fill_outbox(lane="live", first=1, last=1, each=1)
    assert move(pipeline, mover) == 0
    assert claimed_ids(pipeline)


def test_look_for_work_moves_a_floor_that_is_far_behind(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause of beat, each scan passes the deleted rows until then, also the look for work itself."""
    monkeypatch.setattr(floors, "MAX_STEP", 100)
    pipeline.fill_outbox(lane="live", first=1, last=1, each=1000)
    pipeline.run("DELETE FROM outbox")
    with closing(waiting_work.WorkFinder(pipeline.database.settings)) as finder:
        finder.look()
    [(seq,)] = pipeline.run("SELECT max(seq) FROM outbox_floors WHERE lane = 'live'")
    assert seq == last_seq(pipeline) + 1


@pytest.fixture
def held(pipeline: Pipeline) -> Iterator[Pipeline]:
    """A held snapshot with many deleted rows, and 20 waiting rows. The statistics say that the outbox is empty."""
    engine = pipeline.database.engine
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as snapshot:
        snapshot.execute(sa.text("SELECT FROM outbox"))
        for lane in outbox.LANES:
            pipeline.fill_outbox(lane=lane, first=1, last=20, each=DEAD // 40)
        pipeline.run("UPDATE outbox SET version = seq % 1000 + 1")
        pipeline.run("DELETE FROM outbox")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE outbox"))
        move(pipeline, Floors())
        pipeline.fill_outbox(lane="live", first=1, last=2, each=10)
        yield pipeline


CLAIM = {"after": 0, "lane": "live", "resting": None, "share": 10, "rows": 20}
STATEMENTS: dict[str, tuple[sa.TextClause, dict[str, Any]]] = {
    "claim near the floor": (claims.CLAIM_NEAR, CLAIM),
    "claim far from the floor": (claims.CLAIM_FAR, CLAIM),
    "claim": (claims.CLAIM, {"environments": [1, 2], "after": [0, 0], "lane": "live", "share": 10, "rows": 20}),
    "retries": (claims.RELEASE_RETRIES, {"lane": "live", "rows": 1000}),
    "longest waiting": (claims.LONGEST_WAITING, {"lane": "live"}),
    "delete indexed": (claims.DELETE_INDEXED, {"ids": CONSUMERS, "versions": [1000] * len(CONSUMERS)}),
    "record failure": (
        claims.RECORD_FAILURE,
        {"id": CONSUMERS[0], "version": 1000, "error": "", "attempts": claims.MAX_ATTEMPTS},
    ),
    "waiting work": (waiting_work.WAITING, {}),
    "tokens": (freshness.SEARCHABLE, {"environments": [1], "xids": ["3"], "epochs": [None], "lsns": [None]}),
    "lags": (freshness.LAGS, {"environments": [1, 2, 3]}),
    "backlog": (outbox.BACKLOG, {"count_limit": 1000}),
    "live lag": (outbox.LIVE_LAG_MS, {}),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_scan_does_not_walk_through_deleted_rows(held: Pipeline, name: str) -> None:
    statement, values = STATEMENTS[name]
    with held.database.engine.connect() as connection:
        connection.execute(USE_INDEX_ORDER)
        connection.execute(statement, values)  # reads the catalogue
        explain = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
        [plan] = connection.execute(explain, values).scalar_one()
        connection.rollback()
    per_consumer = 20 * len(CONSUMERS) if name == "delete indexed" else 0
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < DEAD // 40 + per_consumer


BLOCKS = """
    SELECT sum(pg_stat_get_xact_blocks_fetched(c)) FROM unnest(ARRAY[
        CAST('outbox' AS regclass), CAST('outbox_claim' AS regclass), CAST('outbox_pkey' AS regclass)]) AS c"""


def test_claim_and_backlog_pass_no_environment_with_deleted_rows(pipeline: Pipeline) -> None:
    engine = pipeline.database.engine
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as snapshot:
        snapshot.execute(sa.text("SELECT FROM outbox"))
        pipeline.fill_outbox(lane="live", first=1, last=DEAD, each=1)
        pipeline.run("DELETE FROM outbox")
        move(pipeline, Floors())
        pipeline.fill_outbox(lane="live", first=DEAD, last=DEAD + 1, each=10)
        for read in (lambda connection: claims.claim(connection, "live"), outbox.backlog):
            with engine.connect() as connection:
                connection.execute(USE_INDEX_ORDER)
                before = connection.execute(sa.text(BLOCKS)).scalar_one()
                read(connection)
                assert connection.execute(sa.text(BLOCKS)).scalar_one() - before < DEAD // 200
                connection.rollback()
