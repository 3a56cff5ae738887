"""Members of STATIC and SYNCED_LIST audiences, and their effect on consumers and documents (contract.md §4)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.audiences import create_audience, included_audiences, insert_consumers, send_members, stored_members
from tests.api.resources import faults, stored_version
from tests.service import Account
from tests.waiting import wait_until

UNKNOWN = "cons_00000000000000000000000000"
METHODS = ["POST", "PUT", "DELETE"]


@pytest.mark.parametrize("audience_type", ["STATIC", "SYNCED_LIST"])
def test_only_actual_membership_changes_are_counted(account: Account, audience_type: str) -> None:
    made = create_audience(account, audience_type)["id"]
    one, two, three = insert_consumers(account, 3)
    for method, ids, count, left in (
        ("POST", [], 0, set()),
        ("POST", [two, one, two], 2, {one, two}),
        ("POST", [one, three], 1, {one, two, three}),
        ("POST", [one], 0, {one, two, three}),
        ("DELETE", [two, two, one], 2, {three}),
        ("DELETE", [two], 0, {three}),
        ("DELETE", [], 0, {three}),
    ):
        response = send_members(account, method, made, ids)
        assert response.status_code == 200, response.text
        name = "addedCount" if method == "POST" else "removedCount"
        assert list(response.json().items()) == [("audienceId", made), (name, count)]
        assert stored_members(account, made) == left


def test_members_of_a_synced_list_are_replaced(account: Account) -> None:
    made = create_audience(account, "SYNCED_LIST")["id"]
    one, two, three = insert_consumers(account, 3)
    for ids, added, removed in (([two, one, one], 2, 0), ([two, three], 1, 1), ([three, two], 0, 0), ([], 0, 2)):
        response = send_members(account, "PUT", made, ids)
        assert response.json() == {"audienceId": made, "addedCount": added, "removedCount": removed}
        assert stored_members(account, made) == set(ids)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_members_are_listed_and_nothing_is_stored(account: Account, method: str) -> None:
    made = create_audience(account, "SYNCED_LIST")["id"]
    members = insert_consumers(account, 2)
    [foreign] = insert_consumers(account, 1, account.test_environment)
    deleted = insert_consumers(account, 1)
    account.live.delete(f"/consumers/{deleted[0]}")
    send_members(account, "POST", made, members[:1])
    response = send_members(
        account, method, made, [members[1], UNKNOWN, foreign, *deleted, "", "é💥", members[0].lower(), members[0]]
    )
    messages = faults(response)
    assert messages.keys() == {f"consumerIds[{index}]" for index in range(1, 7)}
    assert UNKNOWN in messages["consumerIds[1]"]
    assert foreign in messages["consumerIds[2]"]
    assert stored_members(account, made) == {members[0]}


@pytest.mark.parametrize("method", METHODS)
def test_request_takes_at_most_10000_members(account: Account, method: str) -> None:
    made = create_audience(account, "SYNCED_LIST")["id"]
    ids = insert_consumers(account, 10_000)
    assert faults(send_members(account, method, made, [*ids, ids[0]])).keys() == {"consumerIds"}
    send_members(account, "POST", made, ids if method == "DELETE" else [])
    response = send_members(account, method, made, ids)
    assert response.status_code == 200, response.text
    assert len(stored_members(account, made)) == (0 if method == "DELETE" else 10_000)
    unknown = [UNKNOWN[:-5] + f"{number:05}" for number in range(10_000)]
    refused = send_members(account, method, made, unknown)
    assert len(faults(refused)) == 100
    assert refused.json()["message"] == "9900 more faults are not listed"


@pytest.mark.parametrize(("audience_type", "methods"), [("DYNAMIC", METHODS), ("STATIC", ["PUT"])])
def test_method_not_supported_by_audience_type_is_refused(
    account: Account, audience_type: str, methods: list[str]
) -> None:
    made = create_audience(account, audience_type)["id"]
    for method in methods:
        response = send_members(account, method, made, insert_consumers(account, 1))
        assert response.status_code == 400, response.text
        assert audience_type.lower().partition("_")[0] in response.text.lower() or "SYNCED_LIST" in response.text
    assert stored_members(account, made) == set()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"consumerIds"}),
        ({"consumerIds": None}, {"consumerIds"}),
        ({"consumerIds": UNKNOWN}, {"consumerIds"}),
        ({"consumerIds": [5, None]}, {"consumerIds[0]"}),
        ({"consumerIds": [], "ids": []}, {"ids"}),
        ([], {"body"}),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_invalid_members_body_is_refused(account: Account, method: str, body: Any, fields: set[str]) -> None:
    made = create_audience(account, "SYNCED_LIST")["id"]
    assert faults(account.live.request(method, f"/audiences/{made}/members", json=body)).keys() == fields


def test_membership_change_raises_version_and_updates_document(account: Account) -> None:
    first, second = sorted(create_audience(account, kind)["id"] for kind in ("SYNCED_LIST", "SYNCED_LIST"))
    person, bystander = insert_consumers(account, 2)
    steps: list[tuple[str, str, list[str], list[str]]] = [
        ("POST", second, [person], [second]),
        ("PUT", first, [person, bystander], [first, second]),
        ("PUT", second, [], [first]),
        ("DELETE", first, [person], []),
    ]
    for method, where, ids, expected in steps:
        before, version = account.live.get(f"/consumers/{person}"), stored_version(account, person)
        assert send_members(account, method, where, ids).status_code == 200
        after = account.live.get(f"/consumers/{person}")
        assert after.headers["ETag"] != before.headers["ETag"]
        assert stored_version(account, person) == version + 1
        assert after.json()["updatedAt"] >= before.json()["updatedAt"]
        assert send_members(account, method, where, ids).status_code == 200  # without effect
        assert account.live.get(f"/consumers/{person}").headers["ETag"] == after.headers["ETag"]
        account.settled()
        document = account.database.documents(account.live_environment)[person]
        assert document["audienceIds"] == expected
        assert document["version"] == version + 1


def test_included_audiences_are_ordered_by_name_then_id(account: Account) -> None:
    [person] = insert_consumers(account, 1)
    assert included_audiences(account, person) == []
    names = ["b", "a", "b", "B", "é", "a b", "Ä", "b"]
    created = [create_audience(account, ("STATIC", "SYNCED_LIST")[index % 2], name) for index, name in enumerate(names)]
    for one in reversed(created):
        send_members(account, "POST", one["id"], [person])
    create_audience(account, "STATIC", "not mine")
    shown = [{name: one[name] for name in ("id", "name", "type")} for one in created]
    assert included_audiences(account, person) == sorted(shown, key=lambda one: (one["name"], one["id"]))
    renamed = account.live.put(f"/audiences/{created[0]['id']}", json={"name": "A first"}).json()
    before = account.live.get(f"/consumers/{person}", params={"include": "audiences"})
    assert before.json()["audiences"][0]["name"] == renamed["name"]
    account.live.delete(f"/audiences/{created[0]['id']}")
    assert created[0]["id"] not in [one["id"] for one in included_audiences(account, person)]
    changed = account.live.get(
        f"/consumers/{person}", params={"include": "audiences"}, headers={"If-None-Match": before.headers["ETag"]}
    )
    assert changed.status_code == 200


def test_deleted_audience_disappears_from_documents(account: Account) -> None:
    gone, left = (create_audience(account)["id"] for _ in range(2))
    person = insert_consumers(account, 1)
    for one in (gone, left):
        send_members(account, "POST", one, person)
    account.live.delete(f"/audiences/{gone}")
    wait_until(lambda: not stored_members(account, gone), what="the memberships to be deleted")
    account.settled()
    assert account.database.documents(account.live_environment)[person[0]]["audienceIds"] == [left]


def test_deleting_a_consumer_deletes_its_memberships(account: Account) -> None:
    made = create_audience(account)["id"]
    staying, leaving = insert_consumers(account, 2)
    send_members(account, "POST", made, [staying, leaving])
    assert account.live.delete(f"/consumers/{leaving}").status_code == 200
    assert stored_members(account, made) == {staying}


def test_concurrent_replacements_leave_one_complete_list(account: Account) -> None:
    made = create_audience(account, "SYNCED_LIST")["id"]
    ids = insert_consumers(account, 40)
    lists = [ids[:30], ids[10:], ids[::2], ids[1::2]]
    with ThreadPoolExecutor(len(lists)) as pool:
        for _ in range(20):
            responses = list(pool.map(lambda some: send_members(account, "PUT", made, some), lists))
            assert [response.status_code for response in responses] == [200] * len(lists)
            assert sorted(stored_members(account, made)) in [sorted(some) for some in lists]


def test_adding_members_while_they_are_deleted_never_fails(account: Account) -> None:
    first, second = (create_audience(account, "SYNCED_LIST")["id"] for _ in range(2))
    staying = insert_consumers(account, 5)

    def compete(number: int) -> httpx.Response:
        if number < 2:
            return account.live.delete(f"/consumers/{leaving[number]}")
        order = [*staying, *leaving] if number % 2 else [*reversed(leaving), *staying]
        return send_members(account, METHODS[number % 3], (first, second)[number // 2 % 2], order)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            leaving = insert_consumers(account, 2)
            responses = list(pool.map(compete, range(8)))
            assert [response.status_code for response in responses[:2]] == [200, 200]
            assert {response.status_code for response in responses[2:]} <= {200, 400}
            assert not (stored_members(account, first) | stored_members(account, second)) & set(leaving)


def test_adding_members_while_audience_is_deleted_never_fails(account: Account) -> None:
    ids = insert_consumers(account, 20)

    def compete(number: int) -> httpx.Response:
        if number == 2:
            return account.live.delete(f"/audiences/{leaving}")
        return send_members(account, "POST", leaving, ids[number:])

    with ThreadPoolExecutor(5) as pool:
        for _ in range(20):
            leaving = create_audience(account)["id"]
            responses = list(pool.map(compete, range(5)))
            assert responses.pop(2).status_code == 200
            assert {response.status_code for response in responses} <= {200, 404}
