"""How fast an index is rebuilt, against the bare `_bulk` of the same documents in the same run: on servers of its own.

`python -m tests.bench.rebuild` prints a Markdown table; REBUILT_CONSUMERS says of how many consumers (200,000).
"""
# ruff: noqa: T201 (a table is what it is for)

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa

from indexer import slices
from indexer.bulk import Written, write
from indexer.rebuild import ROWS, Builder
from infra import db, documents, generations, rebuilds
from infra.local.servers import KEEPING, LocalServers
from infra.settings import Settings
from tests.indexer.building import people
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.service import new_database

CONSUMERS = int(os.environ.get("REBUILT_CONSUMERS", "200000"))
PROCESSES = (1, 2)

TIMES = sa.text("""
    SELECT extract(epoch FROM refreshed_at - filling_at)::float8 AS filling,
        extract(epoch FROM verified_at - refreshed_at)::float8 AS verifying
    FROM generations WHERE state = 'live'""")


def pages(pipeline: Pipeline) -> Iterator[list[Written]]:
    with pipeline.database.engine.connect() as connection:
        values: dict[str, object] = {"position": "", "until_id": None, "rows": ROWS}
        while rows := connection.execute(slices.PAGE, values).all():
            found = [documents.ConsumerRow._make(row[:-1]) for row in rows]
            yield [Written(row.environment_id, row.id, row.version, documents.document(row, [])) for row in found]
            values["position"] = rows[-1].id


def bare(pipeline: Pipeline) -> float:
    """Documents a second of one client that only sends them."""
    batches = list(pages(pipeline))
    name = f"{pipeline.database.settings.index_prefix}-0bare"
    generations.create(pipeline.database.search, name)
    started = time.perf_counter()
    for batch in batches:
        write(pipeline.writer, documents.write_alias(name), batch)
    seconds = time.perf_counter() - started
    generations.delete(pipeline.database.search, name)
    return CONSUMERS / seconds


def build(settings: Settings) -> None:
    builder, engine = Builder(settings), db.engine(settings)
    while builder.work(1) or running(engine):
        pass
    builder.close()
    engine.dispose()


def running(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        found = rebuilds.latest(connection)
    return found is not None and found.is_running


def rebuilt(pipeline: Pipeline, processes: int) -> tuple[float, float]:
    """Documents a second, and seconds of the verification."""
    with pipeline.database.engine.begin() as connection:
        rebuilds.start(connection, pipeline.database.settings)
    started = [multiprocessing.Process(target=build, args=[pipeline.database.settings]) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    with pipeline.database.engine.connect() as connection:
        times = connection.execute(TIMES).one()
    return CONSUMERS / times.filling, times.verifying


def main() -> None:
    multiprocessing.set_start_method("spawn")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(LocalServers(folder, KEEPING, environ={}))
        pipeline = stack.enter_context(new_pipeline(stack.enter_context(new_database(servers))))
        people(pipeline, CONSUMERS)
        pipeline.run("DELETE FROM outbox")  # a rebuild reads the table
        pipeline.run("ANALYZE")
        bare(pipeline)  # warms it up
        print("| | documents/s | of bare `_bulk` | verified in |\n|---|---|---|---|")
        before = bare(pipeline)
        print(f"| bare `_bulk` | {before:,.0f} | | |")
        for processes in PROCESSES:
            rate, verified = rebuilt(pipeline, processes)
            print(f"| rebuild, {processes} processes | {rate:,.0f} | {rate / before:.0%} | {verified:.1f} s |")
        print(f"| bare `_bulk`, again | {bare(pipeline):,.0f} | | |")


if __name__ == "__main__":
    main()
