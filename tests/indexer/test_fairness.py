"""Environments share the drain: none waits for the turn of too many others, or for the large documents of others."""

from typing import LiteralString

import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain import portions, rests
from indexer.drain import round as drain
from indexer.drain.bulk import Document, Item
from indexer.drain.claims import Generation
from indexer.drain.round import Round, drain_round
from indexer.drain.round_robin import RoundRobin
from indexer.rebuild import fill, refill
from indexer.rebuild.builder import Builder
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import advance_to, count_misses, run_to_end, second_index, send_request
from tests.indexer.test_standby import FAULTS

INSERT_LARGE: LiteralString = """
    INSERT INTO consumers (environment_id, metadata)
    SELECT :e, jsonb_build_object('note', (
        SELECT string_agg(md5(n || '/' || part), '') FROM generate_series(1, 470) AS part))
    FROM generate_series(1, :number) AS n"""
LARGE_CONSUMER_BYTES = 15_000


def insert_large_consumers(pipeline: Pipeline, number: int) -> None:
    pipeline.run(INSERT_LARGE, number=number)


def create_environment(pipeline: Pipeline) -> int:
    [(number,)] = pipeline.run("""
        WITH o AS (INSERT INTO organizations (name) VALUES ('Other') RETURNING id)
        INSERT INTO environments (organization_id, mode) SELECT id, 'live' FROM o RETURNING id""")
    return int(number)


def insert_consumer_of(pipeline: Pipeline, environment: int) -> str:
    [(consumer,)] = pipeline.run(
        "INSERT INTO consumers (environment_id) VALUES (:environment) RETURNING id", environment=environment
    )
    return str(consumer)


def run_round(pipeline: Pipeline, turns: RoundRobin, rows: int = 1000) -> Round:
    with pipeline.database.engine.connect() as connection:
        return drain_round(connection, pipeline.writer, "live", rows, turns)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sizes of the documents in each request."""
    sizes: list[list[int]] = []
    write = drain.write_documents

    def write_and_record(
        connection: sa.Connection, client: OpenSearch, live: Generation, batch: list[Document], **options: bool
    ) -> list[Item]:
        sizes.append([len(document.source) for document in batch])
        return write(connection, client, live, batch, **options)

    monkeypatch.setattr(drain, "write_documents", write_and_record)
    return sizes


def test_no_environment_starves_when_more_wait_than_fit_a_round(pipeline: Pipeline) -> None:
    environments, turns = 110, RoundRobin(cursor=0)
    counts: LiteralString = "SELECT environment_id, count(*) FROM outbox GROUP BY environment_id"
    waiting_for = dict.fromkeys(range(1, environments + 1), 0)
    for _ in range(9):
        pipeline.fill_outbox(lane="live", first=1, last=environments, each=2)
        before = dict(pipeline.run(counts))
        assert run_round(pipeline, turns, rows=100).rows == 100
        after = dict(pipeline.run(counts))
        for environment in waiting_for:
            is_served = after.get(environment, 0) < before[environment]
            waiting_for[environment] = 0 if is_served else waiting_for[environment] + 1
        # 50 environments have a turn in each round, so every environment has a turn in three rounds.
        assert max(waiting_for.values()) <= 2


def test_first_round_begins_with_the_longest_waiting_environment(pipeline: Pipeline) -> None:
    for environment in (30, 40, 20):
        pipeline.fill_outbox(lane="live", first=environment, last=environment, each=1)
    turns = RoundRobin()
    order = []
    for _ in range(3):
        run_round(pipeline, turns, rows=1)
        order.append(turns.cursor)
    assert order == [30, 40, 20]


def test_small_change_does_not_wait_for_the_large_documents_of_others(
    pipeline: Pipeline, requests: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WRITE_SECONDS", "SHARED_WRITE_SECONDS"):
        monkeypatch.setattr(portions, name, 60.0)  # the size alone limits the rounds
    monkeypatch.setattr(rests, "REST", 0)
    insert_large_consumers(pipeline, 350)
    small = insert_consumer_of(pipeline, create_environment(pipeline))
    turns = RoundRobin()
    first = run_round(pipeline, turns)
    assert small in pipeline.visible()
    # Beside a small change, a round has one turn for each environment.
    assert first.bytes < portions.ROUND_BYTES / 4
    assert first.left == 351 - first.documents
    second = run_round(pipeline, turns)
    assert portions.ROUND_BYTES <= second.bytes < portions.ROUND_BYTES + 2 * LARGE_CONSUMER_BYTES
    assert second.left == first.left - second.documents
    assert pipeline.waiting() == second.left
    # Large documents have requests of their own, and short requests.
    assert all(min(sizes) >= portions.LARGE_BYTES or max(sizes) < portions.LARGE_BYTES for sizes in requests)
    assert max(map(sum, requests)) < portions.LARGE_REQUEST_BYTES + 2 * LARGE_CONSUMER_BYTES
    while run_round(pipeline, turns).rows:
        pass
    assert len(pipeline.visible()) == 351
    assert_index_equals_database(pipeline.database)


def test_backlog_rests_while_others_are_active(
    pipeline: Pipeline, requests: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rests, "REST", 0.1)
    now, turns, other = 0.0, RoundRobin(), create_environment(pipeline)
    turns.rests = rests.Rests(lambda: now)
    insert_large_consumers(pipeline, 60)
    first = insert_consumer_of(pipeline, other)
    before = run_round(pipeline, turns)
    assert first in pipeline.visible()
    assert before.left
    second = insert_consumer_of(pipeline, other)
    assert run_round(pipeline, turns).rows == 1
    assert second in pipeline.visible()
    assert run_round(pipeline, turns).rows == 0
    now += rests.ACTIVE_SECONDS / 2
    del requests[:]
    assert run_round(pipeline, turns).documents
    # Searches of others get the processors often: requests are smaller than for a single environment.
    assert max(map(sum, requests)) < portions.SHARED_REQUEST_BYTES + 2 * LARGE_CONSUMER_BYTES
    now += 2 * rests.ACTIVE_SECONDS
    while run_round(pipeline, turns).rows:
        pass
    assert pipeline.waiting() == 0


def test_round_ends_when_its_writes_have_taken_long_enough(
    pipeline: Pipeline, requests: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "WRITE_SECONDS", 0.0)
    insert_large_consumers(pipeline, 60)
    turns = RoundRobin()
    done = run_round(pipeline, turns)
    assert len(requests) == 1
    assert (done.documents, done.left) == (len(requests[0]), 60 - len(requests[0]))
    assert len(pipeline.visible()) == done.documents
    while run_round(pipeline, turns).rows:
        pass
    assert len(pipeline.visible()) == 60


def test_rebuild_writes_large_documents_in_short_pages(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_large_consumers(pipeline, 12)
    pipeline.drain()
    for module in (fill, refill):
        monkeypatch.setattr(module, "PAGE_BYTES", 3 * LARGE_CONSUMER_BYTES)
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    assert builder.step()
    assert pipeline.run("SELECT documents, done_at IS NULL FROM generation_slices") == [(3, True)]
    FAULTS["rejects"].begin(pipeline, second_index(pipeline))
    pipeline.run("UPDATE consumers SET full_name = 'Renamed'")
    pipeline.drain()
    assert count_misses(pipeline) == 12
    FAULTS["rejects"].end(pipeline, second_index(pipeline))
    assert run_to_end(pipeline, builder).phase == "done"
    assert count_misses(pipeline) == 0
    assert_index_equals_database(pipeline.database)
