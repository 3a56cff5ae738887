"""The drain loop: rounds shrink while they fail, until a failing row is alone; the loop never ends."""

from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain import claims, loop, portions, rests
from indexer.drain.loop import Drainer
from indexer.drain.round import Round, drain_round
from indexer.drain.round_robin import RoundRobin
from infra.backoff import Backoff
from infra.database.engine import CONNECT_ARGS, open_engine
from infra.index.client import TextSerializer
from tests.indexer.conftest import Pipeline
from tests.indexer.proxy import Proxy
from tests.indexer.rebuild_steps import insert_consumers
from tests.indexer.server_faults import closed_index, make_unreadable
from tests.indexer.test_fairness import insert_large_consumers
from tests.waiting import wait_until

LONG = 60.0
NO_PAUSES = Backoff(0, 0)


@pytest.fixture
def round_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows requested by each round."""
    sizes: list[int] = []

    def drain_and_record(
        connection: sa.Connection, client: OpenSearch, lane: str, rows: int, turns: RoundRobin
    ) -> Round:
        sizes.append(rows)
        return drain_round(connection, client, lane, rows, turns)

    monkeypatch.setattr(loop, "drain_round", drain_and_record)
    return sizes


@pytest.fixture
def drainer(pipeline: Pipeline) -> Iterator[Drainer]:
    engine = open_engine(pipeline.database.settings)
    yield Drainer(engine, pipeline.writer, "live", NO_PAUSES)
    engine.dispose()


def test_unreadable_row_is_isolated_and_all_others_are_indexed(
    pipeline: Pipeline, drainer: Drainer, round_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = insert_consumers(pipeline, 2500)
    bad = everyone[1234]
    make_unreadable(monkeypatch, bad)
    assert not drainer.catch_up(LONG)
    assert pipeline.visible() == set(everyone) - {bad}
    assert pipeline.run("SELECT consumer_id, attempts > 0 FROM outbox") == [(bad, True)]
    # Rounds grow again once the row is out of the way.
    assert max(round_sizes[round_sizes.index(1) :]) > 250


def test_rounds_shrink_while_the_index_fails_and_grow_again(
    pipeline: Pipeline, drainer: Drainer, round_sizes: list[int]
) -> None:
    insert_consumers(pipeline, 3000)
    with closed_index(pipeline):
        while round_sizes[-1:] != [1]:
            drainer.catch_up(0.001)
    assert round_sizes == sorted(round_sizes, reverse=True)
    assert round_sizes[0] == claims.ROWS
    assert pipeline.waiting() == 3000
    del round_sizes[:]
    assert not drainer.catch_up(LONG)
    assert round_sizes == sorted(round_sizes)
    assert round_sizes[-1] == claims.ROWS
    assert pipeline.waiting() == 0


def test_backoff_grows_to_a_limit_and_is_reset(pipeline: Pipeline, round_sizes: list[int]) -> None:
    now = 0.0
    engine = open_engine(pipeline.database.settings)
    drainer = Drainer(engine, pipeline.writer, "live", Backoff(1, 3, lambda: now))

    def attempts_until(end: float) -> list[float]:
        nonlocal now
        times = []
        while now < end:
            before = len(round_sizes)
            assert not drainer.catch_up(LONG)
            times += [now] if len(round_sizes) > before else []
            now += 0.5
        return times

    pipeline.insert_consumer()
    with closed_index(pipeline):
        assert attempts_until(11) == [0, 1, 3, 6, 9]
    assert attempts_until(13) == [12, 12.5]
    pipeline.insert_consumer()
    with closed_index(pipeline):
        assert attempts_until(16) == [13, 14]
    engine.dispose()


def test_drain_goes_on_after_the_rest_of_an_environment(
    pipeline: Pipeline, drainer: Drainer, round_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rests, "ACTIVE_SECONDS", LONG)
    monkeypatch.setattr(portions, "SHARED_WRITE_SECONDS", 0.0)
    pipeline.fill_outbox(lane="live", first=2, last=2, each=1)
    assert not drainer.catch_up(LONG)
    insert_large_consumers(pipeline, 12)
    del round_sizes[:]
    assert not drainer.catch_up(LONG)
    assert pipeline.waiting() == 0
    # Without rests, three rounds are enough.
    assert len(round_sizes) > 3


@pytest.fixture
def proxies(pipeline: Pipeline) -> Iterator[dict[str, Proxy]]:
    settings = pipeline.database.settings
    with Proxy(settings.database_url) as database, Proxy(settings.opensearch_url) as search:
        yield {"postgresql": database, "opensearch": search}


@pytest.mark.parametrize("failure", ["closed", "hanging", "cut off"])
@pytest.mark.parametrize("server", ["postgresql", "opensearch"])
def test_drain_continues_after_a_server_was_away(
    pipeline: Pipeline, proxies: dict[str, Proxy], monkeypatch: pytest.MonkeyPatch, server: str, failure: str
) -> None:
    monkeypatch.setitem(CONNECT_ARGS, "options", "-c statement_timeout=5s")
    monkeypatch.setitem(CONNECT_ARGS, "connect_timeout", 2)
    away = msgspec.structs.replace(pipeline.database.settings, database_url=proxies["postgresql"].address)
    writer = OpenSearch(proxies["opensearch"].address, timeout=2, max_retries=0, serializer=TextSerializer())
    engine = open_engine(away)
    drainer = Drainer(engine, writer, "live", NO_PAUSES)
    first = pipeline.insert_consumer()
    wait_until(lambda: not drainer.catch_up(LONG) and pipeline.visible() == {first}, what="the first document")
    second = pipeline.insert_consumer()
    if failure == "hanging":
        proxies[server].open(hanging=True)
    else:
        proxies[server].close()
    if failure == "cut off":
        proxies[server].open()
    else:
        for _ in range(3):
            drainer.catch_up(0.001)
        assert pipeline.waiting() == 1
        proxies[server].open()
    wait_until(lambda: not drainer.catch_up(LONG) and pipeline.visible() == {first, second}, what="both documents")
    assert pipeline.waiting() == 0
    writer.close()
    engine.dispose()
