"""How long writes take over HTTP, beside the bare SQL of the same rows, by turns, in the shop's database."""

import http.client
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg

from tests.bench.bench import Bench
from tests.bench.shop import key

TURNS, BATCHES, BATCH = 400, 40, 500
INSERT = "INSERT INTO consumers (environment_id, email, phone, full_name, metadata) VALUES (%s, %s, %s, %s, %s)"
INSERT_BATCH = """
    INSERT INTO consumers (environment_id, email, phone, full_name, metadata)
    SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[])"""
INSERT_ORDER = """
    INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount)
    VALUES (%s, %s, %s, 'USD', %s)"""
SELECT = "SELECT * FROM consumers WHERE environment_id = %s AND id = %s"

_numbers = itertools.count(time.time_ns())

Row = dict[str, Any]


class Case(NamedTuple):
    name: str
    turns: int
    target: float | None
    """Milliseconds over HTTP at the median."""
    over_http: Callable[[], object]
    bare: Callable[[], object]


class Client:
    """One connection that is kept; as little of a client as there can be."""

    def __init__(self, url: str, key: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, f"/api/v1{path}", sent, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status in {200, 201}, (answer.status, content)
        return json.loads(content)


def person() -> Row:
    number = next(_numbers)
    return {
        "email": f"Person.{number}@example.com",
        "phone": f"+4420{number % 10**8:08}",
        "fullName": f"Person {number}",
        "metadata": {"tier": "gold", "number": number % 100},
    }


def columns(row: Row) -> tuple[Any, ...]:
    return row["email"], row["phone"], row["fullName"], json.dumps(row["metadata"])


def cases(client: Client, database: psycopg.Connection[Any]) -> list[Case]:
    known = client.ask("POST", "/consumers", person())["id"]
    [(environment,)] = database.execute("SELECT environment_id FROM consumers WHERE id = %s", [known]).fetchall()
    others = itertools.cycle([made["id"] for made in client.ask("POST", "/consumers/batch", people())])

    def bare_batch() -> None:
        database.execute(INSERT_BATCH, [environment, *map(list, zip(*map(columns, people()), strict=True))])

    return [
        Case(
            "POST /consumers",
            TURNS,
            6,
            lambda: client.ask("POST", "/consumers", person()),
            lambda: database.execute(INSERT, [environment, *columns(person())]),
        ),
        Case(
            "GET /consumers/:id",
            TURNS,
            3,
            lambda: client.ask("GET", f"/consumers/{known}"),
            lambda: database.execute(SELECT, [environment, known]).fetchone(),
        ),
        Case(
            "POST /orders",
            TURNS,
            None,
            lambda: client.ask("POST", "/orders", {"consumerId": next(others), "amount": "12.50"}),
            lambda: database.execute(INSERT_ORDER, [environment, next(others), "12.50", "12.50"]),
        ),
        Case(
            f"POST /consumers/batch of {BATCH}",
            BATCHES,
            60,
            lambda: client.ask("POST", "/consumers/batch", people()),
            bare_batch,
        ),
    ]


def people() -> list[Row]:
    return [person() for _ in range(BATCH)]


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def measured(case: Case) -> list[str]:
    """One row of the table."""
    for work in (case.over_http, case.bare):
        for _ in range(max(case.turns // 10, 3)):
            work()
    pairs = [(milliseconds(case.over_http), milliseconds(case.bare)) for _ in range(case.turns)]
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    tails = [statistics.quantiles(times, n=20)[-1] for times in zip(*pairs, strict=True)]
    figures = [f"{figure:.2f}" for figure in (medians[0], tails[0], medians[1], tails[1])]
    return [case.name, *figures, f"{medians[0] / medians[1]:.1f}", f"≤ {case.target:g}" if case.target else ""]


def measure(bench: Bench) -> None:
    """Writes of an organization of its own, beside the rows that are there; what indexes does not run."""
    shop = bench.shop
    with shop.account() as account, psycopg.connect(shop.address, autocommit=True) as database:
        rows = [measured(case) for case in cases(Client(shop.service.url, key(account)), database)]
    bench.report.say("Milliseconds, by turns; SQL: the same rows by one statement, with the triggers.")
    bench.report.table(["", "HTTP median", "HTTP p95", "SQL median", "SQL p95", "ratio", "target (median)"], rows)
    with shop.indexing():
        shop.settled()
