"""Any history of writes, drains, killed rounds and late documents ends with an index equal to the database."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, LiteralString, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from opensearchpy.exceptions import NotFoundError

from tests.guarantees.halting_round import HaltingRound, halting_rounds
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline

INDEXES = st.integers(0, 11)
NAMES = st.sampled_from(["Ann", "Bo", "Zoë"])
LANES = st.sampled_from(["live", "live", "bulk"])
ROWS = st.sampled_from([1, 2, 1000])
MOST_ROUNDS = 3
STATEMENTS: dict[str, LiteralString] = {
    "insert": "INSERT INTO consumers (environment_id, full_name) VALUES (:e, :name) RETURNING id",
    "insert again": """INSERT INTO consumers (id, environment_id, full_name) VALUES (:id, :e, :name)
        ON CONFLICT DO NOTHING RETURNING id""",
    "batch": """INSERT INTO consumers (environment_id, full_name)
        SELECT :e, :name FROM generate_series(1, 3) RETURNING id""",
    "rename": "UPDATE consumers SET full_name = :name WHERE id = :id",
    "rename all": "UPDATE consumers SET full_name = :name WHERE environment_id = :e",
    "delete": "DELETE FROM consumers WHERE id = :id",
    "delete by name": "DELETE FROM consumers WHERE environment_id = :e AND full_name = :name",
    "order": """INSERT INTO orders (environment_id, consumer_id, amount, base_amount, currency_code)
        SELECT :e, id, 5, 5, 'USD' FROM consumers WHERE id = :id""",
    "cancel": "UPDATE orders SET status = 'CANCELLED' WHERE consumer_id = :id",
    "join": """INSERT INTO audience_members (environment_id, audience_id, consumer_id)
        SELECT :e, a.id, c.id FROM audiences a, consumers c WHERE a.environment_id = :e AND c.id = :id
        ON CONFLICT DO NOTHING""",
    "leave": "DELETE FROM audience_members WHERE consumer_id = :id",
}


class LateDocument(NamedTuple):
    """An old document with a write that has not arrived yet."""

    consumer: str
    version: int
    source: bytes


class Histories(RuleBasedStateMachine):
    """Histories on one database and index; each example first deletes the data of the example before."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.ids: list[str] = []
        self.rounds: list[HaltingRound] = []
        self.late_documents: list[LateDocument] = []

    @initialize()
    def clear(self) -> None:
        for table in ("consumers", "audiences", "outbox"):
            self.pipeline.run(f"DELETE FROM {table}")
        search = self.pipeline.database.search
        everything: dict[str, Any] = {"query": {"match_all": {}}}
        search.delete_by_query(index=self.pipeline.index_name, body=everything, params={"refresh": "true"})
        self.pipeline.run("INSERT INTO audiences (environment_id, name, type) VALUES (:e, 'Friends', 'STATIC')")

    @rule(statement=st.sampled_from(list(STATEMENTS)), index=INDEXES, name=NAMES, lane=LANES)
    def write(self, statement: str, index: int, name: str, lane: str) -> None:
        consumer = self.ids[index % len(self.ids)] if self.ids else "cons_00000000000000000000000000"
        with self.pipeline.database.engine.begin() as connection:
            connection.execute(sa.text("SELECT set_config('consumers.lane', :lane, true)"), {"lane": lane})
            values: dict[str, Any] = {"e": self.pipeline.environment, "id": consumer, "name": name}
            result = connection.execute(sa.text(STATEMENTS[statement]), values)
            created = list(result.scalars()) if result.returns_rows else []
        self.ids += [name for name in created if name not in self.ids]

    @rule(lane=LANES, rows=ROWS)
    def drain(self, lane: str, rows: int) -> None:
        self.pipeline.round(lane, rows)

    @precondition(lambda self: len(self.rounds) < MOST_ROUNDS)
    @rule(lane=LANES, rows=ROWS, steps=st.integers(1, 5))
    def drain_partly(self, lane: str, rows: int, steps: int) -> None:
        """Start a round that halts after some steps."""
        halted = HaltingRound(self.pipeline, lane, rows)
        self.rounds.append(halted)
        self._continue(halted, steps)

    @precondition(lambda self: self.rounds)
    @rule(index=INDEXES, steps=st.integers(1, 5))
    def continue_round(self, index: int, steps: int) -> None:
        self._continue(self.rounds[index % len(self.rounds)], steps)

    @precondition(lambda self: self.rounds)
    @rule(index=INDEXES)
    def kill(self, index: int) -> None:
        self.rounds.pop(index % len(self.rounds)).kill()

    @rule(index=INDEXES)
    def keep_document(self, index: int) -> None:
        """Keep the current document of a consumer, to be sent again later."""
        if self.ids:
            consumer = self.ids[index % len(self.ids)]
            with suppress(NotFoundError):
                params = {"routing": self.pipeline.routing}
                hit = self.pipeline.database.search.get(index=self.pipeline.index_name, id=consumer, params=params)
                self.late_documents.append(LateDocument(consumer, hit["_version"], self.pipeline.source(consumer)))

    @precondition(lambda self: self.late_documents)
    @rule(index=INDEXES)
    def replay(self, index: int) -> None:
        assert self.pipeline.write_by_hand(*self.late_documents[index % len(self.late_documents)]) in {200, 409}

    @rule()
    def settle(self) -> None:
        for halted in self.rounds:
            halted.finish()
        self.rounds.clear()
        self.pipeline.drain()
        assert_index_equals_database(self.pipeline.database)

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            for halted in self.rounds:
                halted.kill()

    def _continue(self, halted: HaltingRound, steps: int) -> None:
        for _ in range(steps):
            if not halted.is_over:
                halted.step_on()
        if halted.is_over:
            self.rounds.remove(halted)


@pytest.fixture
def steps() -> Iterator[None]:
    with halting_rounds():
        yield


@pytest.mark.usefixtures("steps")
def test_any_history_of_writes_ends_with_index_equal_to_database(shared_pipeline: Pipeline) -> None:
    run_state_machine_as_test(
        lambda: Histories(shared_pipeline),  # type: ignore[arg-type]  # any function that returns a machine works
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
