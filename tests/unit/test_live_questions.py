"""The language of live questions: a list of what may be said, and a bound for everything (contract.md §6)."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.analytics import answers, asking, bodies
from api.analytics.asking import Asked
from api.analytics.fields import Refused
from api.auth import Caller
from api.errors import Problem
from api.turns import Steps
from infra.exports.attributes import Attribute
from infra.index.former_terms import exists_terms
from tests.hostile_questions import ALL, HOSTILE
from tests.seals import fixed_seal

ATTRIBUTES = [Attribute("tier", "text"), Attribute("address.city", "text"), Attribute("points", "number")]


def ask(body: Any) -> bodies.Search:
    return bodies.search(body, ATTRIBUTES, "GB")


class Unasked(Asked):
    """The request of a question that must not be asked: there is no index, and no place for questions."""

    async def attributes(self) -> list[Attribute]:
        return ATTRIBUTES


def send(body: Any) -> None:
    """Send a body as far as the first use of the index or of the places for questions."""
    caller = Caller(
        key_id="key", organization_id="org", environment_id=1, mode="live", scopes=frozenset(), seal=fixed_seal()
    )
    asyncio.run(asking.search(Unasked(cast("Any", None), cast("Any", None), caller), body))


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: str(body)[:60])
def test_everything_that_is_not_in_the_list_is_refused_and_named(body: Any) -> None:
    with pytest.raises(Problem) as refused:
        send(body)
    [fault] = refused.value.details
    assert refused.value.status == 400
    assert fault.field
    assert fault.message


def test_a_body_in_the_list_is_asked() -> None:
    """So the test above would fail for a body that is sent before it is checked."""
    with pytest.raises(AttributeError, match="freshness"):
        send({"query": ALL})


names = st.sampled_from(
    [
        "query",
        "aggs",
        "bool",
        "filter",
        "terms",
        "term",
        "range",
        "field",
        "a",
        "size",
        "sort",
        "id",
        "createdAt",
        "order",
    ]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(junk)
def test_no_body_is_a_fault_of_the_service(body: Any) -> None:
    for question in (body, {"query": body}, {"aggs": {"a": body}}, {"aggs": {"a": {"terms": body}}}, {"sort": body}):
        with suppress(Refused):
            ask(question)


def test_queries_are_those_of_the_index() -> None:
    asked = ask(
        {
            "query": {
                "bool": {
                    "must": {"term": {"phoneCountry": {"value": "GB"}}},
                    "filter": [
                        {"range": {"totalOrderValue": {"gte": "10.5", "lt": 99.99}}},
                        {"range": {"totalOrders": {"gt": 2.5, "lte": 1e300}}},
                        {"range": {"lastOrderAt": {"gte": "now-30d/d", "lt": "2024-11-01", "lte": 0}}},
                        {"terms": {"totalOrders": [1, 2.5, "3"]}},
                        {"ids": {"values": ["c"]}},
                    ],
                    "must_not": [{"exists": {"field": "email"}}],
                    "minimum_should_match": 0,
                }
            },
            "sort": [{"totalOrderValue": "desc"}, "id"],
            "search_after": ["5.25", "cons_1"],
        }
    )
    assert asked.query == {
        "bool": {
            "must": [{"term": {"phoneCountry": "GB"}}],
            "filter": [
                {"range": {"totalOrderValue": {"gte": 105000, "lt": 999900}}},
                {"range": {"totalOrders": {"gt": 2, "lte": 2147483647}}},
                {
                    "range": {
                        "lastOrderAt": {
                            "gte": "now-30d/d",
                            "lt": "2024-11-01T00:00:00.000Z",
                            "lte": "1970-01-01T00:00:00.000Z",
                        }
                    }
                },
                {"terms": {"totalOrders": [1, 3]}},
                {"terms": {"id": ["c"]}},
            ],
            "must_not": [{"terms": {"texts": exists_terms("email")}}],
            "minimum_should_match": 0,
        }
    }
    assert asked.options["search_after"] == [52500, "cons_1"]
    assert "email" not in asked.options["_source"]


def test_aggregations_never_make_empty_buckets_and_domains_are_shared() -> None:
    asked = ask(
        {
            "size": 0,
            "aggs": {
                "domains": {"terms": {"field": "emailDomain", "min_doc_count": 1}},
                "tiers": {"terms": {"field": "attributes.tier"}, "aggs": {"v": {"avg": {"field": "totalOrderValue"}}}},
                "months": {"date_histogram": {"field": "createdAt", "calendar_interval": "month", "min_doc_count": 0}},
            },
        }
    )
    aggs = asked.options["aggs"]
    assert aggs["domains"]["terms"]["min_doc_count"] == 5
    assert aggs["months"]["date_histogram"]["min_doc_count"] == 1
    assert aggs["months"]["date_histogram"]["hard_bounds"]
    assert (aggs["tiers"]["terms"]["field"], aggs["tiers"]["terms"]["include"]) == ("attributes", "tier\0.*")


def result(steps: Steps[Any]) -> Any:
    """Do all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def test_money_of_answers_is_exact_and_in_the_unit_of_the_currency() -> None:
    asked = ask(
        {
            "aggs": {
                "s": {"extended_stats": {"field": "totalOrderValue"}},
                "p": {"percentiles": {"field": "totalOrderValue"}},
                "r": {"percentile_ranks": {"field": "totalOrderValue", "values": ["1.5"]}},
                "t": {"terms": {"field": "attributes.tier"}, "aggs": {"v": {"sum": {"field": "totalOrderValue"}}}},
                "n": {"sum": {"field": "totalOrders"}},
            }
        }
    )
    answer = {
        "s": {"count": 2, "sum": 9.0071992547409e14, "avg": None, "sum_of_squares": 1e8, "std_deviation": 5000.0},
        "p": {"values": {"50.0": 12345.0}},
        "r": {"values": [{"key": 15000.0, "value": 33.3}]},
        "t": {"buckets": [{"key": "tier\0gold", "doc_count": 1, "v": {"value": 1.0}}]},
        "n": {"value": 3.0},
    }
    converted = answers.encode(result(answers.aggregations(answer, asked.shape))).decode()
    assert '"sum":90071992547.409' in converted
    assert '"avg":null,"sum_of_squares":1,"std_deviation":0.5' in converted
    assert '"50.0":1.2345' in converted
    assert '{"1.5":33.3}' in converted
    assert '"key":"gold","doc_count":1,"v":{"value":0.0001}' in converted
    assert '"n":{"value":3.0}' in converted
