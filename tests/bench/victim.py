"""A merchant who lists, searches and writes at a steady rate, and what the merchant sees of other merchants' load."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from tests.bench import wire
from tests.bench.open_loop import Answer, Due, send
from tests.bench.writes import person

RATES = {"lists": 8.0, "searches": 4.0, "writes": 4.0}
"""Requests per second."""
NAMES = ("jose", "smith", "emily", "garcia", "oliver", "muller", "kowalski", "zoe")
CLIENTS, TIMEOUT_SECONDS = 160, 12.0
"""Enough clients to send each request when due, even if none is answered within the timeout."""
LATE_WRITE_MILLISECONDS = 2000


class Merchant(NamedTuple):
    url: str
    key: str

    def get(self, path: str) -> bytes:
        return wire.get(self.url, f"/api/v1{path}", self.key)

    def write(self, method: str, path: str, body: object, headers: str = "") -> bytes:
        return wire.write(self.url, self.key, method, path, body, headers)


def steady(merchant: Merchant, seconds: float) -> list[Answer]:
    """Send the merchant's requests for a time."""
    first = time.time_ns() // 1000
    makes: dict[str, Callable[[int], bytes]] = {
        "lists": lambda _: merchant.get("/consumers?first=20"),
        "searches": lambda number: merchant.get(f"/consumers/search?q={NAMES[number % len(NAMES)]}"),
        "writes": lambda number: merchant.write("POST", "/consumers", person(first + number), "Prefer: wait=10\r\n"),
    }
    due = sorted(itertools.chain(*(_due(*each, seconds) for each in makes.items())), key=lambda each: each.second)
    return send(merchant.url, due, clients=CLIENTS, timeout=lambda: TIMEOUT_SECONDS)


def one_list(merchant: Merchant) -> Answer:
    """Send a list request now."""
    due = Due(0, "lists", lambda: merchant.get("/consumers?first=20"))
    return send(merchant.url, [due], clients=1, timeout=lambda: TIMEOUT_SECONDS)[0]


def _due(kind: str, make: Callable[[int], bytes], seconds: float) -> Iterator[Due]:
    """Yield the requests of a kind. The kinds start at different times, so that they do not stay in step."""
    start = list(RATES).index(kind) * 0.03
    for number in range(int(seconds * RATES[kind])):
        yield Due(start + number / RATES[kind], kind, partial(make, number))


class Figures(NamedTuple):
    """The p50 and p95 in milliseconds of a kind of request."""

    median: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} / {self.high:{spec}}"

    def times(self, quiet: "Figures") -> "Figures":
        """Return both figures as multiples of the quiet ones."""
        return Figures(self.median / quiet.median, self.high / quiet.high)


def figures(answers: Sequence[Answer], kind: str) -> Figures:
    times = [answer.milliseconds for answer in answers if answer.kind == kind]
    return Figures(statistics.median(times), statistics.quantiles(times, n=20)[-1])


class Failures(NamedTuple):
    server_errors: int
    """Answers with a status of 500 or above."""
    unanswered: int
    refused: int
    """Answers with another status than success, such as 429."""
    late_writes: int
    """Waited writes that took more than two seconds, or were not searchable when answered."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> "Failures":
        return cls(
            sum(answer.status >= 500 for answer in answers),
            sum(answer.status == 0 for answer in answers),
            sum(300 <= answer.status < 500 for answer in answers),
            sum(_is_late(answer) for answer in answers),
        )


def _is_late(answer: Answer) -> bool:
    """Return whether a waited write was not searchable within two seconds."""
    return answer.kind == "writes" and (
        answer.milliseconds > LATE_WRITE_MILLISECONDS or answer.index_state != "searchable"
    )
