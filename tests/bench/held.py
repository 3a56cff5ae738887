"""Deleted outbox rows under a held snapshot: times of requests and of statements, beside the times without.

`DEAD=7000000` sets the number of deleted rows (default 1,000,000), and `DEAD_ENVIRONMENTS=100000` the number of their
environments (default 1,000). The first environments are those of the measured merchants.
"""

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa

from api import freshness
from indexer.drain import claims
from infra.database.floors import USE_INDEX_ORDER
from infra.operations import outbox
from tests.bench import wire
from tests.bench.bench import Bench
from tests.bench.open_loop import Answer, Due, send
from tests.bench.report import progress
from tests.bench.shop import Shop, key
from tests.bench.victim import Figures, Merchant, figures
from tests.bench.writes import person
from tests.waiting import wait_until

DEAD, DEAD_ENVIRONMENTS, CONSUMERS = 1_000_000, 1_000, 200_000
SECONDS, WARM_UP_SECONDS, STATEMENTS_SECONDS = 20.0, 3.0, 0.1
CLIENTS, TIMEOUT_SECONDS = 64, 30.0
RATES = {"POST until searchable": 3.0, "list": 5.0, "list with token": 3.0, "busy merchant's POST": 10.0}
"""Requests per second."""
LIMIT = 2
"""The most that a time may grow."""
FILL = """
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT 1 + n %% %(environments)s::int, 'cons_' || lpad((n %% %(consumers)s::int)::text, 26, '0'), n, 'live'
    FROM generate_series(1, %(rows)s::bigint) AS n"""
FLOOR = sa.text("""
    SELECT coalesce(max(seq), 0) > CAST(:seq AS bigint) FROM outbox_floors WHERE lane = 'live'""")
LAST = sa.text("SELECT coalesce(pg_sequence_last_value('outbox_seq_seq'), 0)")


class Measured(NamedTuple):
    times: dict[str, Figures]
    """By kind of request, or statement."""
    failed: int
    """Requests with another status than 200 or 201."""


class Merchants(NamedTuple):
    """The merchant who lists, and a busy merchant."""

    usual: Merchant
    busy: Merchant
    environment: int

    def token(self, number: int) -> str:
        """Create a consumer, and return the consistency token."""
        with wire.Connection(self.usual.url) as api:
            head, _ = api.exchange(self.usual.write("POST", "/consumers", person(number)))
        token = wire.header(head, "consistency-token")
        assert token
        return token


def measure(bench: Bench) -> None:
    shop = bench.shop
    dead, environments = (
        int(os.environ.get(name) or default)
        for name, default in (("DEAD", DEAD), ("DEAD_ENVIRONMENTS", DEAD_ENVIRONMENTS))
    )
    with shop.account() as usual, shop.account() as busy:
        merchants = Merchants(
            Merchant(shop.service.url, key(usual)), Merchant(shop.service.url, key(busy)), usual.live_environment
        )
        before = measured(shop, merchants)
        with held_snapshot(shop, dead, environments):
            beside = measured(shop, merchants)
        vacuum(shop)
        after = measured(shop, merchants)
    factors = {
        kind: beside.times[kind].median / min(before.times[kind].median, after.times[kind].median)
        for kind in beside.times
    }
    each = (before, beside, after)
    rows = [
        [kind, *(f"{part.times[kind]:.1f}" for part in each), f"× {factor:.1f}"] for kind, factor in factors.items()
    ]
    rows.append(["failed requests", *(str(part.failed) for part in each), ""])
    rates = ", ".join(f"{rate:.0f} {kind}" for kind, rate in RATES.items())
    bench.report.say(
        f"{dead:,} deleted outbox rows of {environments:,} environments, kept by a snapshot; {shop.consumers:,} stored "
        "consumers. Milliseconds, p50 / p95: before, beside the rows, and after a VACUUM. The ratio is the p50 beside "
        f"the rows to the faster of the others. Requests per second: {rates}."
    )
    bench.report.table(["", "before", "beside the rows", "after", "ratio"], rows)
    slow = [kind for kind in RATES if factors[kind] > LIMIT]
    bench.report.say(f"Target: requests at most × {LIMIT}. Not met: {', '.join(slow) or 'none'}.")


@contextmanager
def held_snapshot(shop: Shop, rows: int, environments: int) -> Iterator[None]:
    """Hold a snapshot, and add and delete rows meanwhile. No worker runs."""
    with psycopg.connect(shop.address) as snapshot, psycopg.connect(shop.address, autocommit=True) as connection:
        snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        snapshot.execute("SELECT FROM consumers LIMIT 1")
        started = time.monotonic()
        connection.execute(FILL, {"environments": environments, "consumers": CONSUMERS, "rows": rows})
        connection.execute("DELETE FROM outbox")
        progress(f"{rows:,} rows added and deleted in {time.monotonic() - started:.0f} s")
        yield


def vacuum(shop: Shop) -> None:
    with psycopg.connect(shop.address, autocommit=True) as connection:
        connection.execute("VACUUM outbox")


def measured(shop: Shop, merchants: Merchants) -> Measured:
    """Run the workers, and measure once the floor has passed the deleted rows."""
    with shop.indexing():
        shop.service.wait_for_worker()
        with shop.database.engine.connect() as connection:
            last = connection.execute(LAST).scalar_one()
        wait_until(lambda: _has_passed(shop, last), 120, "the floor")
        answers(merchants, WARM_UP_SECONDS)
        statements: dict[str, list[float]] = {}
        over = threading.Event()
        timing = threading.Thread(target=time_statements, args=(shop, merchants.environment, statements, over))
        timing.start()
        try:
            given = answers(merchants, SECONDS)
        finally:
            over.set()
            timing.join()
        shop.settled()
    times = {kind: figures(given, kind) for kind in RATES}
    times |= {name: _figures(values) for name, values in statements.items()}
    return Measured(times, sum(answer.status not in {200, 201} for answer in given))


def _has_passed(shop: Shop, last: int) -> bool:
    with shop.database.engine.connect() as connection:
        return bool(connection.execute(FLOOR, {"seq": last}).scalar_one()) or not last


def _figures(values: Sequence[float]) -> Figures:
    return Figures(statistics.median(values), statistics.quantiles(values, n=20)[-1])


def answers(merchants: Merchants, seconds: float) -> list[Answer]:
    """Send the requests of both merchants for a time."""
    numbers = itertools.count(time.time_ns() // 1000)
    token = merchants.token(next(numbers))
    usual, busy = merchants.usual, merchants.busy
    with_token = wire.get(
        usual.url, "/api/v1/consumers?first=20", usual.key, f"Consistency-Token: {token}\r\nPrefer: wait=10\r\n"
    )
    makes: dict[str, Callable[[int], bytes]] = {
        "POST until searchable": lambda n: usual.write("POST", "/consumers", person(n), "Prefer: wait=10\r\n"),
        "list": lambda _: usual.get("/consumers?first=20"),
        "list with token": lambda _: with_token,
        "busy merchant's POST": lambda n: busy.write("POST", "/consumers", person(n), f"Idempotency-Key: {n}\r\n"),
    }
    due = [
        Due((number + offset) / RATES[kind], kind, partial(make, next(numbers)))
        for offset, (kind, make) in zip((0.1, 0.3, 0.6, 0.8), makes.items(), strict=True)
        for number in range(int(seconds * RATES[kind]))
    ]
    due.sort(key=lambda each: each.second)
    return send(usual.url, due, clients=CLIENTS, timeout=lambda: TIMEOUT_SECONDS)


def time_statements(shop: Shop, environment: int, times: dict[str, list[float]], over: threading.Event) -> None:
    """Run the statements of the drain, the API and the metrics, until the end is signalled."""
    runs: dict[str, Callable[[sa.Connection], Any]] = {
        "claim (rolled back)": lambda connection: claims.claim(connection, "live"),
        "lag query": lambda connection: connection.execute(freshness.LAGS, {"environments": [environment]}).all(),
        "backlog of the metrics": outbox.backlog,
    }
    while not over.wait(STATEMENTS_SECONDS):
        for name, run in runs.items():
            with shop.database.engine.connect() as connection:
                connection.execute(USE_INDEX_ORDER)  # as the sessions of the API
                started = time.perf_counter()
                run(connection)
                times.setdefault(name, []).append((time.perf_counter() - started) * 1000)
                connection.rollback()
