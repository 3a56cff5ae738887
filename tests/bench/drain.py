"""Drain speed beside a bare `_bulk` of the same documents, in alternation, on separate servers.

`python -m tests.bench.drain` prints a Markdown table, and takes about a minute.
"""
# ruff: noqa: T201 (prints a table)

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain import bulk, claims
from indexer.drain.bulk import Document
from indexer.drain.loop import Drainer
from infra import logs, queue
from infra.database.engine import open_engine
from infra.index import documents, mapping, naming
from infra.index.client import open_writer
from infra.index.documents import ConsumerRow
from infra.local.servers import KEEPING, LocalServers
from tests.bench import population
from tests.indexer.conftest import new_pipeline
from tests.service import Database, new_database

CHANGES, TURNS, SECONDS = 20_000, 3, 60.0
COPIED = ("id", "email", "phone", "full_name", "metadata", "external_id", "created_at")
COPY = f"COPY consumers (environment_id, {', '.join(COPIED)}) FROM STDIN"
CHANGE = sa.text("UPDATE consumers SET version = version + 1")
ALL = sa.text(f"SELECT {documents.COLUMNS} FROM consumers c")


def insert(database: Database, environment_id: int) -> None:
    with (
        psycopg.connect(database.settings.database_url) as connection,
        connection.cursor() as cursor,
        cursor.copy(COPY.encode()) as copy,
    ):
        for person in population.people(environment_id, 0, CHANGES, CHANGES):
            copy.write_row((environment_id, *(getattr(person.row, name) for name in COPIED)))


@contextmanager
def bare_index(search: OpenSearch, name: str) -> Iterator[str]:
    """Create an index like a generation's, and yield its name."""
    body = {"settings": mapping.INDEX_SETTINGS, "mappings": mapping.MAPPING}
    search.indices.create(index=name, body=body | {"aliases": {naming.write_alias(name): {}}})
    try:
        yield name
    finally:
        search.indices.delete(index=name)


class Turn:
    """A turn: all consumers are changed, and the same documents are sent to the bare index."""

    def __init__(self, database: Database, clients: Sequence[OpenSearch], bare: str) -> None:
        """Take a client for each thread, and the name of the bare index."""
        self._client, self._second_client, self._bare = *clients, bare
        self._live = open_engine(database.settings, name="live")
        self._database = database
        with database.engine.connect() as connection:
            self._rows = [ConsumerRow._make(row) for row in connection.execute(ALL)]
        self._batch: list[Document] = []

    def change(self) -> None:
        """Change all consumers, for the next drain."""
        with self._database.engine.begin() as connection:
            connection.execute(CHANGE)

    def render(self) -> None:
        self._batch = [
            Document(row.environment_id, row.id, row.version, documents.document(row, ())) for row in self._rows
        ]

    def send(self) -> None:
        for part in self._parts():
            bulk.write(self._client, naming.write_alias(self._bare), part)
        bulk.refresh(self._client, self._bare)

    def send_and_refresh(self) -> None:
        for part in self._parts():
            bulk.write(self._client, naming.write_alias(self._bare), part)
            bulk.refresh(self._client, self._bare)

    def drain(self) -> None:
        """Drain as the worker does, with a second thread."""
        self._drain_by(Drainer(self._live, self._second_client, queue.LIVE))

    def drain_by_one_thread(self) -> None:
        self._drain_by(None)

    def _drain_by(self, assistant: Drainer | None) -> None:
        while Drainer(self._live, self._client, queue.LIVE, assistant=assistant).catch_up(SECONDS):
            pass
        self._live.dispose()

    def _parts(self) -> Iterator[list[Document]]:
        return (self._batch[first : first + claims.ROWS] for first in range(0, len(self._batch), claims.ROWS))


WORKS: dict[str, Callable[[Turn], None]] = {
    "row to document": Turn.render,
    "`_bulk` alone, one refresh at the end": Turn.send,
    "`_bulk` alone, a refresh per 1,000": Turn.send_and_refresh,
    "drain": Turn.drain,
    "drain, one thread": Turn.drain_by_one_thread,
}


def measure(database: Database, clients: Sequence[OpenSearch], bare: str) -> dict[str, list[float]]:
    """Return the seconds of each turn, by kind of work."""
    times: dict[str, list[float]] = {name: [] for name in WORKS}
    for turn in range(-1, TURNS):
        now = Turn(database, clients, bare)
        for name, work in WORKS.items():
            if name.startswith("drain"):
                now.change()
            started = time.perf_counter()
            work(now)
            if turn >= 0:
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    logs.configure("warning")  # without a line for each round
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(LocalServers(folder, KEEPING, environ={}))
        database = stack.enter_context(new_database(servers))
        pipeline = stack.enter_context(new_pipeline(database))
        insert(database, pipeline.environment)
        bare = stack.enter_context(bare_index(database.search, f"{database.settings.index_prefix}-bare"))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start\n")
        times = measure(database, [open_writer(database.settings) for _ in range(2)], bare)
        print(f"| {CHANGES:,} changed consumers | per second, median | slowest | fastest |\n|---|---|---|---|")
        for name, taken in times.items():
            figures = [CHANGES / each for each in (statistics.median(taken), max(taken), min(taken))]
            print(f"| {name} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |")
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
