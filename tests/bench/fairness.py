"""Fairness of the drain: ages of waiting changes by environment, and the time of a claim by waiting environments."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import sqlalchemy as sa

from indexer.drain import claims
from infra.local.servers import LocalServers
from tests.bench.bench import Bench
from tests.bench.crowd import Rows, create_crowd, crowd
from tests.bench.report import progress
from tests.bench.shop import INDEXING
from tests.bench.timing import spread
from tests.indexer.conftest import FILL_OUTBOX
from tests.service import Database, Service, new_database

CROWDS, CHANGES_PER_SECOND, SECONDS = (1_100, 10_000), 3_000, 20.0
WARM_UP_SECONDS, SAMPLE_SECONDS = 5.0, 0.5
WAITING, CLAIMS = (10, 1_000, 10_000, 100_000), 10
LIMIT = 3
"""The age of the oldest waiting change of all environments, as a multiple of the median environment's."""
OLDEST = sa.text("""
    SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float8 FROM outbox
    WHERE parked_at IS NULL GROUP BY environment_id""")
COUNT = sa.text("SELECT count(*) FROM outbox")
EMPTY, ANALYZE = sa.text("DELETE FROM outbox"), sa.text("ANALYZE outbox")


class Ages(NamedTuple):
    """Seconds that the oldest waiting change of an environment has waited: of all waiting environments."""

    median: float
    highest: float


def measure(bench: Bench) -> None:
    bench.report.say(
        f"Environments that write {CHANGES_PER_SECOND:,} changes per second together, each at the same rate, for "
        f"{SECONDS:.0f} s. Seconds that the oldest waiting change of an environment has waited: the median of the "
        f"waiting environments and the highest, means of a sample every {SAMPLE_SECONDS} s. Target: at most × {LIMIT}."
    )
    head = [
        "environments",
        "written per second",
        "indexed per second",
        "median",
        "highest",
        "ratio",
        "highest at the end",
    ]
    bench.report.table(head, [_writing(bench, number) for number in CROWDS])
    bench.report.say(
        f"Milliseconds of a claim of {claims.ROWS:,} rows by number of waiting environments, {CLAIMS} claims. A claim "
        "begins in the middle of the environments."
    )
    bench.report.table(["environments", "median (p10–p90)"], _claims(bench.servers))


def _writing(bench: Bench, environments: int) -> list[str]:
    folder = bench.folder / f"fairness-{environments}"
    folder.mkdir()
    with new_database(bench.servers) as database:
        service = Service(database, folder)
        try:
            for name in INDEXING:
                service.start(name)
            create_crowd(database, environments)
            progress(f"{environments:,} environments write")
            load = Rows(database.settings.database_url, *crowd(database), every=environments / CHANGES_PER_SECOND)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                running = pool.submit(load.run, SECONDS)
                samples = _samples(database)
                rows = running.result()["rows"]
            with database.engine.connect() as connection:
                waiting = int(connection.execute(COUNT).scalar_one())
        finally:
            service.close()
    median, highest = (statistics.mean(each) for each in zip(*samples, strict=True))
    rates = [f"{rows / SECONDS:,.0f}", f"{(rows - waiting) / SECONDS:,.0f}"]
    ages = [f"{median:.2f}", f"{highest:.2f}", f"{highest / median:.1f}", f"{samples[-1].highest:.1f}"]
    return [f"{environments:,}", *rates, *ages]


def _samples(database: Database) -> list[Ages]:
    """Return the ages at regular times, after the first changes are indexed."""
    time.sleep(WARM_UP_SECONDS)
    end, samples = time.monotonic() + SECONDS - WARM_UP_SECONDS, []
    while time.monotonic() < end:
        with database.engine.connect() as connection:
            ages = list(connection.execute(OLDEST).scalars())
        if ages:
            samples.append(Ages(statistics.median(ages), max(ages)))
        time.sleep(SAMPLE_SECONDS)
    return samples


def _claims(servers: LocalServers) -> list[list[str]]:
    """Measure claims of the live lane, rolled back. Each environment has the same number of waiting changes."""
    rows = []
    with new_database(servers) as database, database.engine.connect() as connection:
        for environments in WAITING:
            each = max(1, claims.ROWS // environments)
            values = {"lane": "live", "first": 1, "last": environments, "each": each}
            with connection.begin():
                connection.execute(EMPTY)
                connection.execute(sa.text(FILL_OUTBOX), values)
                connection.execute(ANALYZE)
            times = [_claim_milliseconds(connection, environments // 2) for _ in range(CLAIMS)]
            rows.append([f"{environments:,}", f"{spread(times):.1f}"])
    return rows


def _claim_milliseconds(connection: sa.Connection, after: int) -> float:
    with connection.begin() as transaction:
        started = time.perf_counter()
        claims.claim(connection, "live", after=after)
        taken = time.perf_counter() - started
        transaction.rollback()
    return taken * 1000
