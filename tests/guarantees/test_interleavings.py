"""Two drains, an update and a delete of a consumer, in every order of steps: always the same result."""

from collections.abc import Callable, Iterator
from typing import LiteralString, NamedTuple

import pytest

from tests.guarantees.halting_round import HaltingRound, halting_rounds
from tests.guarantees.index_comparison import assert_index_equals_database, find_differences
from tests.indexer.conftest import Pipeline

ACTORS = ("one", "other", "client")


class Run(NamedTuple):
    consumer: str
    order: tuple[str, ...]
    """The actor of each step; the steps of a drain are claim, read, write and refresh, forget, commit."""
    choices: list[tuple[str, ...]]
    """By step: the other actors that could have taken the step, and were not tried yet."""


def indexed_consumers(pipeline: Pipeline) -> Iterator[str]:
    insert: LiteralString = "INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, 100) RETURNING id"
    while True:
        ids = [str(name) for (name,) in pipeline.run(insert)]
        pipeline.drain()
        yield from ids


def orders(pipeline: Pipeline) -> Iterator[Run]:
    """Run all orders, depth first, because the steps open to an actor depend on the steps before."""
    prefix: list[str] = []
    for consumer in indexed_consumers(pipeline):
        run = play(pipeline, consumer, prefix)
        yield run
        taken = list(run.order)
        while taken and not (others := run.choices[len(taken) - 1]):
            taken.pop()
        if not taken:
            return
        prefix = [*taken[:-1], others[0]]


def play(pipeline: Pipeline, consumer: str, prefix: list[str]) -> Run:
    """Run an order: first the actors of the prefix, then always the first actor not done."""
    drains = {"one": HaltingRound(pipeline), "other": HaltingRound(pipeline)}
    changes: list[Callable[[], None]] = [
        lambda: pipeline.rename(consumer, "Renamed"),
        lambda: pipeline.delete(consumer),
    ]
    order: list[str] = []
    choices: list[tuple[str, ...]] = []
    begun = {"one": False, "other": False}
    while True:
        able = [actor for actor in ACTORS if (changes if actor == "client" else not drains[actor].is_over)]
        if not begun["one"]:
            able = [actor for actor in able if actor != "other"]  # the drains are equal, so `one` starts first
        if not able:
            break
        actor = prefix[len(order)] if len(order) < len(prefix) else able[0]
        choices.append(tuple(able[able.index(actor) + 1 :]))
        order.append(actor)
        if actor == "client":
            changes.pop(0)()
        else:
            begun[actor] = True
            if drains[actor].step_on() == "write":
                drains[actor].step_on()
    pipeline.drain()
    return Run(consumer, tuple(order), choices)


@pytest.fixture
def steps() -> Iterator[None]:
    with halting_rounds():
        yield


@pytest.mark.usefixtures("steps")
def test_every_order_of_two_drains_steps_ends_the_same(shared_pipeline: Pipeline) -> None:
    orders_by_consumer = {run.consumer: " ".join(run.order) for run in orders(shared_pipeline)}
    assert len(orders_by_consumer) > 100
    wrong = set().union(*find_differences(shared_pipeline.database))
    assert not wrong, [orders_by_consumer.get(consumer, consumer) for consumer in wrong]
    assert_index_equals_database(shared_pipeline.database)
    assert not orders_by_consumer.keys() & shared_pipeline.visible(), "all were deleted"
