"""Two drains, an update and a delete of one consumer, in every order of their steps: always the same end."""

from collections.abc import Callable, Iterator
from typing import LiteralString, NamedTuple

import pytest

from tests.guarantees.halting_round import HaltingRound, halting
from tests.guarantees.index_comparison import assert_agreement, differences
from tests.indexer.conftest import Pipeline

ACTORS = ("one", "other", "client")


class Run(NamedTuple):
    consumer: str
    order: tuple[str, ...]
    """Who took a step after whom; a drain's are claim, read, write and refresh, forgetting, commit."""
    choices: list[tuple[str, ...]]
    """At each place: the actors that could have gone on instead, and were not tried yet."""


def indexed_consumers(pipeline: Pipeline) -> Iterator[str]:
    insert: LiteralString = "INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, 100) RETURNING id"
    while True:
        found = [str(name) for (name,) in pipeline.run(insert)]
        pipeline.drain()
        yield from found


def orders(pipeline: Pipeline) -> Iterator[Run]:
    """All orders, depth first: what an actor can do depends on what the others did before."""
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
    """A consumer's story: as the prefix says, then always the first actor that can go on."""
    drains = {"one": HaltingRound(pipeline), "other": HaltingRound(pipeline)}
    changes: list[Callable[[], None]] = [
        lambda: pipeline.rename(consumer, "Renamed"),
        lambda: pipeline.delete(consumer),
    ]
    order: list[str] = []
    choices: list[tuple[str, ...]] = []
    begun = {"one": False, "other": False}
    while True:
        able = [actor for actor in ACTORS if (changes if actor == "client" else not drains[actor].over)]
        if not begun["one"]:
            able = [actor for actor in able if actor != "other"]  # the two are alike: one of them comes first
        if not able:
            break
        actor = prefix[len(order)] if len(order) < len(prefix) else able[0]
        choices.append(tuple(able[able.index(actor) + 1 :]))
        order.append(actor)
        if actor == "client":
            changes.pop(0)()
        else:
            begun[actor] = True
            if drains[actor].go_on() == "write":
                drains[actor].go_on()
    pipeline.drain()
    return Run(consumer, tuple(order), choices)


@pytest.fixture
def steps() -> Iterator[None]:
    with halting():
        yield


@pytest.mark.usefixtures("steps")
def test_update_and_delete_end_the_same_whatever_the_order_of_two_drains_steps(drained_here: Pipeline) -> None:
    told = {run.consumer: " ".join(run.order) for run in orders(drained_here)}
    assert len(told) > 100
    wrong = set().union(*differences(drained_here.database))
    assert not wrong, [told.get(consumer, consumer) for consumer in wrong]
    assert_agreement(drained_here.database)
    assert not told.keys() & drained_here.visible(), "all were deleted"
