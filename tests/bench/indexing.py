"""Build the index of a database in separate processes, as workers do."""

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
"""Pause of a process without work, while another process does a step reserved for one."""


class Built(NamedTuple):
    index_name: str
    filling: float
    """Seconds of filling."""
    verifying: float


def build(engine: sa.Engine, settings: Settings, processes: int) -> Built:
    """Build a new index, and drop the previous index."""
    with engine.begin() as connection:
        requested = rebuild.start(connection, settings)
    context = get_context("spawn")
    started = [context.Process(target=_work, args=[settings]) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    with engine.connect() as connection:
        ended = rebuild.by_id(connection, requested.id)
        assert ended.state == "live", ended.error
        built = Built(*connection.execute(TIMES).one())
    drop_previous(engine, settings)
    return built


def drop_previous(engine: sa.Engine, settings: Settings) -> None:
    """Drop the kept index, because every change would also be written there."""
    with engine.begin() as connection:
        rebuild.drop(connection, settings)
    builder = Builder(settings)
    builder.work(10)
    builder.close()


def _work(settings: Settings) -> None:
    collector.tune_gc()
    builder, engine = Builder(settings), open_engine(settings)
    while builder.work(1) or _is_running(engine):
        time.sleep(LOOK_SECONDS)
    builder.close()
    engine.dispose()


def _is_running(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        generation = rebuild.latest(connection)
    return generation is not None and generation.is_running
