"""Who is found, and how soon, among 100,000: the golden queries (golden.txt says what each kind promises)."""

from collections.abc import Iterable

import pytest

from tests.relevance.asking import ask, every_hit, hits
from tests.relevance.golden import Case, cases, twins
from tests.service import Account

SOON = 10
SHARES = {"name": 0.99, "address": 0.99, "phone": 0.99, "typo": 0.95}


def listed(missed: Iterable[Case]) -> str:
    """For the message of a failure: every query, and who was sought."""
    return "".join(f"\n  {case.text}  →  {case.sought.full_name} {case.sought.phone}" for case in missed)


def test_whole_address_number_or_external_id_finds_its_consumer_first(crowded: Account) -> None:
    answers = ask(cases("whole"), lambda case: hits(crowded.live, "q", case.text, 1))
    missed = [case for case, found in answers if found != [case.sought.id]]
    assert not missed, listed(missed)


@pytest.mark.parametrize("kind", list(SHARES))
def test_what_identifies_finds_its_consumer_among_the_first_ten(crowded: Account, kind: str) -> None:
    answers = ask(cases(kind), lambda case: hits(crowded.live, "q", case.text, SOON))
    missed = [case for case, found in answers if case.sought.id not in found]
    assert len(missed) <= (1 - SHARES[kind]) * len(answers), f"{len(missed)} of {len(answers)}{listed(missed)}"


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [*((kind, "search") for kind in ("whole", "name", "address", "phone", "among")), ("among", "q")],
)
def test_whoever_matches_is_among_all_that_are_found(crowded: Account, kind: str, parameter: str) -> None:
    answers = ask(cases(kind), lambda case: every_hit(crowded.live, parameter, case.text))
    missed = [case for case, found in answers if case.sought.id not in found]
    assert not missed, listed(missed)


def test_search_forgives_no_typo(crowded: Account) -> None:
    answers = ask(cases("typo"), lambda case: every_hit(crowded.live, "search", case.text))
    wrong = [case for case, found in answers if case.sought.id in found]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("parameter", ["q", "search"])
def test_what_does_not_match_is_found_by_nothing(crowded: Account, parameter: str) -> None:
    answers = ask(cases("not"), lambda case: every_hit(crowded.live, parameter, case.text))
    wrong = [case for case, found in answers if case.sought.id in found]
    assert not wrong, listed(wrong)


def test_the_same_people_in_another_environment_are_others(crowded: Account) -> None:
    those = {one.id for one in twins()}
    for case, found in ask(cases("whole"), lambda case: every_hit(crowded.test, "q", case.text)):
        assert found, case
        assert those.issuperset(found), case
    for case, found in ask(cases("whole"), lambda case: every_hit(crowded.live, "search", case.text)):
        assert those.isdisjoint(found), case
