"""Each row of the runbook, docs/operations.md, has a test that causes the symptom; each test of the runbook has a row.

The alerts have tests of their own (`test_monitoring.py`).
"""

import re

import pytest

from infra.settings import ROOT
from tests.unit.test_documented_tests import functions

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
RUNBOOK = "cluster/test_runbook.py"
HEADS = ("`reason`", "silent", "cause", "message")
"""Heads of the tables with a row for each symptom. A section with "Users notice" is a symptom itself."""
POSTPONED = f"{RUNBOOK}::test_postponed_changes_become_searchable_once_the_cause_is_gone"
UNAVAILABLE = "indexer/test_index_unavailable.py::test_unavailable_index_parks_and_loses_nothing"
DIFFERENCE = f"{RUNBOOK}::test_difference_is_found_and_repaired"
TESTS: dict[str, dict[str, str]] = {
    "The oldest change gets older": {
        "": POSTPONED,
        "`ConnectionError …`, `ConnectionTimeout …`": POSTPONED,
        "`429 cluster_block_exception`": POSTPONED,
        "`TransportError 429`, other `429 …`": POSTPONED,
        "`404 index_not_found_exception`": POSTPONED,
        "`… 400 index_closed_exception`": POSTPONED,
        "`every document is refused: …`": POSTPONED,
        "`there is no live index`": UNAVAILABLE,
        "`… was built by newer code than this worker's`": UNAVAILABLE,
        "`the round took too long before its write`": f"{RUNBOOK}::test_round_that_postgresql_delays_is_repeated",
        "a five-character SQLSTATE of PostgreSQL, `OperationalError`": (
            f"{RUNBOOK}::test_requests_are_503_while_postgresql_is_away"
        ),
    },
    "Processes that hang": {
        "": "indexer/test_supervision.py::test_liveness_file_of_a_frozen_process_gets_old",
        "an API process": f"{RUNBOOK}::test_hanging_api_process_is_replaced",
        "worker `live`": "guarantees/test_kills.py::test_frozen_worker_is_replaced_and_its_late_write_harmless",
        "worker `bulk`": "guarantees/test_rebuilds.py::test_poller_rebuilds_while_the_worker_is_away",
        "one beat of two": "cluster/test_cut_nodes.py::test_frozen_process_loses_no_write_and_no_read",
        "every beat": f"{RUNBOOK}::test_changes_by_the_api_and_by_sql_continue_without_beat",
    },
    "Parked changes": {"": f"{RUNBOOK}::test_parked_change_is_indexed_after_its_value_is_corrected"},
    "Version conflicts": {"": "indexer/test_verify_runs.py::test_restored_older_database_is_found_and_repaired"},
    "The index differs": {
        "": DIFFERENCE,
        "`missing`": DIFFERENCE,
        "`stale`": DIFFERENCE,
        "`ahead`, `content`": DIFFERENCE,
        "`resurrected`": DIFFERENCE,
        "`foreign`": DIFFERENCE,
        "`run N waits for a worker`": f"{RUNBOOK}::test_run_waits_for_a_worker_and_for_opensearch",
        "`run N waits: …`": f"{RUNBOOK}::test_run_waits_for_a_worker_and_for_opensearch",
        "`run N failed: NotFoundError 404`": (
            "indexer/test_verify_runs.py::test_run_without_an_index_fails_with_an_error"
        ),
        "`run N found … differences, of which 10000 are stored`": (
            f"{RUNBOOK}::test_more_differences_than_a_run_stores_are_repaired"
        ),
        "`…; N not compared, a change is in the outbox`": (
            "indexer/test_verify_runs.py::test_queued_change_is_not_a_difference"
        ),
    },
    "The disk of OpenSearch is full": {"": POSTPONED},
    "A node of OpenSearch is away": {
        "": "cluster/test_cut_nodes.py::test_node_without_connection_loses_no_write_and_no_read"
    },
    "The index belongs to another installation": {
        "": "indexer/test_ownership.py::test_reads_of_a_foreign_index_are_refused"
    },
    "A missing alias or index": {"": "guarantees/test_rebuilds.py::test_deleted_index_gives_503_never_an_empty_list"},
    "Redis is down or full": {"": f"{RUNBOOK}::test_changes_take_a_second_and_limits_are_off_while_redis_is_away"},
    "PostgreSQL is down or slow": {"": f"{RUNBOOK}::test_requests_are_503_while_postgresql_is_away"},
    "A new epoch of the database": {"": "cluster/test_failover.py::test_fail_over_loses_nothing_silently"},
}
"""The test of each row, and of each section (its row is the empty text)."""
NOT_CAUSED = {("The oldest change gets older", "`a refresh failed on … shards`")}
"""A shard would have to break between the write and the refresh of a round."""
NAMED = {test for rows in TESTS.values() for test in rows.values()}


def documented_rows() -> set[tuple[str, str]]:
    """Return section and first cell of each row."""
    found = set()
    for section in re.split("^## ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        tables = re.findall(r"^\| ([^|\n]+) \|[^\n]*\n\|[-|]+\|\n((?:\|[^\n]*\n)+)", body, re.MULTILINE)
        rows = [
            row for head, lines in tables if head in HEADS for row in re.findall(r"^\| (.+?) \|", lines, re.MULTILINE)
        ]
        if rows or "**Users notice" in body:
            found |= {(title, row) for row in ("", *rows)}
    return found


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    assert {(title, row) for title, rows in TESTS.items() for row in rows} == documented_rows() - NOT_CAUSED
    assert documented_rows() >= NOT_CAUSED
    of_runbook = {f"{RUNBOOK}::{name}" for name in functions(RUNBOOK) if name.startswith("test_")}
    assert of_runbook == {test for test in NAMED if test.startswith(RUNBOOK)}


@pytest.mark.parametrize("test", sorted(NAMED))
def test_named_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions(file)
