"""`matchedOn` reports the field and kind of each match, and changes nothing else in the response."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Account, Service, new_account

ANN = {
    "email": "ann-marie.lee@example.com",
    "phone": "+12025550143",
    "fullName": "Anneliese Leander",
    "externalId": "Customer 77",
}
OTHERS = [
    {"fullName": "Anneliese"},
    {"fullName": "Annelise Leandre"},
    {"fullName": "Leander Smith"},
    {"phone": "+12025550199"},
]


@pytest.fixture(scope="module")
def matched(service: Service) -> Iterator[Account]:
    with new_account(service, region="US") as account:
        response = account.live.post("/consumers/batch", json=[*OTHERS, ANN])
        assert response.status_code == 201, response.text
        account.settled()
        yield account


def matches(account: Account, **parameters: str) -> list[tuple[str, str, str]]:
    """Return field, kind and text of each match of the consumer ANN."""
    response = account.live.get("/consumers/search", params=parameters | {"explain": "true"})
    assert response.status_code == 200, response.text
    [row] = [row for row in response.json()["data"] if row["email"] == ANN["email"]]
    return [(one["field"], one["kind"], one["text"]) for one in row["matchedOn"]]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("Ann-Marie.Lee@example.com", [("email", "exact", "Ann-Marie.Lee@example.com")]),
        ("(202) 555-0143", [("phone", "exact", "(202) 555-0143")]),
        ("202 555 0143", [("phone", "exact", "202 555 0143")]),
        ("customer 77", [("externalId", "exact", "customer 77")]),
        ("anneliese leander", [("fullName", "exact", "anneliese leander")]),
        ("leander", [("fullName", "word", "leander")]),
        ("LEÁNDER", [("fullName", "word", "LEÁNDER")]),
        ("marie", [("email", "word", "marie")]),
        ("ann-marie", [("email", "word", "ann-marie")]),
        ("annelieseleander", [("fullName", "word", "annelieseleander")]),
        ("annel", [("fullName", "prefix", "annel")]),
        ("exam", [("email", "prefix", "exam")]),
        ("marie.le", [("email", "prefix", "marie.le")]),
        ("+1 202", [("phone", "prefix", "+1 202")]),
        ("0143", [("phone", "prefix", "0143")]),
        ("leandre", [("fullName", "typo", "leandre")]),
        ("aneliese", [("fullName", "typo", "aneliese")]),
        ("lee annel", [("email", "word", "lee"), ("fullName", "prefix", "lee"), ("fullName", "prefix", "annel")][:1]),
    ],
)
def test_match_reports_field_and_kind(matched: Account, q: str, expected: list[tuple[str, str, str]]) -> None:
    reported = matches(matched, q=q)
    assert set(expected) <= set(reported)
    kinds = {(field, text): kind for field, kind, text in reported}
    assert len(kinds) == len(reported), "each field has the best kind alone"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"email": "ANN-MARIE.LEE@EXAMPLE.COM"}, [("email", "exact", "ANN-MARIE.LEE@EXAMPLE.COM")]),
        ({"phone": "001 202 555 0143"}, [("phone", "exact", "001 202 555 0143")]),
        ({"externalId": "Customer 77"}, [("externalId", "exact", "Customer 77")]),
    ],
)
def test_field_parameter_matches_exactly(
    matched: Account, parameters: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert matches(matched, **parameters) == expected
    assert matches(matched, **parameters, q="leandre") == [*expected, ("fullName", "typo", "leandre")]


def test_matches_in_several_fields_are_reported_for_each(matched: Account) -> None:
    assert set(matches(matched, q="lee annel 0143")) == {
        ("email", "word", "lee"),
        ("fullName", "prefix", "annel"),
        ("phone", "prefix", "0143"),
    }
    assert set(matches(matched, q="ann")) == {("email", "word", "ann"), ("fullName", "prefix", "ann")}


WORDS = [
    "leander",
    "anneliese leandre",
    "ann",
    "202555",
    "+1 202 555 0143",
    "a.b.c@d-e_f " * 20,
    "0143 " * 30,
    "w " * 31 + "w",
]


@pytest.mark.parametrize("q", WORDS)
def test_explain_changes_no_rows_order_or_cursors(matched: Account, q: str) -> None:
    pages: list[list[Any]] = []
    for explain in ("false", "true"):
        parameters: dict[str, Any] = {"q": q, "first": 1, "explain": explain}
        contents = []
        while True:
            response = matched.live.get("/consumers/search", params=parameters)
            assert response.status_code == 200, response.text
            content = response.json()
            rows = [{name: value for name, value in row.items() if name != "matchedOn"} for row in content["data"]]
            assert all(("matchedOn" in row) == (explain == "true") for row in content["data"])
            contents.append((rows, content["pageInfo"]["hasNextPage"], content["pageInfo"]["hasPreviousPage"]))
            if not content["pageInfo"]["endCursor"]:
                break
            # A cursor is valid with and without `explain`.
            parameters |= {"after": content["pageInfo"]["endCursor"], "explain": explain}
            explained = matched.live.get("/consumers/search", params=parameters | {"explain": "true", "first": 100})
            assert explained.status_code == 200, explained.text
        pages.append(contents)
    assert pages[0] == pages[1]
