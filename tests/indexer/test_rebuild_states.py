"""Every request in every phase of a rebuild, and every transition, against docs/rebuild-states.md."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple, get_args

import pytest

from indexer.rebuild.builder import Builder
from indexer.rebuild.lost_index import reconcile
from infra.index.generations import Pending, Phase, State
from infra.local.servers import LocalServers
from infra.operations.rebuild import REQUESTS, Rebuild, RebuildError, Request
from infra.settings import ROOT
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.indexer.rebuild_steps import PHASES, advance_to, generation_states, latest_rebuild, send_request
from tests.service import new_database

DOCUMENT = (ROOT / "docs" / "rebuild-states.md").read_text(encoding="utf-8")
DIAGRAM = re.search(r"```mermaid\n(.*?)```", DOCUMENT, re.DOTALL)
SUBGRAPH = re.compile(r'subgraph (?P<id>\w+)\["state (?P<state>\w+)"\]')
NODE = re.compile(r'(?P<id>\w+)(\["(?P<phase>\w+)"\])?')
EDGE = re.compile(r'(?P<source>\w+) -->\|"[^"]+"\| (?P<target>\w+)')

NEXT = dict(zip(PHASES, (*PHASES[1:], "done"), strict=True))
FAILING = PHASES[2:]
"""Phases in which the new index exists, so that it can be lost."""
RECORD_TRANSITIONS = (
    "CREATE TABLE transitions (source text NOT NULL, target text NOT NULL, UNIQUE (source, target))",
    """
    CREATE FUNCTION record_transition() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        before text = coalesce(OLD.state || ' ' || OLD.phase, 'none');
        after text = NEW.state || ' ' || NEW.phase;
    BEGIN
        IF before <> after THEN INSERT INTO transitions VALUES (before, after) ON CONFLICT DO NOTHING; END IF;
        RETURN NULL;
    END $$""",
    """
    CREATE TRIGGER record_transition AFTER INSERT OR UPDATE ON generations
        FOR EACH ROW EXECUTE FUNCTION record_transition()""",
)


@pytest.fixture(scope="module")
def pipeline(servers: LocalServers) -> Iterator[Pipeline]:
    """A database for all cases of this module, with a document; no worker but the builder."""
    with new_database(servers) as database, new_pipeline(database) as pipeline:
        pipeline.insert_consumer()
        pipeline.drain()
        yield pipeline


@pytest.fixture(scope="module")
def module_builder(pipeline: Pipeline) -> Iterator[Builder]:
    builder = Builder(pipeline.database.settings)
    yield builder
    builder.close()


@pytest.fixture
def builder(pipeline: Pipeline, module_builder: Builder) -> Builder:
    """The builder, with the rebuilds and kept generations of earlier cases removed."""
    for request in ("cancel", "drop"):
        with suppress(RebuildError):
            send_request(pipeline, request)
    finish(module_builder)
    assert standing(pipeline) == ["live"]
    return module_builder


def finish(builder: Builder) -> None:
    """Take every step there is."""
    while builder.step():
        pass


def standing(pipeline: Pipeline) -> list[str]:
    """The states of all generations but the dropped ones, oldest generation first."""
    return [state for state in generation_states(pipeline) if state != "dropped"]


def description(rebuild: Rebuild) -> str:
    """State and phase, and the columns a request changes."""
    parts = [rebuild.state, rebuild.phase]
    if rebuild.is_paused:
        parts.append("paused")
    if rebuild.wanted:
        parts.append(f"{rebuild.wanted} pending")
    if rebuild.keep_until and rebuild.keep_until <= datetime.now(UTC):
        parts.append("expired")
    return " ".join(parts)


def answers(pipeline: Pipeline) -> dict[Request, str]:
    """Make every request and roll it back; return the changed row by request, without refused requests."""
    accepted: dict[Request, str] = {}
    for request, make in REQUESTS.items():
        with pipeline.database.engine.connect() as connection, suppress(RebuildError):
            accepted[request] = description(make(connection, pipeline.database.settings))
    return accepted


def start(pipeline: Pipeline, builder: Builder, phase: str) -> str:
    """Start a rebuild and bring it to a phase; return the state and the phase."""
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, phase)
    return description(latest_rebuild(pipeline))


@pytest.mark.parametrize("phase", PHASES)
def test_requests_in_a_phase_and_while_it_is_paused(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    row = start(pipeline, builder, phase)
    assert answers(pipeline) == {"cancel": f"{row} cancel pending", "pause": f"{row} paused", "resume": row}
    send_request(pipeline, "pause")
    assert answers(pipeline) == {"cancel": f"{row} paused cancel pending", "pause": f"{row} paused", "resume": row}
    assert not builder.step()
    assert description(latest_rebuild(pipeline)) == f"{row} paused"
    send_request(pipeline, "resume")
    advance_to(pipeline, builder, NEXT[phase])


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_a_phase_ends_the_rebuild(
    pipeline: Pipeline, builder: Builder, phase: str, *, is_paused: bool
) -> None:
    row = start(pipeline, builder, phase)
    if is_paused:
        send_request(pipeline, "pause")
    send_request(pipeline, "cancel")
    assert answers(pipeline) == {
        "cancel": f"{row}{' paused' if is_paused else ''} cancel pending",
        "pause": f"{row} paused cancel pending",
        "resume": f"{row} cancel pending",
    }
    finish(builder)
    assert description(latest_rebuild(pipeline)) == "dropped cancelled"
    assert answers(pipeline) == {"rebuild": "filling requested"}


def test_requests_beside_a_kept_generation(pipeline: Pipeline, builder: Builder) -> None:
    assert answers(pipeline) == {"rebuild": "filling requested"}
    start(pipeline, builder, "done")
    assert answers(pipeline) == {
        "rebuild": "filling requested",
        "rollback": "kept done rollback pending",
        "drop": "kept done expired",
    }
    assert standing(pipeline) == ["kept", "live"]
    start(pipeline, builder, "requested")
    assert answers(pipeline) == {
        "cancel": "filling requested cancel pending",
        "pause": "filling requested paused",
        "resume": "filling requested",
        "drop": "kept done expired",
    }


def test_requests_while_a_rollback_is_pending(pipeline: Pipeline, builder: Builder) -> None:
    start(pipeline, builder, "done")
    assert standing(pipeline) == ["kept", "live"]
    send_request(pipeline, "rollback")
    assert answers(pipeline) == {
        "rebuild": "filling requested",
        "cancel": "kept done",
        "rollback": "kept done rollback pending",
    }
    finish(builder)
    assert standing(pipeline) == ["live", "kept"]
    send_request(pipeline, "rollback")
    send_request(pipeline, "cancel")
    finish(builder)
    assert standing(pipeline) == ["live", "kept"]
    send_request(pipeline, "drop")
    finish(builder)
    assert standing(pipeline) == ["live"]


class Transition(NamedTuple):
    source: str
    target: str


def drawn() -> set[Transition]:
    """The transitions of the diagram, each from state and phase to state and phase."""
    assert DIAGRAM
    rows: dict[str, list[str]] = {"none": ["none"]}
    edges: list[tuple[str, str]] = []
    subgraph = ""
    for line in map(str.strip, DIAGRAM[1].splitlines()):
        if opened := SUBGRAPH.fullmatch(line):
            subgraph, state = opened["id"], opened["state"]
        elif line == "end":
            subgraph = ""
        elif edge := EDGE.fullmatch(line):
            edges.append((edge["source"], edge["target"]))
        elif subgraph and (node := NODE.fullmatch(line)):
            row = f"{state} {node['phase'] or node['id']}"
            rows[node["id"]] = [row]
            rows.setdefault(subgraph, []).append(row)
    return {Transition(source, target) for one, other in edges for source in rows[one] for target in rows[other]}


def lose_index(pipeline: Pipeline) -> None:
    """Delete the index of the newest generation, and let the comparison of OpenSearch with the rows notice."""
    pipeline.database.search.indices.delete(index=latest_rebuild(pipeline).index_name)
    reconcile(pipeline.database.engine, pipeline.database.search, pipeline.database.settings)


def miss(pipeline: Pipeline) -> None:
    """Let the generation being built miss a change."""
    pipeline.run("""
        INSERT INTO generation_misses (generation_id, environment_id, consumer_id, version, reason)
        SELECT g.id, c.environment_id, c.id, c.version, 'a test' FROM generations g, consumers c
        WHERE g.state = 'refreshed'""")


def test_diagram_has_exactly_the_transitions_of_the_code(pipeline: Pipeline, builder: Builder) -> None:
    for statement in RECORD_TRANSITIONS:
        pipeline.run(statement)
    for phase in PHASES:
        start(pipeline, builder, phase)
        send_request(pipeline, "cancel")
        finish(builder)
    for phase in FAILING:
        start(pipeline, builder, phase)
        lose_index(pipeline)
        finish(builder)
        assert description(latest_rebuild(pipeline)) == "dropped failed"
    start(pipeline, builder, "swapping")
    miss(pipeline)
    finish(builder)
    send_request(pipeline, "rollback")
    finish(builder)
    send_request(pipeline, "rollback")
    finish(builder)
    lose_index(pipeline)
    with suppress(RebuildError):  # unless the loss has started one
        send_request(pipeline, "rebuild")
    finish(builder)
    recorded = {Transition(*row) for row in pipeline.run("SELECT source, target FROM transitions")}
    # A new database inserts its first generation before the recording starts.
    assert drawn() == recorded | {Transition("none", "live done")}


@pytest.mark.parametrize(("column", "values"), [("state", State), ("phase", Phase), ("wanted", Pending)])
def test_declared_values_are_those_the_table_allows(pipeline: Pipeline, column: str, values: object) -> None:
    [(check,)] = pipeline.run(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name", name=f"generations_{column}_check"
    )
    assert set(re.findall(r"'(\w+)'", check)) == set(get_args(values))


def test_document_explains_every_phase_and_request() -> None:
    tables = DOCUMENT.partition("## Phases")[2]
    for name in (*get_args(Phase), *REQUESTS):
        assert f"\n| `{name}` |" in tables
