"""The list has the order of PostgreSQL's ORDER BY in both directions."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.api.pages import assert_pages_along, get_page, page_ids, pages_forward, walk, walk_backward
from tests.api.resources import create
from tests.service import Account, Service, new_account

ROWS = 10_000
FILL = sa.text("""
    INSERT INTO consumers (environment_id, email, full_name, created_at, updated_at, total_orders, total_order_value,
        last_order_at)
    SELECT :environment,
        CASE WHEN n % 5 > 0 THEN
            (ARRAY['Ann', 'ann.', 'bob+', 'Éva', 'zoë', 'o''', 'Ωmega', '_'])[1 + n % 8] || n || '@Example.com' END,
        'Somebody q' || n % 7,
        '2024-01-01Z'::timestamptz + (n * 7919 % 40) * interval '1.001 s',
        '2024-01-02Z'::timestamptz + (n * 31 % 40) * interval '1.001 s',
        n % 4,
        (ARRAY[0, 0.0001, 0.0002, 10, 9.9999, 1234.5, 89999999999999.9999, 90000000000000])[1 + n * 31 % 8],
        CASE WHEN n % 3 > 0 THEN (ARRAY['0001-01-02Z', '1969-12-31T23:59:59.999Z', '1970-01-01Z',
            '2024-02-29T12:00:00.5Z', '9999-12-30Z'])[1 + n % 5]::timestamptz END
    FROM generate_series(1, :rows) AS n""")
COLUMNS = {
    "createdAt": "created_at",
    "email": 'email_key COLLATE "C"',
    "lastOrderAt": "last_order_at",
    "totalOrderValue": "total_order_value",
    "totalOrders": "total_orders",
}
orders = pytest.mark.parametrize(("sort", "direction"), [(sort, way) for sort in COLUMNS for way in ("asc", "desc")])


@pytest.fixture(scope="module")
def crowd(service: Service) -> Iterator[Account]:
    """Ten thousand consumers with many ties, nulls and extreme values."""
    with new_account(service) as account:
        with account.database.engine.begin() as connection:
            for environment, rows in ((account.live_environment, ROWS), (account.test_environment, ROWS // 10)):
                connection.execute(FILL, {"environment": environment, "rows": rows})
        account.settled()
        yield account


def sql_ids(account: Account, sort: str, direction: str, where: str = "true") -> list[str]:
    query = f"""SELECT id FROM consumers WHERE environment_id = :environment AND {where}
        ORDER BY {COLUMNS[sort]} {direction} NULLS LAST, id {direction}"""
    with account.database.engine.connect() as connection:
        return list(connection.execute(sa.text(query), {"environment": account.live_environment}).scalars())


@orders
def test_paging_both_ways_returns_every_row_once_in_order(crowd: Account, sort: str, direction: str) -> None:
    expected = sql_ids(crowd, sort, direction)
    assert walk(crowd.live, sortBy=sort, sortDir=direction) == expected
    assert walk_backward(crowd.live, sortBy=sort, sortDir=direction) == expected


@orders
def test_paging_may_turn_anywhere_with_any_page_size(crowd: Account, sort: str, direction: str) -> None:
    chance = random.Random(f"{sort} {direction}")
    expected = sql_ids(crowd, sort, direction)
    steps = [(chance.random() < 0.7, chance.choice([1, 2, 20, 77, 100])) for _ in range(40)]
    assert_pages_along(crowd.live, expected, steps, sortBy=sort, sortDir=direction)


@pytest.mark.parametrize("size", [13, 60])
def test_paging_by_creation_handles_bursts_and_gaps(account: Account, size: int) -> None:
    moments = ["0001-01-02Z", "1969-12-31T23:59:59.999Z", "1970-01-01Z", "2024-01-01Z", "2024-01-01T00:00:00.9Z"]
    moments += [f"2024-01-01T00:0{minute}:01.{minute}01Z" for minute in range(5)] + ["2024-06-01Z", "9999-12-30Z"]
    insert = sa.text("""
        INSERT INTO consumers (environment_id, created_at)
        SELECT :environment, m FROM unnest(CAST(:moments AS timestamptz[])) AS m, generate_series(1, 90)""")
    with account.database.engine.begin() as connection:
        connection.execute(insert, {"environment": account.live_environment, "moments": moments})
    account.settled()
    for direction in ("asc", "desc"):
        expected = sql_ids(account, "createdAt", direction)
        assert walk(account.live, first=size, sortDir=direction) == expected
        assert walk_backward(account.live, last=size, sortDir=direction) == expected


def test_first_pages_are_found_after_inserts_and_deletes(account: Account) -> None:
    insert = sa.text("""
        INSERT INTO consumers (environment_id, created_at, email, total_orders)
        SELECT :environment, CAST(:moment AS timestamptz) + n * interval '1 day',
            CASE WHEN n % 3 > 0 THEN n || :domain END, n % 3
        FROM generate_series(1, :rows) AS n""")
    delete = sa.text("DELETE FROM consumers WHERE environment_id = :environment AND id = ANY(:ids)")
    orders = [(sort, way) for sort in ("createdAt", "email", "totalOrders") for way in ("asc", "desc")]

    def changed(statement: sa.TextClause, **values: Any) -> None:
        with account.database.engine.begin() as connection:
            connection.execute(statement, {"environment": account.live_environment} | values)
        account.settled()
        for sort, way in orders * 2:  # the second request starts from the window of the first
            expected, order = sql_ids(account, sort, way), {"sortBy": sort, "sortDir": way}
            assert page_ids(get_page(account.live, **order, first=5)) == expected[:5]
            assert page_ids(get_page(account.live, **order, last=5)) == expected[-5:]

    changed(insert, moment="2024-01-01Z", rows=1_300, domain="@example.com")
    for sort, way in orders[1::2]:
        changed(delete, ids=sql_ids(account, sort, way)[:40])
    changed(insert, moment="1924-01-01Z", rows=2, domain="@a.example.com")
    changed(insert, moment="2024-01-01Z", rows=9, domain="@b.example.com")


def test_page_without_parameters_is_the_20_newest(crowd: Account) -> None:
    assert page_ids(get_page(crowd.live)) == sql_ids(crowd, "createdAt", "desc")[:20]


def test_last_page_keeps_the_list_order(crowd: Account) -> None:
    content = get_page(crowd.live, last=5)
    assert page_ids(content) == sql_ids(crowd, "createdAt", "desc")[-5:]
    assert content["pageInfo"]["hasNextPage"] is False
    assert content["pageInfo"]["hasPreviousPage"] is True


def test_page_before_a_cursor_has_20_rows_by_default(crowd: Account) -> None:
    cursor = get_page(crowd.live, last=1)["pageInfo"]["startCursor"]
    assert page_ids(get_page(crowd.live, before=cursor)) == sql_ids(crowd, "createdAt", "desc")[-21:-1]


def test_page_after_the_last_row_is_empty_with_null_cursors(crowd: Account) -> None:
    cursor = get_page(crowd.live, last=1)["pageInfo"]["endCursor"]
    assert get_page(crowd.live, after=cursor) == {
        "data": [],
        "pageInfo": {"startCursor": None, "endCursor": None, "hasNextPage": False, "hasPreviousPage": True},
    }


def test_list_without_rows_is_an_empty_page(account: Account) -> None:
    nothing = {"startCursor": None, "endCursor": None, "hasNextPage": False, "hasPreviousPage": False}
    for parameters in ({}, {"last": 5}, {"search": "nobody"}, {"sortBy": "email"}):
        assert get_page(account.live, **parameters) == {"data": [], "pageInfo": nothing}


def test_listed_rows_equal_single_reads_byte_for_byte(crowd: Account) -> None:
    response = crowd.live.get("/consumers", params={"sortBy": "totalOrderValue", "first": 5})
    rows = [crowd.live.get(f"/consumers/{row['id']}").text for row in response.json()["data"]]
    assert response.text.startswith('{"data":[' + ",".join(rows) + '],"pageInfo":')


@pytest.mark.parametrize(
    ("window", "where"),
    [
        ({"createdAfter": "2024-01-01T00:00:05.005Z"}, "created_at >= '2024-01-01T00:00:05.005Z'"),
        ({"createdBefore": "2024-01-01T00:00:05.005Z"}, "created_at < '2024-01-01T00:00:05.005Z'"),
        ({"createdAfter": "2024-01-01T02:00:05.006+02:00"}, "created_at >= '2024-01-01T00:00:05.006Z'"),
        ({"createdAfter": "2024-01-01"}, "true"),
        ({"createdBefore": "2024-01-01"}, "false"),
        (
            {"createdAfter": "2024-01-01T00:00:01.001Z", "createdBefore": "2024-01-01T00:00:03.003Z"},
            "created_at >= '2024-01-01T00:00:01.001Z' AND created_at < '2024-01-01T00:00:03.003Z'",
        ),
        ({"createdAfter": "2024-01-01T00:00:03Z", "createdBefore": "2024-01-01T00:00:01Z"}, "false"),
        ({"updatedAfter": "2024-01-02T00:00:35.035Z"}, "updated_at >= '2024-01-02T00:00:35.035Z'"),
        ({"updatedBefore": "2024-01-02T02:00:05.005+02:00"}, "updated_at < '2024-01-02T00:00:05.005Z'"),
        (
            {"updatedAfter": "2024-01-02T00:00:01.001Z", "createdBefore": "2024-01-01T00:00:03.003Z"},
            "updated_at >= '2024-01-02T00:00:01.001Z' AND created_at < '2024-01-01T00:00:03.003Z'",
        ),
        ({"updatedAfter": "2024-01-03", "updatedBefore": "2024-01-02"}, "false"),
    ],
)
def test_start_of_a_window_is_inclusive_and_its_end_exclusive(
    crowd: Account, window: dict[str, str], where: str
) -> None:
    assert walk(crowd.live, **window) == sql_ids(crowd, "createdAt", "desc", where)


def test_search_filters_the_list_and_keeps_its_order(crowd: Account) -> None:
    ids = walk(crowd.live, search="somebody q3", sortBy="email", sortDir="asc")
    assert ids == sql_ids(crowd, "email", "asc", "full_name = 'Somebody q3'")
    assert walk_backward(crowd.live, search="somebody q3", sortBy="email", sortDir="asc") == ids


def test_lists_of_two_environments_are_disjoint(crowd: Account) -> None:
    live, test = (set(walk(client, sortBy="totalOrders")) for client in (crowd.live, crowd.test))
    assert live == set(sql_ids(crowd, "totalOrders", "desc"))
    assert live.isdisjoint(test)
    assert set(walk(crowd.test, search="somebody")) == test
    assert crowd.test.get(f"/consumers/{min(live)}").status_code == 404


UNCHANGED_FILTER = "fullName:~somebody AND NOT totalOrders:>8"


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"sortBy": "totalOrders", "sortDir": "asc"},
        {"search": "somebody"},
        {"filter": UNCHANGED_FILTER},
        {"audienceId": "<dynamic>", "sortBy": "fullName"},
    ],
)
def test_paging_during_writes_returns_unchanged_rows_once(account: Account, parameters: dict[str, str]) -> None:
    engine, environment = account.database.engine, {"environment": account.live_environment}
    with engine.begin() as connection:
        connection.execute(FILL, environment | {"rows": 300})
    account.settled()
    change = sa.text("""
        WITH gone AS (DELETE FROM consumers WHERE id IN
            (SELECT id FROM consumers WHERE environment_id = :environment AND metadata = '{}' LIMIT 5)),
        moved AS (UPDATE consumers SET total_orders = total_orders + 1
            WHERE environment_id = :environment AND metadata = '{"moves": true}')
        INSERT INTO consumers (environment_id, full_name, metadata, total_orders)
        SELECT :environment, 'Somebody New', CASE n % 9 WHEN 0 THEN '{"moves": true}' ELSE '{}' END::jsonb, n % 4
        FROM generate_series(1, 9) AS n""")
    stop = threading.Event()

    def write_continuously() -> None:
        while not stop.is_set():
            with engine.begin() as connection:
                connection.execute(change, environment)

    if "audienceId" in parameters:
        dynamic = create(account.live, "/audiences", name="A", type="DYNAMIC", filter=UNCHANGED_FILTER)
        parameters = parameters | {"audienceId": dynamic["id"]}
    unchanged = sql_ids(account, "createdAt", "desc")
    thread = threading.Thread(target=write_continuously)
    thread.start()
    try:
        returned: list[str] = []
        for content in pages_forward(account.live, first=7, **parameters):
            returned += page_ids(content)
            if len(returned) > 20 * len(unchanged):
                break  # the writer inserts rows faster than the test reads them
    finally:
        stop.set()
        thread.join()
    kept = set(unchanged)
    sort = parameters.get("sortBy", "createdAt")
    order = (
        sql_ids(account, sort, parameters.get("sortDir", "desc"))
        if sort in COLUMNS
        else walk(account.live, sortBy=sort)
    )
    assert [row for row in returned if row in kept] == [row for row in order if row in kept]
