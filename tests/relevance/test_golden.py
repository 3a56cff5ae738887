"""Ranks of the golden consumers among 100,000 consumers (golden.txt describes the kinds of queries)."""

from collections.abc import Iterable

import pytest

from tests.relevance.golden import Case, cases, twins
from tests.relevance.search_requests import all_ids, first_ids, run_queries
from tests.service import Account

FIRST = 10
SHARES = {"name": 0.99, "address": 0.99, "phone": 0.99, "typo": 0.95}


def as_lines(missed: Iterable[Case]) -> str:
    """Format the failed queries with the expected consumers."""
    return "".join(f"\n  {case.text}  →  {case.expected.full_name} {case.expected.phone}" for case in missed)


def test_exact_value_finds_its_consumer_first(loaded_account: Account) -> None:
    results = run_queries(cases("whole"), lambda case: first_ids(loaded_account.live, "q", case.text, 1))
    missed = [case for case, ids in results if ids != [case.expected.id]]
    assert not missed, as_lines(missed)


@pytest.mark.parametrize("kind", list(SHARES))
def test_identifying_query_finds_its_consumer_in_the_first_ten(loaded_account: Account, kind: str) -> None:
    results = run_queries(cases(kind), lambda case: first_ids(loaded_account.live, "q", case.text, FIRST))
    missed = [case for case, ids in results if case.expected.id not in ids]
    assert len(missed) <= (1 - SHARES[kind]) * len(results), f"{len(missed)} of {len(results)}{as_lines(missed)}"


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [*((kind, "search") for kind in ("whole", "name", "address", "phone", "among")), ("among", "q")],
)
def test_every_matching_consumer_is_found(loaded_account: Account, kind: str, parameter: str) -> None:
    results = run_queries(cases(kind), lambda case: all_ids(loaded_account.live, parameter, case.text))
    missed = [case for case, ids in results if case.expected.id not in ids]
    assert not missed, as_lines(missed)


def test_search_tolerates_no_typo(loaded_account: Account) -> None:
    results = run_queries(cases("typo"), lambda case: all_ids(loaded_account.live, "search", case.text))
    wrong = [case for case, ids in results if case.expected.id in ids]
    assert not wrong, as_lines(wrong)


@pytest.mark.parametrize("parameter", ["q", "search"])
def test_query_that_does_not_match_does_not_find_consumer(loaded_account: Account, parameter: str) -> None:
    results = run_queries(cases("not"), lambda case: all_ids(loaded_account.live, parameter, case.text))
    wrong = [case for case, ids in results if case.expected.id in ids]
    assert not wrong, as_lines(wrong)


def test_equal_consumers_of_two_environments_are_separate(loaded_account: Account) -> None:
    those = {one.id for one in twins()}
    for case, ids in run_queries(cases("whole"), lambda case: all_ids(loaded_account.test, "q", case.text)):
        assert ids, case
        assert those.issuperset(ids), case
    for case, ids in run_queries(cases("whole"), lambda case: all_ids(loaded_account.live, "search", case.text)):
        assert those.isdisjoint(ids), case
