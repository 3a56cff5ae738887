"""Create, read, change and delete audiences (contract.md §4)."""

import re
from typing import Any

import pytest

from tests.api.audiences import RULE, create_audience, included_audiences, insert_consumers, send_members
from tests.api.orders import without_updated_at
from tests.api.resources import faults
from tests.service import Account

FIELDS = ["id", "name", "description", "metadata", "type", "rules", "createdAt", "updatedAt"]
TYPES = ["STATIC", "SYNCED_LIST", "DYNAMIC"]
UNKNOWN = "aud_00000000000000000000000000"


@pytest.mark.parametrize("audience_type", TYPES)
def test_audience_has_every_field_in_order_and_is_read_back(account: Account, audience_type: str) -> None:
    made = create_audience(account, audience_type)
    assert list(made) == FIELDS
    assert re.fullmatch(r"aud_[0-7][0-9A-HJKMNP-TV-Z]{25}", made["id"])
    rules = [RULE | {"groupId": None}] if audience_type == "DYNAMIC" else None
    assert {name: made[name] for name in FIELDS[1:6]} == {
        "name": "A",
        "description": None,
        "metadata": None,
        "type": audience_type,
        "rules": rules,
    }
    assert made["createdAt"] == made["updatedAt"]
    assert account.live.get(f"/audiences/{made['id']}").json() == made


def test_rules_are_returned_complete_in_documented_order(account: Account) -> None:
    rule = {
        "groupId": "g",
        "values": ["a", 1, 2.5, True, 12345678901234567890],
        "operator": "IN",
        "field": "metadata.a",
    }
    made = create_audience(account, "DYNAMIC", rules=[rule, RULE], metadata={"a": None}, description="")
    assert [list(fields) for fields in made["rules"]] == [["field", "operator", "values", "groupId"]] * 2
    assert made["rules"][0] == rule
    assert (made["metadata"], made["description"]) == ({"a": None}, "")
    assert account.live.get(f"/audiences/{made['id']}").json() == made


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name", "type"}),
        ({"name": "", "type": "static"}, {"name", "type"}),
        ({"name": " \t", "type": None}, {"name", "type"}),
        ({"name": "x" * 256, "type": "STATIC"}, {"name"}),
        ({"name": "a\u0007b", "type": "STATIC", "description": 5, "metadata": []}, {"name", "description", "metadata"}),
        ({"name": "A", "type": "STATIC", "rules": [RULE]}, {"rules"}),
        ({"name": "A", "type": "STATIC", "rules": []}, {"rules"}),
        ({"name": "A", "type": "SYNCED_LIST", "rules": [RULE]}, {"rules"}),
        ({"name": "A", "type": "DYNAMIC"}, {"rules"}),
        ({"name": "A", "type": "DYNAMIC", "rules": None}, {"rules"}),
        ({"name": "A", "type": "DYNAMIC", "rules": []}, {"rules"}),
        ({"name": "A", "type": "DYNAMIC", "rules": [RULE] * 51}, {"rules"}),
        ({"name": "A", "type": "DYNAMIC", "rules": [RULE, 5, {}]}, {"rules[1]", "rules[2].field", "rules[2].operator"}),
        ({"name": "A", "type": "DYNAMIC", "rules": [RULE | {"value": 1}]}, {"rules[0].value"}),
        ({"name": "A", "type": "STATIC", "members": [], "metadata": {"k" * 65: 1}}, {"members", "metadata"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_invalid_audience_is_refused_with_every_fault(account: Account, body: dict[str, Any], fields: set[str]) -> None:
    assert faults(account.live.post("/audiences", json=body)).keys() == fields
    assert account.live.get("/audiences").json()["data"] == []


def test_audience_values_at_their_limits_are_accepted(account: Account) -> None:
    made = create_audience(account, "DYNAMIC", name=" " + "é" * 255, rules=[RULE | {"groupId": "g" * 64}] * 50)
    assert (made["name"], len(made["rules"])) == ("é" * 255, 50)


@pytest.mark.parametrize(
    ("audience_type", "sent"),
    [
        ("STATIC", {"name": "B"}),
        ("STATIC", {"description": None, "type": "STATIC"}),
        ("SYNCED_LIST", {"metadata": None, "rules": None}),
        ("DYNAMIC", {"description": "e"}),
        ("DYNAMIC", {"rules": [{"field": "phone", "operator": "EQUALS", "values": ["1"], "groupId": "g"}]}),
    ],
)
def test_update_changes_only_the_fields_sent(account: Account, audience_type: str, sent: dict[str, Any]) -> None:
    made = create_audience(account, audience_type, description="d", metadata={"a": 1})
    changed = account.live.put(f"/audiences/{made['id']}", json=sent).json()
    assert without_updated_at(changed) == without_updated_at(made) | sent
    assert changed["updatedAt"] >= made["updatedAt"]
    assert account.live.get(f"/audiences/{made['id']}").json() == changed


@pytest.mark.parametrize("audience_type", TYPES)
def test_sending_back_a_read_resource_changes_nothing(account: Account, audience_type: str) -> None:
    made = create_audience(account, audience_type, description="d", metadata={"a": {"b": [None, 1.5]}})
    response = account.live.put(f"/audiences/{made['id']}", json=made)
    assert response.status_code == 200, response.text
    assert without_updated_at(response.json()) == without_updated_at(made)


def test_metadata_is_merged(account: Account) -> None:
    made = create_audience(account, metadata={"a": 1, "b": {"c": 2}})
    changed = account.live.put(f"/audiences/{made['id']}", json={"metadata": {"a": None, "b": {"d": 3}}}).json()
    assert changed["metadata"] == {"b": {"c": 2, "d": 3}}


@pytest.mark.parametrize(
    ("audience_type", "sent", "fields"),
    [
        ("STATIC", {"type": "SYNCED_LIST"}, {"type"}),
        ("STATIC", {"type": "DYNAMIC", "rules": [RULE]}, {"type", "rules"}),
        ("DYNAMIC", {"type": "STATIC", "rules": None}, {"type", "rules"}),
        ("STATIC", {"rules": []}, {"rules"}),
        ("DYNAMIC", {"rules": []}, {"rules"}),
        ("DYNAMIC", {"rules": [RULE, RULE | {"operator": "LESS_THAN", "values": [1]}]}, {"rules[1].operator"}),
        ("STATIC", {"name": None, "type": None}, {"name", "type"}),
        ("STATIC", {"metadata": {f"k{number}": 1 for number in range(51)}, "type": "DYNAMIC"}, {"metadata", "type"}),
        ("STATIC", {"name": "B", "typ": 1}, {"typ"}),
    ],
)
def test_invalid_update_is_refused_and_changes_nothing(
    account: Account, audience_type: str, sent: dict[str, Any], fields: set[str]
) -> None:
    made = create_audience(account, audience_type)
    assert faults(account.live.put(f"/audiences/{made['id']}", json=sent)).keys() == fields
    assert account.live.get(f"/audiences/{made['id']}").json() == made


@pytest.mark.parametrize("size", [1, 3, 100])
def test_paging_both_ways_returns_every_audience_newest_first(account: Account, size: int) -> None:
    made = [create_audience(account, TYPES[number % 3], name=f"A {number}") for number in range(7)]
    with account.database.engine.begin() as connection:  # equal times, so that the id decides the order
        connection.exec_driver_sql(
            "UPDATE audiences SET created_at = '2024-01-01Z' WHERE name IN ('A 2', 'A 3', 'A 4')"
        )
    tied = sorted((row["id"] for row in made[2:5]), reverse=True)
    expected = [made[6]["id"], made[5]["id"], made[1]["id"], made[0]["id"], *tied]
    for size_name, cursor_name, cursor_field in (("first", "after", "endCursor"), ("last", "before", "startCursor")):
        ids: list[str] = []
        cursor: dict[str, Any] = {}
        while (content := account.live.get("/audiences", params={size_name: size} | cursor).json())["data"]:
            page = [row["id"] for row in content["data"]]
            ids = ids + page if size_name == "first" else page + ids
            flags = content["pageInfo"]["hasNextPage"], content["pageInfo"]["hasPreviousPage"]
            has_more = len(ids) < len(expected)
            assert flags == ((has_more, bool(cursor)) if size_name == "first" else (bool(cursor), has_more))
            cursor = {cursor_name: content["pageInfo"][cursor_field]}
        assert ids == expected


def test_invalid_cursors_and_parameters_are_refused(account: Account) -> None:
    create_audience(account)
    cursor = account.live.get("/audiences").json()["pageInfo"]["endCursor"]
    assert account.live.get("/audiences", params={"after": cursor}).json()["data"] == []
    assert faults(account.test.get("/audiences", params={"after": cursor})).keys() == {"after"}
    assert faults(account.live.get("/orders", params={"after": cursor})).keys() == {"after"}
    for wrong in (cursor[:-1], cursor + "A", "x"):
        assert faults(account.live.get("/audiences", params={"before": wrong})).keys() == {"before"}
    parameters = {"type": "STATIC", "first": "0", "last": "1"}
    assert faults(account.live.get("/audiences", params=parameters)).keys() == {"type", "first", "last"}
    assert faults(account.live.get("/audiences", params={"first": 1, "last": 1})).keys() == {"last"}


@pytest.mark.parametrize(
    "audience_id", [UNKNOWN, UNKNOWN.lower(), "%00", "%ff", "%F0%9F%98%80", "'", "x" * 2000, "aud_"]
)
def test_unknown_audience_is_404_on_every_route(account: Account, audience_id: str) -> None:
    assert_unknown(account, audience_id)


def assert_unknown(account: Account, audience_id: str) -> None:
    bodies: dict[str, Any] = {"PUT": {}, "GET": None, "DELETE": None}
    responses = [
        account.live.request(method, f"/audiences/{audience_id}", json=body) for method, body in bodies.items()
    ]
    responses += [send_members(account, method, audience_id, ["nobody"]) for method in ("POST", "PUT", "DELETE")]
    assert [(response.status_code, response.json()["error"]) for response in responses] == [
        (404, "Audience not found")
    ] * 6


@pytest.mark.parametrize("audience_type", TYPES)
def test_deleted_audience_is_gone_at_once_on_every_route(account: Account, audience_type: str) -> None:
    made, kept = create_audience(account, audience_type), create_audience(account)
    [person] = insert_consumers(account, 1)
    for stored in (made, kept):
        assert send_members(account, "POST", stored["id"], [person]).is_success or stored["type"] == "DYNAMIC"
    deleted = account.live.delete(f"/audiences/{made['id']}")
    assert (deleted.status_code, deleted.json()) == (200, made)
    assert_unknown(account, made["id"])
    assert [row["id"] for row in account.live.get("/audiences").json()["data"]] == [kept["id"]]
    assert [row["id"] for row in included_audiences(account, person)] == [kept["id"]]


def test_audience_of_another_environment_is_unknown(account: Account) -> None:
    body = {"name": "A", "type": "SYNCED_LIST"}
    assert_unknown(account, account.test.post("/audiences", json=body).json()["id"])
    assert account.live.get("/audiences").json()["data"] == []
    assert len(account.test.get("/audiences").json()["data"]) == 1
