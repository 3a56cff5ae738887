"""Building the index of a database in processes of its own, as its workers do."""

import time
from multiprocessing import get_context
from typing import NamedTuple

import sqlalchemy as sa

from indexer import collector
from indexer.rebuild.builder import Builder
from infra.database.engine import open_engine
from infra.operations import rebuild
from infra.settings import Settings

TIMES = sa.text("""
    SELECT index_name, extract(epoch FROM refreshed_at - filling_at)::float8 AS filling,
        extract(epoch FROM verified_at - refreshed_at)::float8 AS verifying
    FROM generations WHERE state = 'live'""")

LOOK_SECONDS = 0.02
"""Of a process that finds nothing to do, while another does what one alone may."""


class Built(NamedTuple):
    index_name: str
    filling: float
    """Seconds."""
    verifying: float


def build(engine: sa.Engine, settings: Settings, processes: int) -> Built:
    """Build the index anew, and forget the one before."""
    with engine.begin() as connection:
        asked = rebuild.start(connection, settings)
    context = get_context("spawn")
    started = [context.Process(target=_work, args=[settings]) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    with engine.connect() as connection:
        ended = rebuild.by_id(connection, asked.id)
        assert ended.state == "live", ended.error
        built = Built(*connection.execute(TIMES).one())
    forget(engine, settings)
    return built


def forget(engine: sa.Engine, settings: Settings) -> None:
    """Remove the index that is kept, which every change would be written to as well."""
    with engine.begin() as connection:
        rebuild.drop(connection, settings)
    builder = Builder(settings)
    builder.work(10)
    builder.close()


def _work(settings: Settings) -> None:
    collector.tune_gc()
    builder, engine = Builder(settings), open_engine(settings)
    while builder.work(1) or _running(engine):
        time.sleep(LOOK_SECONDS)
    builder.close()
    engine.dispose()


def _running(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        found = rebuild.latest(connection)
    return found is not None and found.is_running
