"""The golden queries: golden.txt, read. Its head says what each kind of query promises."""

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
    """One query, and the consumer that it must find, or must not."""

    text: str
    sought: Consumer


@cache
def golden() -> tuple[Golden, ...]:
    """All of them, by time and id."""
    return tuple(_records(Path(__file__).with_name("golden.txt"), Random(SEED)))


def cases(kind: str) -> list[Case]:
    """All queries of a kind."""
    return [Case(text, one.consumer) for one in golden() for text in one.queries.get(kind, ())]


def sought() -> list[Consumer]:
    """The consumers that are to be found."""
    return [one.consumer for one in golden()]


def twins() -> list[Consumer]:
    """The same people under other ids, for another environment."""
    random = Random(TWIN_SEED)
    return [one._replace(id=ulid(random, "cons_", one.created_at)) for one in sought()]


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
