"""Deficit round-robin: every environment gets its share of the bytes, and none waits forever."""

from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.drain.round_robin import QUANTUM_BYTES, RoundRobin

ROUND_BYTES = 8 * QUANTUM_BYTES
LARGEST = 3 * QUANTUM_BYTES
READ_ROWS = 20
PAGE = 8

sizes = st.sampled_from([1000, 5000, 15_000, QUANTUM_BYTES, LARGEST])
backlogs = st.dictionaries(st.integers(1, 100), st.tuples(sizes, st.integers(1, 30)), min_size=1, max_size=20)
few_examples = settings(deadline=None, max_examples=30)


class Lane:
    """The backlog of a lane. All documents of an environment have the same size."""

    def __init__(self, backlog: Mapping[int, tuple[int, int]]) -> None:
        self.sizes = {environment: size for environment, (size, _) in backlog.items()}
        self.rows = {environment: rows for environment, (_, rows) in backlog.items()}
        self.indexed: Counter[int] = Counter()
        """Bytes by environment."""
        self.turns = RoundRobin(cursor=0)

    def ring(self) -> list[int]:
        """Return the waiting environments in the order of their next turns."""
        after = self.turns.cursor or 0
        waiting = [environment for environment, rows in self.rows.items() if rows]
        return sorted(waiting, key=lambda environment: (environment <= after, environment))

    def round(self) -> list[int]:
        """Index documents of the next `PAGE` environments, up to `ROUND_BYTES`; return the environments served."""
        ring = self.ring()
        queues = {
            environment: [f"{environment}/{n}" for n in range(self.rows[environment])] for environment in ring[:PAGE]
        }
        self.turns.begin(queues, others_wait=len(ring) > PAGE)
        indexed: Counter[int] = Counter()
        while taken := self.turns.take(READ_ROWS, ROUND_BYTES - indexed.total()):
            for consumer in taken:
                environment = int(consumer.partition("/")[0])
                self.turns.charge(consumer, self.sizes[environment])
                self.rows[environment] -= 1
                indexed[environment] += self.sizes[environment]
                if indexed.total() >= ROUND_BYTES:  # the following documents are not made
                    break
        self.indexed += indexed
        return list(indexed)


@given(backlogs)
@few_examples
def test_no_environment_is_passed_over_for_longer_than_its_debt(
    backlog: Mapping[int, tuple[int, int]],
) -> None:
    lane = Lane(backlog)
    passed_over: Counter[int] = Counter()
    while any(lane.rows.values()):
        ring = lane.ring()
        served = lane.round()
        assert served
        for environment in ring[: max(map(ring.index, served)) + 1]:
            passed_over[environment] = 0 if environment in served else passed_over[environment] + 1
            # A debt of `READ_ROWS` documents at most: a quantum is paid back in every turn.
            limit = READ_ROWS * lane.sizes[environment] // QUANTUM_BYTES
            assert passed_over[environment] <= limit


@given(backlogs)
@few_examples
def test_rounds_are_full_unless_environments_have_single_turns(backlog: Mapping[int, tuple[int, int]]) -> None:
    lane = Lane(backlog)
    while any(lane.rows.values()):
        waiting = sum(lane.sizes[environment] * rows for environment, rows in lane.rows.items())
        before = lane.indexed.total()
        lane.round()
        if not lane.turns.has_single_turns:
            assert lane.indexed.total() - before >= min(waiting, ROUND_BYTES)


def test_round_of_a_single_change_beside_a_large_backlog_is_short() -> None:
    lane = Lane({1: (15_000, 400), 2: (1000, 1)})
    lane.rows[2] = 0
    lane.round()
    assert lane.indexed[1] >= ROUND_BYTES
    lane.rows[2] = 1
    before = lane.indexed[1]
    served = lane.round()
    assert 2 in served
    assert lane.indexed[1] - before <= 2 * QUANTUM_BYTES


@given(st.lists(sizes, min_size=2, max_size=5), st.integers(5, 40))
@few_examples
def test_environments_index_equal_bytes_in_small_or_large_documents(some: list[int], rounds: int) -> None:
    # Each environment has more waiting documents than a round has room for.
    backlog = {environment: (size, 2 * ROUND_BYTES // size + 1) for environment, size in enumerate(some, 1)}
    lane = Lane(backlog)
    for _ in range(rounds):
        lane.rows = {environment: rows for environment, (_, rows) in backlog.items()}
        lane.round()
    # Independent of the number of rounds: a turn, a document, and documents taken by a wrong estimate.
    assert max(lane.indexed.values()) - min(lane.indexed[n] for n in lane.sizes) <= 2 * QUANTUM_BYTES + 9 * LARGEST


@given(backlogs)
@few_examples
def test_consumers_without_a_document_are_left_and_cost_nothing(backlog: Mapping[int, tuple[int, int]]) -> None:
    lane = Lane(backlog)
    queues = {environment: [f"{environment}/{n}" for n in range(rows)] for environment, rows in lane.rows.items()}
    lane.turns.begin(queues, others_wait=False)
    first = lane.turns.take(READ_ROWS, ROUND_BYTES)
    assert lane.turns.left == sum(lane.rows.values())
    lane.turns.charge(first[0], 100)
    assert lane.turns.left == sum(lane.rows.values()) - 1
    lane.turns.begin(queues, others_wait=False)
    assert lane.turns.take(READ_ROWS, ROUND_BYTES)[0] == first[0]


def test_everyone_is_served_after_a_whole_turn_of_each() -> None:
    """A round beside others may end then. A second change of a small environment must not wait for a further round."""
    turns = RoundRobin(cursor=0)
    turns.begin({1: [f"large {number}" for number in range(9)], 2: ["small 1", "small 2"]}, others_wait=False)
    served = []
    while taken := turns.take(READ_ROWS, ROUND_BYTES):
        for consumer in taken:
            turns.charge(consumer, QUANTUM_BYTES // 2 if consumer.startswith("large") else 100)
            served.append((consumer, turns.is_everyone_served))
    assert next(consumer for consumer, is_everyone_served in served if is_everyone_served) == "small 2"
