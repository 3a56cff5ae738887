"""The golden queries of golden.txt; its head describes the kinds of queries."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from infra.local.sample.consumers import Consumer, ulid

SEED, TWIN_SEED = 20_240_101, 20_240_102
START = datetime(2024, 1, 1, tzinfo=UTC)


class Golden(NamedTuple):
    """A consumer, and the queries about it, by kind."""

    consumer: Consumer
    queries: dict[str, list[str]]


class Case(NamedTuple):
    """A query, and the consumer that must or must not be found."""

    text: str
    expected: Consumer


@cache
def golden() -> tuple[Golden, ...]:
    """Read all golden consumers, by time and id."""
    return tuple(_records(Path(__file__).with_name("golden.txt"), Random(SEED)))


def cases(kind: str) -> list[Case]:
    """Return all queries of a kind."""
    return [Case(text, one.consumer) for one in golden() for text in one.queries.get(kind, ())]


def golden_consumers() -> list[Consumer]:
    """Return the golden consumers without their queries."""
    return [one.consumer for one in golden()]


def twins() -> list[Consumer]:
    """Return the golden consumers with other ids, for another environment."""
    random = Random(TWIN_SEED)
    return [one._replace(id=ulid(random, "cons_", one.created_at)) for one in golden_consumers()]


def _records(file: Path, random: Random) -> Iterator[Golden]:
    for number, record in enumerate(file.read_text("utf-8").strip().split("\n\n")[1:]):
        head, *lines = record.split("\n")
        name, email, phone, external_id = _fields(head)
        moment = START + timedelta(seconds=number)
        consumer = Consumer(
            id=ulid(random, "cons_", moment),
            created_at=moment,
            email=email,
            phone=phone,
            full_name=name,
            metadata=None,
            external_id=external_id,
        )
        yield Golden(consumer, {kind: _fields(queries) for kind, queries in (line.split(": ", 1) for line in lines)})


def _fields(line: str) -> list[str]:
    return line.split(" | ")
