"""Numbers of all countries and very many real names (shared/data): each is found by the forms it is written in."""

import csv
import lzma
from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import NamedTuple

import pytest

from infra.local.sample.consumers import Consumer, ulid
from infra.settings import ROOT
from tests.relevance.asking import ask, every_hit, hits
from tests.relevance.golden import START
from tests.relevance.loading import assert_complete, load
from tests.service import Account, Service, new_account

FOLDER = ROOT.parent / "shared" / "data"
SEED, PEOPLE = 20_240_103, 20_000
ASKED = slice(None, None, 40)

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real input (shared/data) is not here"),
]


class Shared(NamedTuple):
    account: Account
    numbers: dict[str, dict[str, str]]
    """The forms of a number, by its consumer's id."""
    names: dict[str, tuple[str, str]]
    """Both words of a name, by its consumer's id."""


def numbers() -> Iterator[dict[str, str]]:
    """The valid numbers, once each: several countries may share one."""
    with (FOLDER / "phones" / "example_numbers.csv").open(encoding="utf-8", newline="") as file:
        yield from {row["e164"]: row for row in csv.DictReader(file) if row["valid"] == "1"}.values()


def names(random: Random) -> list[tuple[str, str]]:
    """Pairs of words that are names."""
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
def test_number_of_any_country_comes_first_by_its_international_forms(shared: Shared, form: str) -> None:
    texts = {name: forms[form].removeprefix("tel:") for name, forms in shared.numbers.items()}
    answers = ask(texts.items(), lambda asked: hits(shared.account.live, "q", asked[1], 1))
    assert not [text for (name, text), found in answers if found != [name]]


def test_number_of_any_country_is_found_by_its_national_form(shared: Shared) -> None:
    texts = {name: forms["national"] for name, forms in shared.numbers.items()}
    answers = ask(texts.items(), lambda asked: every_hit(shared.account.live, "search", asked[1]))
    assert not [text for (name, text), found in answers if name not in found]


@pytest.mark.parametrize("parameter", ["q", "search"])
def test_real_name_is_found_by_its_words_swapped_and_in_capitals(shared: Shared, parameter: str) -> None:
    texts = {name: f"{second} {first}".upper() for name, (first, second) in list(shared.names.items())[ASKED]}
    answers = ask(texts.items(), lambda asked: hits(shared.account.live, parameter, asked[1], 10))
    assert not [text for (name, text), found in answers if name not in found]
