"""Any history of writes, drains, deaths and late documents ends with index = database."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, LiteralString, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from opensearchpy.exceptions import NotFoundError

from tests.guarantees.halting_round import HaltingRound, halting
from tests.guarantees.index_comparison import assert_agreement
from tests.indexer.conftest import Pipeline

PLACES = st.integers(0, 11)
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


class Late(NamedTuple):
    """A document as it once was, on its way still."""

    consumer: str
    version: int
    source: bytes


class Histories(RuleBasedStateMachine):
    """Against one database and index; whatever an example leaves is cleared by the next."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.known: list[str] = []
        self.rounds: list[HaltingRound] = []
        self.late: list[Late] = []

    @initialize()
    def clear(self) -> None:
        for table in ("consumers", "audiences", "outbox"):
            self.pipeline.run(f"DELETE FROM {table}")
        search = self.pipeline.database.search
        everything: dict[str, Any] = {"query": {"match_all": {}}}
        search.delete_by_query(index=self.pipeline.index_name, body=everything, params={"refresh": "true"})
        self.pipeline.run("INSERT INTO audiences (environment_id, name, type) VALUES (:e, 'Friends', 'STATIC')")

    @rule(statement=st.sampled_from(list(STATEMENTS)), place=PLACES, name=NAMES, lane=LANES)
    def write(self, statement: str, place: int, name: str, lane: str) -> None:
        consumer = self.known[place % len(self.known)] if self.known else "cons_00000000000000000000000000"
        with self.pipeline.database.engine.begin() as connection:
            connection.execute(sa.text("SELECT set_config('consumers.lane', :lane, true)"), {"lane": lane})
            values: dict[str, Any] = {"e": self.pipeline.environment, "id": consumer, "name": name}
            result = connection.execute(sa.text(STATEMENTS[statement]), values)
            made = list(result.scalars()) if result.returns_rows else []
        self.known += [name for name in made if name not in self.known]

    @rule(lane=LANES, rows=ROWS)
    def drain(self, lane: str, rows: int) -> None:
        self.pipeline.round(lane, rows)

    @precondition(lambda self: len(self.rounds) < MOST_ROUNDS)
    @rule(lane=LANES, rows=ROWS, steps=st.integers(1, 5))
    def drain_a_part(self, lane: str, rows: int, steps: int) -> None:
        """A round that halts somewhere, and stays so for a while."""
        halted = HaltingRound(self.pipeline, lane, rows)
        self.rounds.append(halted)
        self._go_on(halted, steps)

    @precondition(lambda self: self.rounds)
    @rule(place=PLACES, steps=st.integers(1, 5))
    def go_on(self, place: int, steps: int) -> None:
        self._go_on(self.rounds[place % len(self.rounds)], steps)

    @precondition(lambda self: self.rounds)
    @rule(place=PLACES)
    def kill(self, place: int) -> None:
        self.rounds.pop(place % len(self.rounds)).kill()

    @rule(place=PLACES)
    def remember(self, place: int) -> None:
        """What the index says of a consumer now may be sent again, much later."""
        if self.known:
            consumer = self.known[place % len(self.known)]
            with suppress(NotFoundError):
                found = self.pipeline.database.search.get(index=self.pipeline.index_name, id=consumer)
                self.late.append(Late(consumer, found["_version"], self.pipeline.source(consumer)))

    @precondition(lambda self: self.late)
    @rule(place=PLACES)
    def replay(self, place: int) -> None:
        assert self.pipeline.write_by_hand(*self.late[place % len(self.late)]) in {200, 409}

    @rule()
    def rest(self) -> None:
        for halted in self.rounds:
            halted.finish()
        self.rounds.clear()
        self.pipeline.drain()
        assert_agreement(self.pipeline.database)

    def teardown(self) -> None:
        try:
            self.rest()
        finally:
            for halted in self.rounds:
                halted.kill()

    def _go_on(self, halted: HaltingRound, steps: int) -> None:
        for _ in range(steps):
            if not halted.over:
                halted.go_on()
        if halted.over:
            self.rounds.remove(halted)


@pytest.fixture
def steps() -> Iterator[None]:
    with halting():
        yield


@pytest.mark.usefixtures("steps")
def test_any_history_of_writes_and_drains_ends_with_the_index_as_the_database(drained_here: Pipeline) -> None:
    run_state_machine_as_test(
        lambda: Histories(drained_here),  # type: ignore[arg-type]  # whatever makes one will do
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
