"""Rules and filters select the same consumers as the reference implementation, on every route."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.filters.conditions import AllOf, AnyOf, Condition, Expression, Not
from infra.filters.language import MAX_DEPTH
from tests.api.pages import walk
from tests.api.resources import create
from tests.filter_expressions import ALL_OPERATORS, as_rule, conditions, depth, expressions, is_light, written
from tests.filter_reference import Row, holds
from tests.random_consumers import fill, person
from tests.service import Account, Service, new_account

REGION = "GB"
PEOPLE = 250
few_examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Crowd(NamedTuple):
    """An environment, and its consumers as the API shows them, in list order."""

    account: Account
    rows: list[Row]

    def __repr__(self) -> str:
        return "<crowd>"

    def expected_ids(self, expression: Expression) -> list[str]:
        return [row["id"] for row in self.rows if holds(expression, row, REGION)]


@pytest.fixture(scope="module")
def crowd(service: Service) -> Iterator[Crowd]:
    with new_account(service, region=REGION) as account:
        with account.database.engine.begin() as connection:
            for environment in (account.live_environment, account.test_environment):
                fill(connection, environment, [person(Random(seed)) for seed in range(PEOPLE)])
        account.settled()
        rows: list[Row] = []
        cursor: dict[str, Any] = {}
        while len(rows) < PEOPLE:
            response = account.live.get("/consumers", params={"first": 100, **cursor})
            content = json.loads(response.text, parse_float=Decimal)
            rows += content["data"]
            cursor = {"after": content["pageInfo"]["endCursor"]}
        yield Crowd(account, rows)


def members(crowd: Crowd, audience: str) -> list[str]:
    """Return the members of an audience, and assert that every route with members or counts agrees."""
    client = crowd.account.live
    ids = walk(client, f"/audiences/{audience}/members")
    assert walk(client, audienceId=audience) == ids
    assert client.get(f"/audiences/{audience}/count").json() == {"audienceId": audience, "count": len(ids)}
    counted = client.get("/consumers", params={"audienceId": audience, "count": "true", "first": 1})
    assert counted.json()["totalCount"] == len(ids)
    return ids


def ids_including(crowd: Crowd, audience: str) -> list[str]:
    """Return the consumers with the audience in `include=audiences`."""
    ids, cursor = [], dict[str, Any]()
    while True:
        content = crowd.account.live.get("/consumers", params={"include": "audiences", "first": 100, **cursor}).json()
        ids += [row["id"] for row in content["data"] if audience in [one["id"] for one in row["audiences"]]]
        if not content["pageInfo"]["hasNextPage"]:
            return ids
        cursor = {"after": content["pageInfo"]["endCursor"]}


groups = st.lists(
    st.tuples(conditions(ALL_OPERATORS, rules=True), st.sampled_from([None, "a", "b"])), min_size=1, max_size=5
).filter(lambda rules: is_light(condition for condition, _ in rules))


@given(groups)
@few_examples
def test_dynamic_audience_has_the_members_its_rules_describe(
    crowd: Crowd, rules: list[tuple[Condition, str | None]]
) -> None:
    grouped: dict[str | None, list[Expression]] = {}
    for condition, group in rules:
        grouped.setdefault(group, []).append(condition)
    expected = crowd.expected_ids(AnyOf([AllOf(group) for group in grouped.values()]))
    sent = [as_rule(condition, group) for condition, group in rules]
    audience = create(crowd.account.live, "/audiences", name="A", type="DYNAMIC", rules=sent)["id"]
    try:
        assert members(crowd, audience) == expected
        assert ids_including(crowd, audience) == expected
        if expected:
            one = crowd.account.live.get(f"/consumers/{expected[0]}", params={"include": "audiences"})
            assert audience in [each["id"] for each in one.json()["audiences"]]
    finally:
        crowd.account.live.delete(f"/audiences/{audience}").raise_for_status()


@given(expressions(conditions()))
@few_examples
def test_filter_and_its_audience_return_the_expected_consumers(crowd: Crowd, expression: Expression) -> None:
    client, text = crowd.account.live, written(expression)
    expected = crowd.expected_ids(expression)
    assert walk(client, filter=text) == expected
    if depth(expression) < MAX_DEPTH:
        assert walk(client, filter=f"NOT {text}") == crowd.expected_ids(Not(expression))
    response = client.post("/audiences", json={"name": "A", "type": "DYNAMIC", "filter": text})
    if response.status_code == 400:
        assert re.search("rules|Too much text", response.json()["details"][0]["message"])
        return
    audience = response.raise_for_status().json()["id"]
    try:
        assert members(crowd, audience) == expected
        assert walk(client, filter=text, audienceId=audience) == expected
        assert walk(client, f"/audiences/{audience}/members", filter=text) == expected
    finally:
        client.delete(f"/audiences/{audience}").raise_for_status()
