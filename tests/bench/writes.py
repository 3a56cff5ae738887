"""Time of writes over HTTP, writes per second, and the effect of outages of OpenSearch.

Times are compared with SQL for the same rows, with and without triggers, in alternation. The ids of these rows are made
beforehand, because the API does not leave them to PostgreSQL either.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
import psycopg
import sqlalchemy as sa

from infra.ids import new_ids
from infra.local.server import wait_ready
from infra.local.servers import LocalServers
from tests.bench import wire
from tests.bench.bench import Bench
from tests.bench.clients import Clients, HTTPClient, Open, SQLClient, run
from tests.bench.shop import Shop, key
from tests.bench.timing import Work, by_turns, spread, tail
from tests.bench.trigrams import Statement
from tests.bench.wire import Connection

TURNS, BATCHES, BATCH = 200, 30, 500
BLOCKS, WARM_UP = 10, 3
"""Blocks of statements with triggers, and as many without; each change of the triggers invalidates cached plans."""
CLIENTS, SPELLS, SPELL_SECONDS = (1, 4, 16), 3, 0.6
MANY = 1_000
"""Number of consumers to change and to place orders for."""
TABLES = ("consumers", "orders")
INSERT = "INSERT INTO consumers (environment_id, id, email, phone, full_name, metadata) VALUES (%s, %s, %s, %s, %s, %s)"
INSERT_BATCH = """
    INSERT INTO consumers (environment_id, id, email, phone, full_name, metadata)
    SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[])"""
UPDATE = """
    UPDATE consumers SET email = %s, phone = %s, full_name = %s, metadata = metadata || %s::jsonb
    WHERE environment_id = %s AND id = %s"""
INSERT_ORDER = """
    INSERT INTO orders (environment_id, id, consumer_id, amount, currency_code, base_amount)
    VALUES (%s, %s, %s, 12.50, 'USD', 12.50)"""
SELECT = "SELECT * FROM consumers WHERE environment_id = %s AND id = %s"
RECORD_CHANGES = sa.text("UPDATE consumers SET version = version + 1 WHERE environment_id = :environment_id")

_numbers = itertools.count(time.time_ns() // 1000 * BATCH)


def person(number: int) -> dict[str, Any]:
    return {
        "email": f"Person.{number}@example.com",
        "phone": f"+4420{number % 10**8:08}",
        "fullName": f"Person {number}",
        "metadata": {"tier": "gold", "number": number % 100},
    }


def people(number: int) -> list[dict[str, Any]]:
    return [person(number + offset) for offset in range(BATCH)]


def columns(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["email"], row["phone"], row["fullName"], json.dumps(row["metadata"])


class Writer(NamedTuple):
    """Makes a request and the equivalent SQL statement from a number."""

    url: str
    key: str
    environment: int
    consumers: Sequence[str]

    def consumer(self, number: int) -> str:
        # In pseudo-random order: with a common order, two clients would lock the same rows and wait for each other.
        return self.consumers[crc32(str(number).encode()) % len(self.consumers)]

    def post(self, number: int) -> list[bytes]:
        return [wire.write(self.url, self.key, "POST", "/consumers", person(number))]

    def insert(self, number: int) -> Statement:
        return INSERT, (self.environment, *new_ids("cons_", 1), *columns(person(number)))

    def put(self, number: int) -> list[bytes]:
        return [wire.write(self.url, self.key, "PUT", f"/consumers/{self.consumer(number)}", person(number))]

    def update(self, number: int) -> Statement:
        return UPDATE, (*columns(person(number)), self.environment, self.consumer(number))

    def post_order(self, number: int) -> list[bytes]:
        order = {"consumerId": self.consumer(number), "amount": "12.50"}
        return [wire.write(self.url, self.key, "POST", "/orders", order)]

    def insert_order(self, number: int) -> Statement:
        return INSERT_ORDER, (self.environment, *new_ids("ord_", 1), self.consumer(number))

    def post_batch(self, number: int) -> list[bytes]:
        return [wire.write(self.url, self.key, "POST", "/consumers/batch", people(number))]

    def insert_batch(self, number: int) -> Statement:
        values = map(list, zip(*map(columns, people(number)), strict=True))
        return INSERT_BATCH, (self.environment, new_ids("cons_", BATCH), *values)

    def get(self, number: int) -> list[bytes]:
        return [wire.get(self.url, f"/api/v1/consumers/{self.consumer(number)}", self.key)]

    def select(self, number: int) -> Statement:
        return SELECT, (self.environment, self.consumer(number))


class Case(NamedTuple):
    name: str
    turns: int
    target: float | None
    """Target for the median over HTTP, in milliseconds."""
    request: Callable[[int], list[bytes]]
    statement: Callable[[int], Statement]
    fires: bool = True
    """Whether the statement fires triggers."""


def cases(writer: Writer) -> list[Case]:
    return [
        Case("POST /consumers", TURNS, 6, writer.post, writer.insert),
        Case("PUT /consumers/:id", TURNS, None, writer.put, writer.update),
        Case("POST /orders", TURNS, None, writer.post_order, writer.insert_order),
        Case(f"POST /consumers/batch of {BATCH}", BATCHES, 60, writer.post_batch, writer.insert_batch),
        Case("GET /consumers/:id", TURNS, 3, writer.get, writer.select, fires=False),
    ]


def measure(bench: Bench) -> None:
    shop, report = bench.shop, bench.report
    with shop.account() as account, psycopg.connect(shop.address, autocommit=True) as sql:
        writer = Writer(shop.service.url, key(account), account.live_environment, ())
        with Connection(writer.url) as api:
            created = [api.ask(writer.post_batch(next_number())[0]) for _ in range(MANY // BATCH)]
            ids = [row["id"] for batch in created for row in msgspec.json.decode(batch)]
            writer = writer._replace(consumers=ids)
            rows = [row_of(case, api, sql) for case in cases(writer)]
        report.say(
            f"{shop.consumers:,} stored consumers, no workers; milliseconds, in alternation: median (p10–p90). "
            "SQL: the same rows by one statement in a separate transaction; bare: with disabled triggers."
        )
        head = ["", "HTTP", "HTTP p99", "SQL", "ratio", "triggers", "bare", "cost of triggers", "target over HTTP"]
        report.table(head, rows)
        report.say(f"Writes per second by number of clients: median (min–max) of {SPELLS} runs.")
        report.table(["", *map(str, CLIENTS)], rates(bench.clients, writer, shop.address))
        with shop.database.engine.begin() as connection:
            # Record the changes made with disabled triggers.
            connection.execute(RECORD_CHANGES, {"environment_id": writer.environment})
        with shop.indexing():
            shop.settled()
            report.say(f"POST /consumers and GET /health/ready with running workers; milliseconds, {TURNS} requests.")
            head = ["OpenSearch", "POST: median (p10–p90)", "p99", "ready: median (p10–p90)", "p99"]
            report.table(head, [*beside_outages(bench.servers, shop, writer)])
            shop.settled()


def next_number() -> int:
    """Return the first of a range of numbers for a batch."""
    return next(_numbers) * BATCH


def row_of(case: Case, api: Connection, sql: psycopg.Connection[Any]) -> list[str]:
    def over_http(_: int) -> None:
        for request in case.request(next_number()):
            api.ask(request)

    ways = {"http": over_http, "sql": lambda _: run(sql, case.statement(next_number()))}
    times = by_turns(ways, case.turns, warm_up=max(case.turns // 10, 3))
    http, beside = spread(times["http"]), spread(times["sql"])
    figures = [f"{http:.2f}", f"{tail(times['http']):.1f}", f"{beside:.2f}", f"{http.median / beside.median:.1f}"]
    target = f"≤ {case.target:g}" if case.target else ""
    return [case.name, *figures, *(trigger_cost(case, sql) if case.fires else ["", "", ""]), target]


def trigger_cost(case: Case, sql: psycopg.Connection[Any]) -> list[str]:
    """Measure the statement with and without triggers, in alternating blocks."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for fires in [True, False] * BLOCKS:
        with triggers(sql, fires=fires):
            for turn in range(-WARM_UP, case.turns // BLOCKS):
                statement = case.statement(next_number())
                started = time.perf_counter()
                run(sql, statement)
                if turn >= 0:
                    times[fires].append((time.perf_counter() - started) * 1000)
    with_them, bare = spread(times[True]), spread(times[False])
    added = with_them.median - bare.median
    return [f"{with_them:.2f}", f"{bare:.2f}", f"{added:.2f} ms, × {with_them.median / bare.median:.2f}"]


@contextmanager
def triggers(sql: psycopg.Connection[Any], *, fires: bool) -> Iterator[None]:
    """Enable or disable the triggers; foreign keys are always checked."""
    try:
        if not fires:
            for table in TABLES:
                sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        yield
    finally:
        for table in TABLES:
            sql.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())


def rates(clients: Clients, writer: Writer, address: str) -> list[list[str]]:
    ways: dict[str, Open] = {
        "POST /consumers": partial(HTTPClient, writer.url, writer.post),
        "its INSERT": partial(SQLClient, address, writer.insert),
        "PUT /consumers/:id": partial(HTTPClient, writer.url, writer.put),
        "its UPDATE": partial(SQLClient, address, writer.update),
    }
    cells: dict[str, list[str]] = {name: [] for name in ways}
    for number in CLIENTS:
        spells: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(SPELLS):
            for name, way in ways.items():
                spells[name].append(clients.busy(way, number, SPELL_SECONDS))
        for name, each in spells.items():
            cells[name].append(f"{spread(each):,.0f}")
    return [[name, *figures] for name, figures in cells.items()]


def beside_outages(servers: LocalServers, shop: Shop, writer: Writer) -> Iterator[list[str]]:
    """Yield a row for each state of OpenSearch."""
    search = servers.opensearch
    with Connection(shop.service.url) as api:
        yield ["running", *_answered(api, writer)]
        os.kill(search.pid, signal.SIGSTOP)
        try:
            yield ["hanging", *_answered(api, writer)]
        finally:
            os.kill(search.pid, signal.SIGCONT)
        search.kill()
        try:
            yield ["killed", *_answered(api, writer)]
        finally:
            search.spawn()
            wait_ready([search])


def _answered(api: Connection, writer: Writer) -> list[str]:
    ready = wire.get(writer.url, "/health/ready", writer.key)
    ways: dict[str, Work] = {
        "post": lambda _: api.ask(writer.post(next_number())[0]),
        "ready": lambda _: api.ask(ready),
    }
    return [text for times in by_turns(ways, TURNS).values() for text in (f"{spread(times):.2f}", f"{tail(times):.1f}")]
