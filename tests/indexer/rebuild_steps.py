"""Run a rebuild in the test process, step by step."""

from typing import Any

import msgspec
import sqlalchemy as sa

from indexer.rebuild.builder import Builder
from infra.index import naming
from infra.operations import rebuild as rebuilds
from infra.operations.rebuild import Rebuild, Request
from tests.indexer.conftest import Pipeline
from tests.waiting import wait_until

PHASES = ("requested", "creating", "filling", "refilling", "verifying", "swapping")


def send_request(pipeline: Pipeline, request: Request) -> Rebuild:
    with pipeline.database.engine.begin() as connection:
        return rebuilds.REQUESTS[request](connection, pipeline.database.settings)


def latest_rebuild(pipeline: Pipeline) -> Rebuild:
    with pipeline.database.engine.connect() as connection:
        generation = rebuilds.latest(connection)
    assert generation
    return generation


def run_to_end(pipeline: Pipeline, builder: Builder) -> Rebuild:
    """Run the builder until the rebuild is over."""

    def is_over() -> bool:
        builder.work(5)
        return not latest_rebuild(pipeline).is_running

    wait_until(is_over, timeout=40, what="the rebuild")
    builder.work(5)
    return latest_rebuild(pipeline)


def rebuild(pipeline: Pipeline, builder: Builder) -> Rebuild:
    send_request(pipeline, "rebuild")
    return run_to_end(pipeline, builder)


def advance_to(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    """Run steps until the rebuild is in a phase."""
    while latest_rebuild(pipeline).phase != phase:
        assert builder.step()


def second_index(pipeline: Pipeline) -> str:
    """Return the name of the second generation's index."""
    return naming.index_name(pipeline.database.settings.index_prefix, 2)


def generation_states(pipeline: Pipeline) -> list[str]:
    return [state for (state,) in pipeline.run("SELECT state FROM generations ORDER BY id")]


def count_misses(pipeline: Pipeline) -> int:
    return int(pipeline.run("SELECT count(*) FROM generation_misses")[0][0])


def index_names(pipeline: Pipeline) -> list[str]:
    """Return the names of all existing indices."""
    names = pipeline.database.search.indices.get(index=f"{pipeline.database.settings.index_prefix}-*")
    return sorted(names)


def indices_read(pipeline: Pipeline) -> list[str]:
    """Return the names of the indices behind the read alias."""
    alias = naming.read_alias(pipeline.database.settings.index_prefix)
    return sorted(pipeline.database.search.indices.get_alias(name=alias))


def stored_document(pipeline: Pipeline, index: str, consumer_id: str) -> Any:
    """Return a consumer's document in an index, searchable or not; None if there is none."""
    params: dict[str, Any] = {"ignore": 404, "routing": pipeline.routing}
    response: Any = pipeline.writer.get(index=index, id=consumer_id, params=params)
    return msgspec.json.decode(response).get("_source")


def insert_consumers(pipeline: Pipeline, number: int) -> list[str]:
    with pipeline.database.engine.begin() as connection:
        insert = sa.text("""
            INSERT INTO consumers (environment_id, email, phone, full_name)
            SELECT :e, 'person' || n || '@example.com', '+1212555' || to_char(n % 10000, 'FM0000'), 'Person ' || n
            FROM generate_series(1, :number) AS n RETURNING id""")
        return list(connection.execute(insert, {"e": pipeline.environment, "number": number}).scalars())
