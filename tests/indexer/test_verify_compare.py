"""Comparison of the index: finds every fault with the cause, and nothing else."""

import pytest

from indexer.verify import compare
from tests.indexer.comparison import compare_index
from tests.indexer.conftest import Pipeline
from tests.indexer.index_faults import FAULTS, Fault


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Consumers and tombstones without a fault."""
    pipeline.run("INSERT INTO consumers (environment_id, full_name) SELECT :e, 'n' || n FROM generate_series(1, 20) n")
    pipeline.run("DELETE FROM consumers WHERE full_name IN ('n3', 'n4', 'n20')")
    pipeline.drain()
    return pipeline


def test_index_equal_to_the_database_has_no_difference(filled: Pipeline) -> None:
    report = compare_index(filled)
    assert (report.compared, report.in_flight, report.differences) == (17, 0, [])


@pytest.mark.parametrize("name", FAULTS)
def test_only_the_planted_fault_is_found_with_its_cause(filled: Pipeline, name: str) -> None:
    [(victim,)] = filled.run("SELECT id FROM consumers WHERE full_name = 'n10'")
    fault: Fault = FAULTS[name]
    wrong = fault.plant(filled, victim)
    assert compare_index(filled).causes == {wrong: fault.cause}


def test_all_faults_are_told_apart_in_small_ranges(filled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MAX_DOCUMENTS", 2)
    victims = [id_ for (id_,) in filled.run("SELECT id FROM consumers ORDER BY id")]
    planted = {fault.plant(filled, victim): fault.cause for fault, victim in zip(FAULTS.values(), victims, strict=True)}
    assert compare_index(filled, rows=3).causes == planted


def test_other_document_versions_are_compared_by_version_only(filled: Pipeline) -> None:
    [(altered,), (late,)] = filled.run("SELECT id FROM consumers WHERE full_name IN ('n10', 'n11') ORDER BY full_name")
    FAULTS["altered"].plant(filled, altered)
    FAULTS["a change lost"].plant(filled, late)
    assert compare_index(filled).causes == {altered: "content", late: "stale"}
    filled.run("UPDATE generations SET document_version = document_version - 2")
    assert compare_index(filled).causes == {late: "stale"}
