"""Conditional requests and `include` (contract.md §1, §2): an ETag identifies an exact response."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.resources import add_to_new_audience, count_rows, create, faults
from tests.service import Account

STALE = ['"1"', '"0", "1"', "1", "garbage", '"', ",", "W/*", '"*"', '*, "1"', '"1"' * 500]


@pytest.fixture
def jose(account: Account) -> dict[str, Any]:
    return create(account.live, fullName="José", email="jose@example.com")


def fetch(account: Account, consumer: dict[str, Any], **options: Any) -> httpx.Response:
    return account.live.get(f"/consumers/{consumer['id']}", **options)


def tag(account: Account, consumer: dict[str, Any], include: str | None = None) -> str:
    return str(fetch(account, consumer, params={"include": include} if include else None).headers["ETag"])


def change(account: Account, method: str, consumer: dict[str, Any], *if_match: str) -> httpx.Response:
    body = {"fullName": "Pepe"} if method == "PUT" else None
    headers = [(b"If-Match", value.encode()) for value in if_match]
    return account.live.request(method, f"/consumers/{consumer['id']}", json=body, headers=headers)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("header", ["{}", "*", '"1", {}', '{},"1"', 'W/"1" , {} ,'])
def test_if_match_with_the_current_version_succeeds(
    account: Account, jose: dict[str, Any], method: str, header: str
) -> None:
    assert change(account, method, jose, header.format(tag(account, jose))).status_code == 200


def test_etags_may_be_split_over_several_headers(account: Account, jose: dict[str, Any]) -> None:
    several = [("If-None-Match", one) for one in ('"1"', tag(account, jose))]
    assert fetch(account, jose, headers=several).status_code == 304
    assert change(account, "PUT", jose, '"1"', tag(account, jose)).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("header", [*STALE, "W/{}", "{}x", "é"])
def test_if_match_with_another_version_is_412(account: Account, jose: dict[str, Any], method: str, header: str) -> None:
    before = fetch(account, jose)
    response = change(account, method, jose, header.format(before.headers["ETag"]))
    assert (response.status_code, response.json()["error"]) == (412, "Precondition failed")
    assert (fetch(account, jose).text, tag(account, jose)) == (before.text, before.headers["ETag"])


def test_invalid_body_is_reported_before_the_precondition(account: Account, jose: dict[str, Any]) -> None:
    response = account.live.put(f"/consumers/{jose['id']}", json={"email": "x"}, headers={"If-Match": '"1"'})
    assert list(faults(response)) == ["email"]


def test_one_of_several_writers_of_a_version_wins(account: Account, jose: dict[str, Any]) -> None:
    known = tag(account, jose)
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda _: change(account, "PUT", jose, known).status_code, range(8)))
    assert statuses == [200] + [412] * 7


@pytest.mark.parametrize("include", [None, "audiences", "orders,audiences"])
@pytest.mark.parametrize("header", ["{}", "*", '"1", {}', "W/{}", '{}, "x"'])
def test_if_none_match_with_the_current_etag_is_304(
    account: Account, jose: dict[str, Any], include: str | None, header: str
) -> None:
    params = {"include": include} if include else None
    known = tag(account, jose, include)
    assert known.startswith("W/") == (include is not None)
    header = header.format(known).replace("W/W/", "W/")
    response = fetch(account, jose, params=params, headers={"If-None-Match": header})
    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", known)


@pytest.mark.parametrize("header", STALE)
def test_if_none_match_with_another_etag_returns_the_consumer(
    account: Account, jose: dict[str, Any], header: str
) -> None:
    assert fetch(account, jose, headers={"If-None-Match": header}).json() == jose


def test_unknown_consumer_is_404_with_any_precondition(account: Account) -> None:
    for name in ("If-None-Match", "If-Match"):
        for method in ("GET", "DELETE"):
            path = "/consumers/cons_00000000000000000000000000"
            assert account.live.request(method, path, headers={name: "*"}).status_code == 404


def test_version_rises_with_orders_and_memberships(account: Account, jose: dict[str, Any]) -> None:
    known = {tag(account, jose)}
    order = create(account.live, "/orders", consumerId=jose["id"], amount=5)
    known.add(tag(account, jose))
    account.live.put(f"/orders/{order['id']}", json={"amount": 6}).raise_for_status()
    known.add(tag(account, jose))
    account.live.delete(f"/orders/{order['id']}").raise_for_status()
    known.add(tag(account, jose))
    audience = add_to_new_audience(account.live, jose["id"])
    known.add(tag(account, jose))
    body = {"consumerIds": [jose["id"]]}
    assert account.live.request("DELETE", f"/audiences/{audience}/members", json=body).json()["removedCount"] == 1
    known.add(tag(account, jose))
    assert len(known) == 6
    assert fetch(account, jose).json()["updatedAt"] >= jose["updatedAt"]
    account.live.request("DELETE", f"/audiences/{audience}/members", json=body).raise_for_status()
    assert tag(account, jose) in known


def test_etag_changes_with_the_included_resources(account: Account, jose: dict[str, Any]) -> None:
    everything = "audiences,orders"
    known = [tag(account, jose, everything)]
    order = create(account.live, "/orders", consumerId=jose["id"], amount=5)
    known.append(tag(account, jose, everything))
    # Neither change raises the consumer's own version.
    version = tag(account, jose)
    account.live.put(f"/orders/{order['id']}", json={"externalId": "o1"}).raise_for_status()
    known.append(tag(account, jose, everything))
    assert tag(account, jose) == version
    audience = add_to_new_audience(account.live, jose["id"])
    known.append(tag(account, jose, everything))
    account.live.put(f"/audiences/{audience}", json={"name": "Foes"}).raise_for_status()
    known.append(tag(account, jose, everything))
    assert len(set(known)) == len(known)
    assert tag(account, jose, "orders,audiences") == known[-1]


@pytest.mark.parametrize(
    ("include", "fields"),
    [
        ("orders", ["orders"]),
        ("audiences", ["audiences"]),
        ("audiences,orders", ["audiences", "orders"]),
        ("orders,audiences,orders", ["audiences", "orders"]),
    ],
)
def test_include_adds_the_named_resources(
    account: Account, jose: dict[str, Any], include: str, fields: list[str]
) -> None:
    orders = [
        create(account.live, "/orders", consumerId=jose["id"], amount=n, placedAt=f"2024-01-{n:02}") for n in (1, 3, 2)
    ]
    friends, best = (add_to_new_audience(account.live, jose["id"], name) for name in ("Friends", "Best friends"))
    response = fetch(account, jose, params={"include": include})
    plain = fetch(account, jose).json()
    expected = {
        "audiences": [
            {"id": best, "name": "Best friends", "type": "STATIC"},
            {"id": friends, "name": "Friends", "type": "STATIC"},
        ],
        "orders": [orders[1], orders[2], orders[0]],
    }
    assert response.json() == plain | {name: expected[name] for name in fields}
    assert list(response.json()) == [*plain, *fields]


def test_the_50_newest_orders_are_included(account: Account, jose: dict[str, Any]) -> None:
    batch = [{"consumerId": jose["id"], "amount": n, "placedAt": f"2024-01-01T00:00:{n:02}Z"} for n in range(51)]
    account.live.post("/orders/batch", json=batch).raise_for_status()
    amounts = [order["amount"] for order in fetch(account, jose, params={"include": "orders"}).json()["orders"]]
    assert amounts == [str(n) for n in range(50, 0, -1)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("include=nothing", "include"),
        ("include=orders,nothing", "include"),
        ("include=orders,", "include"),
        ("include=Orders", "include"),
        ("include=orders, audiences", "include"),
        ("includes=orders", "includes"),
        ("fields=id", "fields"),
    ],
)
def test_invalid_include_is_400(account: Account, jose: dict[str, Any], query: str, field: str) -> None:
    assert list(faults(account.live.get(f"/consumers/{jose['id']}?{query}"))) == [field]


def test_included_resources_are_from_one_snapshot(account: Account, jose: dict[str, Any]) -> None:
    """The totals of a response agree with its orders during concurrent writes."""

    def write(number: int) -> None:
        create(account.live, "/orders", consumerId=jose["id"], amount=number)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, number) for number in range(40)]
        while not all(one.done() for one in writing):
            seen = fetch(account, jose, params={"include": "orders,audiences"}).json()
            assert len(seen["orders"]) == seen["totalOrders"]
        for one in writing:
            one.result()
    assert count_rows(account, "orders") == 40
