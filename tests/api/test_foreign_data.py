"""Environments with identical data: each read returns only rows of the caller's environment."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from tests.api.resources import create, fault_fields
from tests.service import Account, Service, new_account

ROWS = 25
INSERT = sa.text("""
    INSERT INTO consumers (environment_id, email, phone, full_name, external_id, metadata, total_orders, last_order_at)
    SELECT :environment, 'ann' || n || '@example.com', '+44207946' || lpad(n::text, 4, '0'), 'Ann Same',
        'external-' || n, jsonb_build_object('tier', 'gold', 'n', n), n % 3, '2024-01-01Z'
    FROM generate_series(1, :rows) AS n""")
RULES = [{"field": "metadata.n", "operator": "GREATER_THAN", "values": [5], "groupId": None}]
SORTS = ["createdAt", "updatedAt", "email", "fullName", "lastOrderAt", "totalOrderValue", "totalOrders"]
LISTS: list[dict[str, Any]] = [
    {},
    {"first": 100, "count": "true"},
    {"last": 100},
    *({"sortBy": sort, "sortDir": way, "first": 100} for sort in SORTS for way in ("asc", "desc")),
    {"search": "ann same"},
    {"search": "ann7@example.com"},
    {"search": "442079460007"},
    {"search": "external-7"},
    {"createdAfter": "2000-01-01", "createdBefore": "2999-01-01", "count": "true"},
    {"updatedAfter": "2000-01-01", "updatedBefore": "2999-01-01", "count": "true"},
    {"filter": "fullName:~same OR metadata.tier:gold OR NOT email:*", "count": "true"},
    {"filter": 'email:ann7@example.com OR phone:"020 7946 0007" OR externalId:external-7', "count": "true"},
    {"audienceId": "<static>", "count": "true"},
    {"audienceId": "<dynamic>", "count": "true"},
    {"include": "audiences", "first": 100},
    {"include": "audiences", "audienceId": "<static>", "filter": "metadata.n:>3", "search": "ann", "count": "true"},
]
SEARCHES: list[dict[str, Any]] = [
    {"q": "ann same", "first": 100},
    {"q": "saem"},
    {"q": "same", "explain": "true"},
    {"email": "ann7@example.com"},
    {"phone": "+44 20 7946 0007"},
    {"externalId": "external-7"},
    {"q": "ann", "email": "ann7@example.com", "phone": "02079460007", "externalId": "external-7", "explain": "true"},
    {"q": "ann", "filter": "metadata.tier:gold"},
]
CASES = [
    *(("/consumers", one) for one in LISTS),
    *(("/audiences/<static>/members", one) for one in LISTS),
    *(("/audiences/<dynamic>/members", one) for one in LISTS),
    *(("/consumers/search", one) for one in SEARCHES),
]


class Tenant(NamedTuple):
    """Client, audiences and consumers of an environment."""

    client: httpx.Client
    names: dict[str, str]
    consumers: dict[str, int]
    """Number of each consumer by id; the numbers are the same in every environment."""

    def get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        def named(text: Any) -> Any:
            for name, value in self.names.items():
                text = text.replace(f"<{name}>", value) if isinstance(text, str) else text
            return text

        response = self.client.get(named(path), params={name: named(value) for name, value in parameters.items()})
        assert response.status_code == 200, response.text
        content: dict[str, Any] = response.json()
        return content


def _fill(client: httpx.Client, environment: int, account: Account) -> Tenant:
    with account.database.engine.begin() as connection:
        connection.execute(INSERT, {"environment": environment, "rows": ROWS})
        query = sa.text("SELECT id, (metadata->>'n')::int FROM consumers WHERE environment_id = :environment")
        consumers = {row.id: row[1] for row in connection.execute(query, {"environment": environment})}
    names = {
        "static": create(client, "/audiences", name="Same", type="STATIC")["id"],
        "dynamic": create(client, "/audiences", name="Same", type="DYNAMIC", rules=RULES)["id"],
    }
    some = [one for one, number in consumers.items() if number <= 10]
    client.post(f"/audiences/{names['static']}/members", json={"consumerIds": some}).raise_for_status()
    return Tenant(client, names, consumers)


@pytest.fixture(scope="module")
def tenants(service: Service) -> Iterator[list[Tenant]]:
    """Both environments of an organization, and the live environment of a second organization."""
    with new_account(service, region="GB") as one, new_account(service, region="GB") as other:
        yield [
            _fill(client, environment, account)
            for client, environment, account in (
                (one.live, one.live_environment, one),
                (one.test, one.test_environment, one),
                (other.live, other.live_environment, other),
            )
        ]
        one.settled()


@pytest.fixture(scope="module", autouse=True)
def searchable(tenants: list[Tenant]) -> None:
    for tenant in tenants:
        last = tenant.client.put("/consumers/batch", json=[], headers={"Prefer": "wait=10"})
        assert last.headers["Index-State"] == "searchable"


@pytest.mark.parametrize(("path", "parameters"), CASES, ids=str)
def test_each_environment_returns_only_its_own_rows(
    tenants: list[Tenant], path: str, parameters: dict[str, Any]
) -> None:
    numbers, totals = [], []
    for tenant in tenants:
        content = tenant.get(path, parameters)
        assert content["data"]
        numbers.append(sorted(tenant.consumers[row["id"]] for row in content["data"]))
        totals.append(content.get("totalCount"))
        shown = {one["id"] for row in content["data"] for one in row.get("audiences", [])}
        assert shown <= {*tenant.names.values()}
        assert bool(shown) == ("include" in parameters)
    # Rows with equal sort values may be on any page, so an incomplete page may differ.
    assert len({len(one) for one in numbers}) == 1
    assert len(numbers[0]) >= 20 or numbers[0] == numbers[1] == numbers[2]
    assert len(set(totals)) == 1
    assert totals[0] is None or totals[0] == len(numbers[0]) or len(numbers[0]) == 20


@pytest.mark.parametrize(("name", "members"), [("static", 10), ("dynamic", 20)])
def test_equal_audiences_are_counted_per_environment(tenants: list[Tenant], name: str, members: int) -> None:
    for tenant in tenants:
        assert tenant.get(f"/audiences/<{name}>/count", {})["count"] == members


def test_consumer_shows_the_audiences_of_its_own_environment(tenants: list[Tenant]) -> None:
    for tenant in tenants:
        for consumer, number in tenant.consumers.items():
            shown = tenant.get(f"/consumers/{consumer}", {"include": "audiences"})["audiences"]
            mine = [*(["static"] if number <= 10 else []), *(["dynamic"] if number > 5 else [])]
            assert sorted(one["id"] for one in shown) == sorted(tenant.names[name] for name in mine)


def test_every_read_parameter_is_covered(service: Service) -> None:
    paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    for path, cases in (
        ("/consumers", LISTS),
        ("/audiences/{audienceId}/members", LISTS),
        ("/consumers/search", SEARCHES),
    ):
        known = {one["name"] for one in paths[f"/api/v1{path}"]["get"]["parameters"] if one.get("in") == "query"}
        assert known - {"after", "before"} <= {name for case in cases for name in case}


def test_cursor_is_refused_by_other_environments(tenants: list[Tenant]) -> None:
    for path, parameters in CASES:
        for tenant, other in zip(tenants, tenants[1:] + tenants[:1], strict=True):
            cursor = tenant.get(path, parameters)["pageInfo"]["endCursor"]
            without_size = {name: value for name, value in parameters.items() if name not in {"first", "last"}}
            other_parameters = {
                name: other.names.get(str(value).strip("<>"), value) for name, value in without_size.items()
            }
            other_path = path
            for name, value in other.names.items():
                other_path = other_path.replace(f"<{name}>", value)
            response = other.client.get(other_path, params=other_parameters | {"after": cursor})
            assert fault_fields(response) == ["after"]
