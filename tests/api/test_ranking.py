"""Ranking of `q`: by tier, then by the time of the last order, then by the time of creation."""

from typing import Any

import pytest

from tests.api.resources import create
from tests.service import Account


def create_named(account: Account, people: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Create the consumers in this order, and return their names by id."""
    names = {create(account.live, **person)["id"]: name for name, person in people.items()}
    account.settled()
    return names


def search_names(account: Account, names: dict[str, str], **parameters: str) -> list[str]:
    response = account.live.get("/consumers/search", params=parameters)
    assert response.status_code == 200, response.text
    return [names[row["id"]] for row in response.json()["data"]]


@pytest.mark.parametrize("turned", [False, True])
def test_tiers_rank_independently_of_creation_order(account: Account, turned: bool) -> None:  # noqa: FBT001
    people = {
        "identity": {"externalId": "marina"},
        "whole name": {"fullName": "Marína"},
        "whole word": {"fullName": "Aldo Marina Costa"},
        "joined word": {"fullName": "Aldo Ma-Rina"},
        "word start": {"fullName": "Marinara Sauce"},
        "typo": {"fullName": "Martina Costa"},
        "nobody": {"fullName": "Somebody Else"},
    }
    tiers = list(people)[:-1]
    names = create_named(account, dict(reversed(people.items())) if turned else people)
    assert search_names(account, names, q="marina") == tiers


TYPED = {
    "Käthe Müller": ["Käthe Müller", "KÄTHE MÜLLER", "Kathe Muller", "Kaethe Mueller"],
    "KÄTHE MÜLLER": ["KÄTHE MÜLLER", "Käthe Müller", "Kathe Muller", "Kaethe Mueller"],
    "kathe muller": ["Kathe Muller", "KÄTHE MÜLLER", "Käthe Müller"],
    "Frau Käthe Müller": ["Käthe Müller", "KÄTHE MÜLLER", "Kathe Muller", "Kaethe Mueller"],
    "Božić": ["Božić", "BOŽIĆ", "Božič", "Bozic"],
    "božič": ["Božič", "Bozic", "BOŽIĆ", "Božić"],
    "McDonald": ["McDonald", "Mcdonald", "MCDONALD", "Mc Donald"],
    "MCDONALD": ["MCDONALD", "Mcdonald", "McDonald", "Mc Donald"],
    "Mc Donald": ["Mc Donald"],
    "M. Bean": ["Mbeana Bean", "Ann Bean"],
    "ms roe": ["M.S. Roe", "Ann Roe"],
    "Dr. Bean": ["Drew Bean", "Mbeana Bean", "Ann Bean"],
}


def test_name_as_typed_ranks_above_its_twins(account: Account) -> None:
    stored = ["M.S. Roe", "Ann Roe"]
    stored += ["Mc Donald", "Drew Bean", "Ann Bean", "Mbeana Bean", "Božić", "BOŽIĆ", "Bozic", "Božič"]
    stored += ["Käthe Müller", "KÄTHE MÜLLER", "Kathe Muller", "Kaethe Mueller", "McDonald", "MCDONALD", "Mcdonald"]
    names = create_named(account, {name: {"fullName": name} for name in stored})
    for text, expected in TYPED.items():
        assert search_names(account, names, q=text)[: len(expected)] == expected, text


@pytest.mark.parametrize(
    ("person", "text"),
    [
        ({"email": "ann.lee@example.com"}, "Ann.Lee@example.com"),
        ({"phone": "+12025550143"}, "(202) 555-0143"),
        ({"phone": "+12025550143"}, "001 202 555 0143"),
        ({"phone": "+12025550143"}, "(202)\u00a0555\u20110143"),
        ({"phone": "+1 202 555 0143 x9"}, "+1 202 555 0143"),
        ({"email": "ann.lee@example.com"}, "<Ann.Lee@example.com>"),
        ({"externalId": "Ann Lee"}, "ann lee"),
    ],
)
def test_exact_email_phone_or_external_id_ranks_first(account: Account, person: dict[str, Any], text: str) -> None:
    rivals = {
        "extended address": {"email": "ann.lee@example.com.au"},
        "longer number": {"phone": "+1202555014300"},
        "name": {"fullName": "Ann Lee"},
    }
    names = create_named(account, {"whole": person, **rivals})
    assert search_names(account, names, q=text)[0] == "whole"


def test_ties_rank_by_last_order_then_by_creation(account: Account) -> None:
    days = {
        "none, older": None,
        "none, newer": None,
        "old": "2001-01-01",
        "recent": "2024-01-01",
        "same day": "2001-01-01",
    }
    names = create_named(account, {name: {"fullName": "Paul Tie"} for name in days})
    ids = {name: one for one, name in names.items()}
    for name, day in days.items():
        if day:
            create(account.live, "/orders", consumerId=ids[name], amount=1, placedAt=day)
    account.settled()
    expected = ["recent", "same day", "old", "none, newer", "none, older"]
    assert search_names(account, names, q="paul") == expected
    assert search_names(account, names, q="pual") == expected


def test_paging_a_search_returns_each_hit_once(account: Account) -> None:
    people = {str(n): {"fullName": ["Walker", "Walkers", "Wolker", "A Walker"][n % 4]} for n in range(30)}
    names = create_named(account, people)
    whole = search_names(account, names, q="walker", first="100")
    returned: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        content = account.live.get("/consumers/search", params={"q": "walker", "first": 7, **cursor}).json()
        returned += [names[row["id"]] for row in content["data"]]
        if not content["pageInfo"]["endCursor"]:
            break
        cursor = {"after": content["pageInfo"]["endCursor"]}
    assert returned == whole
    assert len(set(returned)) == 30


def test_search_without_parameters_is_refused(account: Account) -> None:
    assert account.live.get("/consumers/search").status_code == 400
