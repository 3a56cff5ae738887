"""Verify finds what is wrong with the index, names why, and says nothing else."""

from typing import Any

import pytest

from indexer.verify import compare
from indexer.verify.compare import Report, verify_generation
from tests.indexer.conftest import Pipeline
from tests.indexer.faults import FAULTS, Fault


def verified(pipeline: Pipeline, **options: Any) -> Report:
    return verify_generation(pipeline.database.engine, pipeline.writer, pipeline.index_name, **options)


def causes(report: Report) -> dict[str, str]:
    assert len(report.found) == report.differences
    return {difference.id: difference.cause for difference in report.found}


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Consumers and tombstones, all as they should be."""
    pipeline.run("INSERT INTO consumers (environment_id, full_name) SELECT :e, 'n' || n FROM generate_series(1, 20) n")
    pipeline.run("DELETE FROM consumers WHERE full_name IN ('n3', 'n4', 'n20')")
    pipeline.drain()
    return pipeline


def test_index_that_is_the_database_has_no_difference(filled: Pipeline) -> None:
    report = verified(filled)
    assert (report.compared, report.differences, report.in_flight, report.found) == (17, 0, 0, [])


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found_with_its_cause_and_nothing_else_is(filled: Pipeline, name: str) -> None:
    [(victim,)] = filled.run("SELECT id FROM consumers WHERE full_name = 'n10'")
    fault: Fault = FAULTS[name]
    wrong = fault.plant(filled, victim)
    assert causes(verified(filled)) == {wrong: fault.cause}


def test_all_faults_together_are_told_apart_whatever_the_size_of_a_range(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "SEARCHED", 2)
    monkeypatch.setattr(compare, "ROWS", 3)
    victims = [id_ for (id_,) in filled.run("SELECT id FROM consumers ORDER BY id")]
    planted = {fault.plant(filled, victim): fault.cause for fault, victim in zip(FAULTS.values(), victims, strict=True)}
    assert causes(verified(filled)) == planted


def test_documents_of_other_code_are_compared_by_version_alone(filled: Pipeline) -> None:
    [(altered,), (late,)] = filled.run("SELECT id FROM consumers WHERE full_name IN ('n10', 'n11') ORDER BY full_name")
    FAULTS["altered"].plant(filled, altered)
    FAULTS["a change lost"].plant(filled, late)
    assert causes(verified(filled)) == {altered: "content", late: "stale"}
    filled.run("UPDATE generations SET document_version = document_version - 1")
    assert causes(verified(filled)) == {late: "stale"}
