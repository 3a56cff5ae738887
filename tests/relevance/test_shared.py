"""Phone numbers of all countries and real names (shared/data), each found in all written forms."""

import csv
import lzma
from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import NamedTuple

import pytest

from infra.local.sample.consumers import Consumer, ulid
from infra.settings import ROOT
from tests.relevance.bulk_load import assert_complete, load
from tests.relevance.golden import START
from tests.relevance.search_requests import all_ids, first_ids, run_queries
from tests.service import Account, Service, new_account

FOLDER = ROOT.parent / "shared" / "data"
SEED, PEOPLE = 20_240_103, 20_000
QUERIED = slice(None, None, 40)

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder shared/data is not beside the project"),
]


class Shared(NamedTuple):
    account: Account
    numbers: dict[str, dict[str, str]]
    """The forms of a number, by consumer id."""
    names: dict[str, tuple[str, str]]
    """Both words of a name, by consumer id."""


def numbers() -> Iterator[dict[str, str]]:
    """Yield each valid number once, because countries may share numbers."""
    with (FOLDER / "phones" / "example_numbers.csv").open(encoding="utf-8", newline="") as file:
        yield from {row["e164"]: row for row in csv.DictReader(file) if row["valid"] == "1"}.values()


def names(random: Random) -> list[tuple[str, str]]:
    """Return pairs of words from real names."""
    with lzma.open(FOLDER / "wikidata_names" / "persons.txt.xz", "rt", encoding="utf-8") as file:
        forms = [random.choice(line.partition(" => ")[0].split(", ")).strip() for line in file]
    words = [form for form in forms if len(form) > 1 and " " not in form]
    random.shuffle(words)
    return list(dict.fromkeys(zip(words[:PEOPLE], words[PEOPLE:], strict=False)))


@pytest.fixture(scope="module")
def shared(service: Service) -> Iterator[Shared]:
    random = Random(SEED)
    people: list[Consumer] = []

    def consumer(name: str | None, phone: str | None) -> str:
        moment = START + timedelta(seconds=len(people))
        people.append(Consumer(ulid(random, "cons_", moment), moment, None, phone, name, None, None))
        return people[-1].id

    with new_account(service) as account:
        called = {consumer(f"{first} {second}", None): (first, second) for first, second in names(random)}
        reached = {consumer(None, row["e164"]): row for row in numbers()}
        load(account.database, account.live_environment, people)
        assert_complete(account.database, account.live_environment, len(people))
        yield Shared(account, reached, called)


@pytest.mark.parametrize("form", ["international", "rfc3966"])
def test_international_form_of_any_number_ranks_first(shared: Shared, form: str) -> None:
    texts = {name: forms[form].removeprefix("tel:") for name, forms in shared.numbers.items()}
    results = run_queries(texts.items(), lambda query: first_ids(shared.account.live, "q", query[1], 1))
    assert not [text for (name, text), ids in results if ids != [name]]


def test_national_form_of_any_number_is_found(shared: Shared) -> None:
    texts = {name: forms["national"] for name, forms in shared.numbers.items()}
    results = run_queries(texts.items(), lambda query: all_ids(shared.account.live, "search", query[1]))
    assert not [text for (name, text), ids in results if name not in ids]


@pytest.mark.parametrize("parameter", ["q", "search"])
def test_real_name_is_found_by_swapped_words_in_capitals(shared: Shared, parameter: str) -> None:
    texts = {name: f"{second} {first}".upper() for name, (first, second) in list(shared.names.items())[QUERIED]}
    results = run_queries(texts.items(), lambda query: first_ids(shared.account.live, parameter, query[1], 10))
    assert not [text for (name, text), ids in results if name not in ids]
