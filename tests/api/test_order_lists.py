"""Pages of orders: filtered, newest first, in both directions (contract.md §3)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from api.cursors import Cursors
from api.orders.schemas import OrderListParameters
from tests.api.resources import faults
from tests.seals import stored_seal
from tests.service import Account, Service, new_account

DAY = "2024-01-05T00:00:00.000Z"
UNKNOWN = "cons_00000000000000000000000000"


class Shop(NamedTuple):
    account: Account
    buyers: list[str]


@pytest.fixture(scope="module")
def shop(service: Service) -> Iterator[Shop]:
    """150 orders of three buyers at ten different times; the same in the test environment."""
    buyers = sa.text("""
        INSERT INTO consumers (environment_id, external_id)
        SELECT :e, n FROM generate_series(1, 3) AS n RETURNING id""")
    orders = sa.text("""
        INSERT INTO orders (environment_id, consumer_id, status, amount, base_amount, currency_code, placed_at,
            updated_at)
        SELECT :e, (CAST(:buyers AS text[]))[1 + n % 3], (ARRAY['CREATED', 'COMPLETED', 'CANCELLED'])[1 + n / 7 % 3],
            n, n, 'USD', timestamptz '2024-01-01Z' + interval '1 day' * (n * 7 % 10),
            timestamptz '2024-02-01Z' + interval '1 day' * (n * 3 % 10)
        FROM generate_series(1, 150) AS n""")
    with new_account(service) as account:
        with account.database.engine.begin() as connection:
            for environment in (account.test_environment, account.live_environment):
                made = list(connection.execute(buyers, {"e": environment}).scalars())
                connection.execute(orders, {"e": environment, "buyers": made})
        yield Shop(account, made)


def page(shop: Shop, **parameters: Any) -> dict[str, Any]:
    response = shop.account.live.get("/orders", params=parameters)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def ids(content: dict[str, Any]) -> list[str]:
    return [row["id"] for row in content["data"]]


def sql_ids(shop: Shop, condition: str, column: str = "placed_at") -> list[str]:
    """Read the ids from PostgreSQL in the list's order."""
    query = sa.text(f"""
        SELECT id FROM orders WHERE environment_id = :e AND {condition} ORDER BY {column} DESC, id COLLATE "C" DESC""")
    with shop.account.database.engine.connect() as connection:
        values = {"e": shop.account.live_environment, "buyer": shop.buyers[1]}
        return list(
            connection.execute(query, {name: values[name] for name in values if f":{name}" in query.text}).scalars()
        )


CASES: list[tuple[dict[str, str], str]] = [
    ({}, "true"),
    ({"consumerId": "1"}, "consumer_id = :buyer"),
    ({"status": "CANCELLED"}, "status = 'CANCELLED'"),
    ({"status": "REFUNDED"}, "false"),
    ({"placedAfter": "2024-01-05"}, "placed_at >= '2024-01-05Z'"),
    ({"placedBefore": "2024-01-05T02:00:00+02:00"}, "placed_at < '2024-01-05Z'"),
    ({"placedAfter": DAY, "placedBefore": "2024-01-05T00:00:00.001Z"}, "placed_at = '2024-01-05Z'"),
    ({"placedAfter": DAY, "placedBefore": DAY}, "false"),
    ({"updatedAfter": "2024-02-05"}, "updated_at >= '2024-02-05Z'"),
    ({"sortBy": "updatedAt"}, "true"),
    ({"sortBy": "placedAt", "consumerId": "1"}, "consumer_id = :buyer"),
    (
        {"sortBy": "updatedAt", "consumerId": "1", "updatedBefore": "2024-02-05", "placedAfter": DAY},
        "consumer_id = :buyer AND updated_at < '2024-02-05Z' AND placed_at >= '2024-01-05Z'",
    ),
    (
        {"consumerId": "1", "status": "COMPLETED", "placedAfter": "2024-01-02", "placedBefore": "2024-01-09"},
        "consumer_id = :buyer AND status = 'COMPLETED' AND placed_at >= '2024-01-02Z' AND placed_at < '2024-01-09Z'",
    ),
]


@pytest.mark.parametrize("size", [7, 50, 100])
@pytest.mark.parametrize(("parameters", "condition"), CASES)
def test_paging_both_ways_returns_every_order_once_in_order(
    shop: Shop, parameters: dict[str, str], condition: str, size: int
) -> None:
    parameters = parameters | ({"consumerId": shop.buyers[1]} if "consumerId" in parameters else {})
    expected = sql_ids(shop, condition, "updated_at" if parameters.get("sortBy") == "updatedAt" else "placed_at")
    for size_name, cursor_name, cursor_field, flags in (
        ("first", "after", "endCursor", ("hasNextPage", "hasPreviousPage")),
        ("last", "before", "startCursor", ("hasPreviousPage", "hasNextPage")),
    ):
        returned: list[str] = []
        cursor: dict[str, str] = {}
        while (content := page(shop, **parameters, **{size_name: size}, **cursor))["data"]:
            returned = returned + ids(content) if size_name == "first" else ids(content) + returned
            info = content["pageInfo"]
            assert (info[flags[0]], info[flags[1]]) == (len(returned) < len(expected), bool(cursor))
            cursor = {cursor_name: info[cursor_field]}
        assert returned == expected
        ends = content["pageInfo"]
        assert (ends["startCursor"], ends["endCursor"], ends[flags[0]]) == (None, None, False)


def test_page_has_20_orders_by_default(shop: Shop) -> None:
    content = page(shop)
    assert list(content) == ["data", "pageInfo"]
    assert ids(content) == sql_ids(shop, "true")[:20]
    single = shop.account.live.get(f"/orders/{content['data'][0]['id']}").json()
    assert content["data"][0] == single


def test_paging_back_returns_the_previous_page(shop: Shop) -> None:
    first = page(shop, first=10)
    second = page(shop, first=10, after=first["pageInfo"]["endCursor"])
    back = page(shop, last=10, before=second["pageInfo"]["startCursor"])
    assert (ids(back), back["pageInfo"]["hasPreviousPage"]) == (ids(first), False)
    assert ids(page(shop, after=first["pageInfo"]["endCursor"])) == sql_ids(shop, "true")[10:30]
    assert ids(page(shop, before=second["pageInfo"]["endCursor"])) == sql_ids(shop, "true")[:19]


def test_paging_during_writes_loses_no_unchanged_order(shop: Shop, account: Account) -> None:
    buyer = account.live.post("/consumers", json={}).json()["id"]
    made = [
        account.live.post("/orders", json={"consumerId": buyer, "amount": 1, "placedAt": DAY}).json() for _ in range(6)
    ]
    mine = shop._replace(account=account)
    first = page(mine, first=2)
    assert ids(first) == [made[5]["id"], made[4]["id"]]
    account.live.delete(f"/orders/{made[4]['id']}")  # the row of the cursor
    account.live.post("/orders", json={"consumerId": buyer, "amount": 1, "placedAt": "2024-01-06"})
    remaining = page(mine, after=first["pageInfo"]["endCursor"])
    assert ids(remaining) == [row["id"] for row in reversed(made[:4])]


def test_unknown_or_foreign_consumer_has_no_orders(shop: Shop) -> None:
    foreign = shop.account.test.get("/orders").json()["data"][0]["consumerId"]
    for consumer_id in (foreign, UNKNOWN, "x", "é", "%"):
        content = page(shop, consumerId=consumer_id)
        info = {"startCursor": None, "endCursor": None, "hasNextPage": False, "hasPreviousPage": False}
        assert content == {"data": [], "pageInfo": info}


@pytest.mark.parametrize("name", ["after", "before"])
def test_cursor_of_another_list_is_refused(shop: Shop, name: str) -> None:
    cursor = page(shop, status="CREATED")["pageInfo"]["endCursor"]
    account = shop.account
    same = {"status": "CREATED", name: cursor}
    complete = account.live.get("/orders", params=same)
    assert complete.status_code == 200
    # Parameters left out are those of the cursor.
    assert account.live.get("/orders", params={name: cursor}).json()["data"] == complete.json()["data"]
    for other in (
        {"status": "COMPLETED"},
        {"status": "CREATED", "consumerId": shop.buyers[0]},
        {"placedAfter": DAY},
        {"updatedAfter": DAY},
        {"sortBy": "updatedAt"},
    ):
        assert faults(account.live.get("/orders", params=other | {name: cursor})).keys() == {name}
    default = account.live.get("/orders", params=same | {"sortBy": "placedAt"})
    assert default.json()["data"] == complete.json()["data"]
    assert faults(account.test.get("/orders", params=same)).keys() == {name}
    for path in ("/audiences", "/consumers"):
        assert faults(account.live.get(path, params={name: cursor})).keys() == {name}


@pytest.mark.parametrize("name", ["after", "before"])
def test_damaged_cursor_is_refused(shop: Shop, name: str) -> None:
    cursor = page(shop)["pageInfo"]["endCursor"]
    damaged = [cursor[:index] + ("A" if cursor[index] != "A" else "B") + cursor[index + 1 :] for index in range(60)]
    for wrong in [*damaged, cursor[:-1], cursor + "A", "null", "é", "x" * 3000, cursor.lower()]:
        assert faults(shop.account.live.get("/orders", params={name: wrong})).keys() == {name}


ID = "ord_01HZXW0000000000000000000A"


@pytest.mark.parametrize(
    "position",
    [
        [], [DAY], [DAY, ID, ID], [5, ID], [DAY, 5], ["soon", ID], [DAY, "\0"], ["2024-01-05", ID],
        ["2024-01-05T00:00:00", ID], [1.5, 2.5],
    ],
)  # fmt: skip
def test_sealed_cursor_with_another_position_is_refused(shop: Shop, position: list[Any]) -> None:
    environment = shop.account.live_environment
    seal = stored_seal(shop.account.database.engine, environment)
    cursors = Cursors(seal, "orders", OrderListParameters().list_parameters(), environment)
    assert shop.account.live.get("/orders", params={"after": cursors.encode([DAY, ID])}).status_code == 200
    for name in ("after", "before"):
        parameters = {name: cursors.encode(position)}
        assert faults(shop.account.live.get("/orders", params=parameters)).keys() == {name}


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({"first": 0}, {"first"}),
        ({"first": 101, "status": "completed"}, {"first", "status"}),
        ({"last": "x", "placedAfter": "soon", "placedBefore": "x"}, {"last", "placedAfter", "placedBefore"}),
        ({"first": 1, "last": 1}, {"last"}),
        ({"sortBy": "amount", "consumerid": "x", "q": "y"}, {"sortBy", "consumerid", "q"}),
        ({"consumerId": "\0"}, {"consumerId"}),
        ({"placedAfter": "2024-02-30"}, {"placedAfter"}),
    ],
)
def test_all_invalid_parameters_are_listed_at_once(shop: Shop, parameters: dict[str, Any], fields: set[str]) -> None:
    assert faults(shop.account.live.get("/orders", params=parameters)).keys() == fields
