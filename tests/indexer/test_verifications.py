"""Runs of verify and repair: whoever works on them, and whatever becomes of those who do."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from indexer import verifications, verify
from indexer.verifications import Place
from indexer.verify import Scope, Submit
from infra.verifications import Run, request, run
from tests.indexer.conftest import Pipeline
from tests.indexer.faults import FAULTS


@pytest.fixture
def filled(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(verifications, "WATCH_ROWS", 7)
    pipeline.run("INSERT INTO consumers (environment_id, full_name) SELECT :e, 'n' || n FROM generate_series(1, 24) n")
    pipeline.run("DELETE FROM consumers WHERE full_name IN ('n3', 'n4', 'n20')")
    pipeline.drain()
    return pipeline


def place(pipeline: Pipeline) -> Place:
    engine, pool = pipeline.database.engine, ThreadPoolExecutor(1)

    def submit(scope: Scope) -> Submit:
        return lambda part: pool.submit(verify.compare, engine, pipeline.writer, scope, part)

    return Place(engine, pipeline.writer, submit)


def asked(pipeline: Pipeline, *arguments: Any, **options: Any) -> int:
    with pipeline.database.engine.begin() as connection:
        return request(connection, *arguments, **options)


def seen(pipeline: Pipeline, number: int) -> Run:
    with pipeline.database.engine.connect() as connection:
        found = run(connection, number)
    assert found
    return found


def done(pipeline: Pipeline, *arguments: Any, **options: Any) -> Run:
    """Ask for a run, and work on it to its end."""
    number = asked(pipeline, *arguments, **options)
    while not seen(pipeline, number).is_over:
        assert verifications.work(place(pipeline), 60)
    return seen(pipeline, number)


def victims(pipeline: Pipeline) -> list[str]:
    return [id_ for (id_,) in pipeline.run("SELECT id FROM consumers ORDER BY id")]


def planted(pipeline: Pipeline) -> dict[str, str]:
    """Every fault there is."""
    return {
        fault.plant(pipeline, victim): fault.cause
        for fault, victim in zip(FAULTS.values(), victims(pipeline), strict=False)
    }


def test_run_tells_what_was_compared_and_what_was_found(filled: Pipeline) -> None:
    wrong = planted(filled)
    found = done(filled, "verify")
    assert (found.state, found.kind, found.environment, found.error) == ("done", "verify", None, None)
    assert (found.total, found.differences) == (20, len(wrong))
    assert found.compared == 20
    assert not found.agrees
    rows = filled.run("SELECT document_id, cause FROM differences")
    assert dict(rows) == wrong


def test_repair_mends_every_fault_and_a_verify_is_clean(filled: Pipeline) -> None:
    wrong = planted(filled)
    found = done(filled, "repair")
    assert (found.differences, found.mended) == (len(wrong), len(wrong))
    filled.drain()
    assert done(filled, "verify").agrees
    assert filled.visible() == set(victims(filled))
    assert filled.waiting() == 0
