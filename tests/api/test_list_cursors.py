"""A cursor is valid for a day, unmodified, for the list it came from."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from api.consumers.schemas import ListParameters
from api.cursors import EXPIRED, Cursors
from tests.api.pages import get_page
from tests.api.resources import create, fault_fields, faults
from tests.seals import stored_seal
from tests.service import Account, Service, new_account

PARAMETERS = {"sortBy": "email", "sortDir": "asc", "search": "somebody", "createdAfter": "2020-01-01"}
PARAMETERS |= {"filter": "email:*"}
EVERYONE_RULES = [{"field": "fullName", "operator": "EXISTS"}]


@pytest.fixture(scope="module")
def few(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        insert = sa.text("""
            INSERT INTO consumers (environment_id, email, full_name, phone, external_id)
            SELECT e, n || '@example.com', 'Somebody', CASE n WHEN 1 THEN '123' END, CASE n WHEN 1 THEN 'x' END
            FROM unnest(ARRAY[:live, :test]) e, generate_series(1, 5) AS n""")
        with account.database.engine.begin() as connection:
            connection.execute(insert, {"live": account.live_environment, "test": account.test_environment})
        account.settled()
        yield account


@pytest.fixture(scope="module")
def audiences(few: Account) -> list[str]:
    """Two DYNAMIC audiences of all consumers."""
    return [
        str(create(few.live, "/audiences", name="All", type="DYNAMIC", rules=EVERYONE_RULES)["id"]) for _ in range(2)
    ]


def list_cursors(account: Account) -> Cursors:
    """Return the cursors of the list without parameters, as the API makes them."""
    seal = stored_seal(account.database.engine, account.live_environment)
    return Cursors(seal, "list", ListParameters().list_parameters(), account.live_environment)


def assert_refused(account: Account, path: str = "/consumers", **parameters: Any) -> str:
    """Assert that the list returns 400 for the cursor's parameter, and return the message."""
    response = account.live.get(path, params=parameters)
    field = "before" if "before" in parameters else "after"
    assert fault_fields(response) == [field], parameters
    assert response.json()["error"] == "Validation failed"
    return faults(response)[field]


@pytest.mark.parametrize("name", ["after", "before"])
def test_cursor_damaged_in_any_character_is_refused(few: Account, name: str) -> None:
    cursor = get_page(few.live, **PARAMETERS)["pageInfo"]["endCursor"]
    assert few.live.get("/consumers", params=PARAMETERS | {name: cursor}).status_code == 200
    for index, character in enumerate(cursor):
        other = "A" if character != "A" else "B"
        assert_refused(few, **PARAMETERS, **{name: cursor[:index] + other + cursor[index + 1 :]})


@pytest.mark.parametrize("name", ["after", "before"])
def test_truncated_or_extended_cursor_is_refused(few: Account, name: str) -> None:
    cursor = get_page(few.live, **PARAMETERS)["pageInfo"]["endCursor"]
    for length in range(1, len(cursor)):
        assert_refused(few, **PARAMETERS, **{name: cursor[:length]})
    for ending in ("A", "=", "==", " ", "\n", "é", "😀", "%"):
        assert_refused(few, **PARAMETERS, **{name: cursor + ending})


@pytest.mark.parametrize("cursor", ["null", "undefined", "cons_01HZXW0000000000000000000", "W10", "x" * 5000])
def test_text_that_is_not_a_cursor_is_refused(few: Account, cursor: str) -> None:
    assert_refused(few, after=cursor)
    assert_refused(few, before=cursor)


@pytest.mark.parametrize(
    "other",
    [
        {"sortBy": "createdAt"},
        {"sortBy": "fullName"},
        {"sortDir": "desc"},
        {"search": "somebod"},
        {"createdAfter": "2020-01-02"},
        {"createdBefore": "2999-01-01"},
        {"updatedAfter": "2020-01-01"},
        {"filter": "email:~e"},
        {"audienceId": "<audience>"},
    ],
)
def test_cursor_of_another_list_is_refused(few: Account, audiences: list[str], other: dict[str, Any]) -> None:
    ends = get_page(few.live, **PARAMETERS)["pageInfo"]
    other = {name: audiences[0] if value == "<audience>" else value for name, value in other.items()}
    parameters = {name: value for name, value in (PARAMETERS | other).items() if value is not None}
    for cursor in ({"after": ends["endCursor"]}, {"before": ends["startCursor"]}):
        message = assert_refused(few, **parameters, **cursor)
        [name] = other
        assert f"it belongs to a list with{'out' * (name not in PARAMETERS)} {name}" in message


def test_parameters_left_out_are_those_of_the_cursor(few: Account) -> None:
    """The documented way to the next page: `first` and `after` alone."""
    first = get_page(few.live, **PARAMETERS, first=2)
    complete = get_page(few.live, **PARAMETERS, first=2, after=first["pageInfo"]["endCursor"])
    assert get_page(few.live, first=2, after=first["pageInfo"]["endCursor"])["data"] == complete["data"] != []
    before = complete["pageInfo"]["startCursor"]
    assert get_page(few.live, last=2, before=before)["data"] == first["data"]
    searched = get_page(few.live, "/consumers/search", q="somebody", first=2)["pageInfo"]["endCursor"]
    path = "/consumers/search"
    complete = get_page(few.live, path, q="somebody", first=2, after=searched)
    assert get_page(few.live, path, first=2, after=searched)["data"] == complete["data"] != []


def test_cursor_of_another_environment_is_refused(few: Account) -> None:
    assert_refused(few, **PARAMETERS, after=get_page(few.test, **PARAMETERS)["pageInfo"]["endCursor"])


def test_search_and_list_refuse_each_others_cursors(few: Account) -> None:
    searched = few.live.get("/consumers/search", params={"q": "somebody", "first": 2}).json()
    assert_refused(few, search="somebody", after=searched["pageInfo"]["endCursor"])
    listed = get_page(few.live, search="somebody")["pageInfo"]["endCursor"]
    response = few.live.get("/consumers/search", params={"q": "somebody", "after": listed})
    assert fault_fields(response) == ["after"]


def test_cursor_works_with_any_page_size_and_direction(few: Account) -> None:
    cursor = get_page(few.live, **PARAMETERS, first=2)["pageInfo"]["endCursor"]
    assert len(get_page(few.live, **PARAMETERS, first=100, after=cursor)["data"]) == 3
    assert len(get_page(few.live, **PARAMETERS, last=100, before=cursor)["data"]) == 1


def test_cursor_works_with_any_include_count_or_explain(few: Account) -> None:
    cursor = get_page(few.live, **PARAMETERS, first=2, count="true")["pageInfo"]["endCursor"]
    content = get_page(few.live, **PARAMETERS, after=cursor, include="audiences")
    assert len(content["data"]) == 3
    assert "totalCount" not in content
    parameters = {"q": "somebody", "filter": "email:*"}
    search_cursor = get_page(few.live, "/consumers/search", **parameters, first=2, explain="true")["pageInfo"][
        "endCursor"
    ]
    assert len(get_page(few.live, "/consumers/search", **parameters, first=100, after=search_cursor)["data"]) == 3


def test_members_cursor_is_refused_by_other_lists(few: Account, audiences: list[str]) -> None:
    mine, other = (f"/audiences/{one}/members" for one in audiences)
    cursor = get_page(few.live, mine, first=2)["pageInfo"]["endCursor"]
    assert len(get_page(few.live, mine, after=cursor)["data"]) == 3
    assert_refused(few, other, after=cursor)
    assert_refused(few, after=cursor)
    assert_refused(few, audienceId=audiences[0], after=cursor)
    assert_refused(few, mine, audienceId=audiences[0], after=cursor)
    assert_refused(few, mine, after=get_page(few.live, audienceId=audiences[0], first=2)["pageInfo"]["endCursor"])
    for index in range(len(cursor)):
        assert_refused(few, mine, after=cursor[:index] + ("A" if cursor[index] != "A" else "B") + cursor[index + 1 :])


@pytest.mark.parametrize(
    "parameters", [{"q": "somebody"}, {"email": "1@example.com"}, {"phone": "123"}, {"externalId": "x"}]
)
def test_search_cursor_is_bound_to_all_its_parameters(few: Account, parameters: dict[str, str]) -> None:
    path, all_parameters = (
        "/consumers/search",
        {"email": "1@example.com", "phone": "123", "externalId": "x", "q": "somebody"},
    )
    cursor = get_page(few.live, path, **all_parameters)["pageInfo"]["endCursor"]
    assert get_page(few.live, path, **all_parameters, after=cursor)["data"] == []
    assert get_page(few.live, path, **parameters, after=cursor)["data"] == []
    assert_refused(
        few, path, **all_parameters | {name: f"{value}0" for name, value in parameters.items()}, after=cursor
    )
    assert_refused(few, path, **all_parameters, filter="email:*", after=cursor)
    for index in range(0, len(cursor), 5):
        assert_refused(few, path, **all_parameters, after=cursor[:index] + cursor[index + 1 :])


def test_cursor_survives_a_restart_of_the_api(few: Account, service: Service, audiences: list[str]) -> None:
    lists = [
        ("/consumers", PARAMETERS),
        (f"/audiences/{audiences[0]}/members", {}),
        ("/consumers/search", {"q": "somebody"}),
    ]
    before = [get_page(few.live, path, first=2, **parameters)["pageInfo"]["endCursor"] for path, parameters in lists]
    with service.without("api"):
        pass
    for (path, parameters), cursor in zip(lists, before, strict=True):
        assert len(get_page(few.live, path, after=cursor, **parameters)["data"]) == 3


@pytest.mark.parametrize(("age", "status"), [(23.9, 200), (24.1, 400), (10_000, 400)])
def test_cursor_expires_after_a_day(few: Account, age: float, status: int) -> None:
    cursors = list_cursors(few)
    values, _ = cursors.decode(get_page(few.live, first=1)["pageInfo"]["endCursor"])
    old = cursors.encode(values, now=time.time() - age * 3600)
    assert few.live.get("/consumers", params={"after": old}).status_code == status
    if status == 400:
        assert assert_refused(few, after=old) == EXPIRED


@pytest.mark.parametrize(
    "values",
    [[], [1, "a"], [1, "a", "b"], ["a", "b", 1], [1.5, "a", 1], [1, 2, 3, 4], [2**64 - 1, "a", 1], [{}, "a", 1]],
)
def test_sealed_cursor_with_other_values_is_refused(few: Account, values: list[Any]) -> None:
    for name in ("after", "before"):
        response = few.live.get("/consumers", params={name: list_cursors(few).encode(values)})
        assert response.status_code == 400, response.text


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({"first": 1, "last": 1}, {"last"}),
        ({"after": "a", "before": "b"}, {"before"}),
        ({"first": 0}, {"first"}),
        ({"first": 101}, {"first"}),
        ({"last": "many"}, {"last"}),
        ({"sortBy": "phone"}, {"sortBy"}),
        ({"sortBy": "totalordervalue"}, {"sortBy"}),
        ({"sortDir": "up"}, {"sortDir"}),
        ({"search": "a"}, {"search"}),
        ({"search": " a "}, {"search"}),
        ({"createdAfter": "yesterday", "createdBefore": "2024-02-30"}, {"createdAfter", "createdBefore"}),
        ({"page": 2, "limit": 5}, {"page", "limit"}),
        ({"first": [1, 1]}, {"first"}),
        (
            {"first": 1, "last": 2, "sortBy": "x", "sortDir": "y", "search": "z", "createdAfter": "-", "nope": 1},
            {"last", "sortBy", "sortDir", "search", "createdAfter", "nope"},
        ),
    ],
)
def test_all_invalid_parameters_are_listed_at_once(few: Account, parameters: dict[str, Any], fields: set[str]) -> None:
    response = few.live.get("/consumers", params=parameters)
    assert faults(response).keys() == fields
