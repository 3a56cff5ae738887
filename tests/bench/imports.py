"""Rows per second of imports, by number of orders, with the workers running; and writes of another merchant meanwhile.

Each order names a random consumer, so the rows of a chunk belong to nearly as many consumers: the most work for the
totals, and for the index. The totals are counted again at the end. Imports run in a process of their own, as the
command does: in the process of the other merchant's client, the client would wait for Python's lock.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from random import Random
from threading import Event, Thread

import sqlalchemy as sa

from infra.imports import kinds
from infra.imports.kinds import Kind
from infra.imports.run import connect, find_environment, run
from tests.bench.bench import Bench
from tests.bench.shop import Shop, key
from tests.bench.timing import exponent, spread
from tests.bench.wire import Connection
from tests.bench.writes import Writer, next_number
from tests.service import Account

SHARES = (1000, 100, 10, 1)
"""Orders of a file: the number given by `ORDERS`, or the size of the run, divided by each."""
LEAST_ORDERS = 1_000
ORDERS_PER_CONSUMER = int(os.environ.get("ORDERS_PER_CONSUMER", "3"))
SECONDS_ALONE = 5.0
PAUSE_SECONDS = 0.02
"""Between two writes of the other merchant."""
WRONG_TOTALS = sa.text("""
    SELECT count(*) FROM consumers c LEFT JOIN (
        SELECT consumer_id, count(*) AS number, sum(value) AS value, max(placed_at) AS newest
        FROM orders WHERE environment_id = :environment AND counts GROUP BY consumer_id) o ON o.consumer_id = c.id
    WHERE c.environment_id = :environment AND (c.total_orders, c.total_order_value, c.last_order_at)
        IS DISTINCT FROM (coalesce(o.number, 0), coalesce(o.value, 0), o.newest)""")


class Writes:
    """Writes of another merchant, one after the other, in a thread."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._end = writer, Event()
        self.milliseconds: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = Thread(target=self._write)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _write(self) -> None:
        with Connection(self._writer.url) as api:
            while not self._end.wait(PAUSE_SECONDS):
                (request,) = self._writer.post(next_number())
                started = time.perf_counter()
                api.ask(request)
                self.milliseconds.append((time.perf_counter() - started) * 1000)


def measure(bench: Bench) -> None:
    largest = int(os.environ.get("ORDERS", bench.size))
    shop, rows, sizes = bench.shop, [], [largest // share for share in SHARES if largest // share >= LEAST_ORDERS]
    rates: list[float] = []
    with (
        shop.indexing(),
        shop.account() as neighbour,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        writer = Writer(shop.service.url, key(neighbour), neighbour.live_environment, ())
        for size in sizes:
            shop.settled()
            with shop.account() as account:
                alone, beside = Writes(writer), Writes(writer)
                file = bench.folder / "import.csv"
                consumers = max(1, size // ORDERS_PER_CONSUMER)
                people = rate(process, shop, account, kinds.CONSUMERS, consumers_file(file, consumers))
                shop.settled()
                with alone.running():
                    time.sleep(SECONDS_ALONE)
                with beside.running():
                    rates.append(rate(process, shop, account, kinds.ORDERS, orders_file(file, size, consumers)))
                again = rate(process, shop, account, kinds.ORDERS, file)
                assert wrong_totals(shop, account) == 0
                file.unlink()
            times = [spread(each.milliseconds) for each in (alone, beside)]
            ratio = times[1].median / times[0].median
            figures = [f"{people:,.0f}", f"{rates[-1]:,.0f}", f"{again:,.0f}"]
            rows.append([f"{size:,}", *figures, f"{times[0]:.1f}", f"{times[1]:.1f}", f"{ratio:.2f}"])
    bench.report.say(
        f"Rows per second, {ORDERS_PER_CONSUMER} orders per consumer in random order; the times are medians (p10–p90) "
        f"of POSTs of another merchant, in ms. Exponent of the rate of orders: {exponent(sizes, rates):.2f}. All "
        "totals are exact."
    )
    head = ["orders", "consumers", "orders/s", "the same file again", "POST alone", "POST beside", "ratio"]
    bench.report.table(head, rows)


def consumers_file(path: Path, consumers: int) -> Path:
    with path.open("w") as file:
        file.write("externalId,email,fullName\n")
        file.writelines(f"C-{number},person-{number}@example.com,Person {number}\n" for number in range(consumers))
    return path


def orders_file(path: Path, orders: int, consumers: int) -> Path:
    random = Random(orders)
    with path.open("w") as file:
        file.write("externalId,consumerExternalId,amount,placedAt\n")
        for number in range(orders):
            moment = f"2024-{number % 12 + 1:02}-{number % 28 + 1:02}T{number % 24:02}:00:00Z"
            amount = random.randrange(500, 30_000) / 100
            file.write(f"O-{number},C-{random.randrange(consumers)},{amount:.2f},{moment}\n")
    return path


def rate(process: Executor, shop: Shop, account: Account, kind: Kind, file: Path) -> float:
    """Import a file into the live environment of an account, in a process; return the rows per second."""
    return process.submit(import_file, shop.address, account.name, kind, file).result()


def import_file(address: str, organization: str, kind: Kind, file: Path) -> float:
    with closing(connect(address)) as connection:
        environment = find_environment(connection, organization, "live")
        started = time.perf_counter()
        counts = run(connection, file, kind, environment)
        assert counts.rejected == 0
        return counts.read / (time.perf_counter() - started)


def wrong_totals(shop: Shop, account: Account) -> int:
    with shop.database.engine.connect() as connection:
        return int(connection.execute(WRONG_TOTALS, {"environment": account.live_environment}).scalar_one())
