"""Any list equals the result of SQL: same rows, same order, same count."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.pages import assert_pages_along, walk
from tests.api.resources import create
from tests.api.test_list import COLUMNS
from tests.service import Account, Service, new_account

ROWS = 1200
FILL = sa.text("""
    INSERT INTO consumers (environment_id, email, full_name, created_at, updated_at, total_orders,
        total_order_value, last_order_at, metadata)
    SELECT :environment,
        CASE WHEN n % 4 > 0 THEN (ARRAY['Ann', 'éva', 'zoë', 'Ω', '_'])[1 + n % 5] || n || '@Example.com' END,
        (ARRAY['Émile', 'emile', 'EMILE q1', 'q1 Ωmega', 'ωmega', 'Straße', 'STRASSE', '田中', 'Анна'])[1 + n % 10],
        '2024-01-01Z'::timestamptz + (n * 7919 % 30) * interval '1.001 s',
        '2024-01-01Z'::timestamptz + (n * 31 % 30) * interval '1.001 s',
        n % 4,
        (ARRAY[0, 0.0001, 10, 9.9999, 1234.5, 90000000000000])[1 + n * 31 % 6],
        (ARRAY['0001-01-02Z', '1969-12-31T23:59:59.999Z', '9999-12-30Z'])[1 + n % 4]::timestamptz,
        CASE WHEN n % 2 = 0 THEN jsonb_build_object('tier', (ARRAY['gold', 'Gold', 'tin'])[1 + n % 3], 'n', n) END
    FROM generate_series(1, :rows) AS n""")
SORT_COLUMNS = COLUMNS | {"updatedAt": "updated_at"}
SORTS = [*SORT_COLUMNS, "fullName"]
MOMENT = "2024-01-01T00:00:{:06.3f}Z"
WINDOWS = {
    "createdAfter": "created_at >=",
    "createdBefore": "created_at <",
    "updatedAfter": "updated_at >=",
    "updatedBefore": "updated_at <",
}
FILTERS = {
    "metadata.tier:gold": "lower(metadata->>'tier') = 'gold'",
    "metadata.n:100..900": "(metadata->>'n')::int BETWEEN 100 AND 900",
    "NOT email:* AND totalOrders:>=2": "email IS NULL AND total_orders >= 2",
    "fullName:strasse OR lastOrderAt:<1970-01-01": """full_name IN ('Straße', 'STRASSE')
        OR last_order_at < '1970-01-01Z'""",
    "totalOrderValue:>0.0001 NOT fullName:~mega": """total_order_value > 0.0001
        AND (full_name IS NULL OR full_name NOT IN ('q1 Ωmega', 'ωmega'))""",
    "NOT metadata.tier:tin": "metadata IS NULL OR metadata->>'tier' <> 'tin'",
    "updatedAt:>=2024-01-01T00:00:10.01Z": "updated_at >= '2024-01-01T00:00:10.01Z'",
    "email:nobody@example.com": "false",
}
AUDIENCES = {"static": "id IN (SELECT consumer_id FROM audience_members)", "dynamic": "metadata->>'tier' = 'tin'"}

steps = st.lists(st.tuples(st.sampled_from([True, True, False]), st.integers(1, 100)), min_size=2, max_size=12)


class ListRequest(NamedTuple):
    """A list as a request to the API and as an SQL condition."""

    path: str
    parameters: dict[str, Any]
    where: str


@st.composite
def lists(draw: st.DrawFn) -> ListRequest:
    parameters, where, path = dict[str, Any](), ["true"], "/consumers"
    if draw(st.booleans()):
        text, condition = draw(st.sampled_from([*FILTERS.items()]))
        parameters["filter"] = text
        where.append(condition)
    for name, condition in WINDOWS.items():
        if draw(st.integers(0, 3)) == 0:
            parameters[name] = MOMENT.format(draw(st.integers(0, 30)) * 1.001)
            where.append(f"{condition} '{parameters[name]}'")
    if draw(st.integers(0, 3)) == 0:
        parameters["search"] = "q1"
        where.append("full_name LIKE '%q1%'")
    for membership in draw(st.lists(st.sampled_from(["audienceId", "members"]), unique=True)):
        name = draw(st.sampled_from([*AUDIENCES]))
        where.append(AUDIENCES[name])
        if membership == "audienceId":
            parameters["audienceId"] = f"<{name}>"
        else:
            path = f"/audiences/<{name}>/members"
    if draw(st.booleans()):
        parameters["count"] = "true"
    return ListRequest(path, parameters, " AND ".join(f"({one})" for one in where))


class Crowd(NamedTuple):
    account: Account
    audiences: dict[str, str]

    def __repr__(self) -> str:
        return "<crowd>"

    def rows(self, where: str, order: str) -> list[str]:
        query = f"SELECT id FROM consumers WHERE environment_id = :environment AND {where} ORDER BY {order}"
        with self.account.database.engine.connect() as connection:
            return list(connection.execute(sa.text(query), {"environment": self.account.live_environment}).scalars())


@pytest.fixture(scope="module")
def crowd(service: Service) -> Iterator[Crowd]:
    with new_account(service) as account:
        with account.database.engine.begin() as connection:
            connection.execute(FILL, {"environment": account.live_environment, "rows": ROWS})
        rules = [{"field": "metadata.tier", "operator": "EQUALS", "values": ["TIN"]}]
        audiences = {
            "static": str(create(account.live, "/audiences", name="A", type="STATIC")["id"]),
            "dynamic": str(create(account.live, "/audiences", name="B", type="DYNAMIC", rules=rules)["id"]),
        }
        filled = Crowd(account, audiences)
        some = {"consumerIds": filled.rows("total_orders = 1", "id")}
        account.live.post(f"/audiences/{audiences['static']}/members", json=some).raise_for_status()
        account.settled()
        yield filled


@given(list_request=lists(), sort=st.sampled_from(SORTS), direction=st.sampled_from(["asc", "desc"]), steps=steps)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_list_equals_sql_however_it_is_paged(
    crowd: Crowd, list_request: ListRequest, sort: str, direction: str, steps: list[tuple[bool, int]]
) -> None:
    path, parameters = list_request.path, list_request.parameters | {"sortBy": sort, "sortDir": direction}
    for name, audience in crowd.audiences.items():
        path = path.replace(f"<{name}>", audience)
        parameters = {key: audience if value == f"<{name}>" else value for key, value in parameters.items()}
    if sort in SORT_COLUMNS:
        expected = crowd.rows(list_request.where, f"{SORT_COLUMNS[sort]} {direction} NULLS LAST, id {direction}")
    else:
        # The embedded PostgreSQL has no ICU; test_list_names.py tests the order of names.
        expected = walk(crowd.account.live, path, **parameters)
        assert sorted(expected) == crowd.rows(list_request.where, "id")
    assert_pages_along(crowd.account.live, expected, steps, path, **parameters)
