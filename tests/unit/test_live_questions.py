"""The language of live questions: a list of what may be said, and a bound for everything (contract.md §6)."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.analytics import answers, bodies
from api.analytics.aggregations import MAX_BUCKETS
from api.analytics.fields import Refused
from infra.exports.attributes import Attribute

ATTRIBUTES = [Attribute("tier", "text"), Attribute("address.city", "text"), Attribute("points", "number")]
ALL: dict[str, Any] = {"match_all": {}}


def ask(body: Any) -> bodies.Search:
    return bodies.search(body, ATTRIBUTES, "GB")


def nested(query: Any, levels: int) -> Any:
    for _ in range(levels):
        query = {"bool": {"filter": [query]}}
    return query


def agg(kind: str, _inner: Any = None, **content: Any) -> dict[str, Any]:
    return {"a": {kind: content} | ({"aggs": _inner} if _inner else {})}


DAYS = {"field": "createdAt", "calendar_interval": "day", "hard_bounds": {"min": "2024-01-01", "max": "2024-12-31"}}
HOSTILE: list[Any] = [
    None,
    [],
    "x",
    {"script_fields": {}},
    {"runtime_mappings": {}},
    {"derived": {}},
    {"suggest": {"s": {"text": "a", "term": {"field": "email"}}}},
    {"rescore": {}},
    {"collapse": {"field": "id"}},
    {"highlight": {}},
    {"explain": True},
    {"profile": True},
    {"docvalue_fields": ["email"]},
    {"stored_fields": ["email"]},
    {"fields": ["email"]},
    {"indices_boost": [{"consumers-000001": 2}]},
    {"post_filter": ALL},
    {"slice": {"id": 0, "max": 2}},
    {"ext": {}},
    {"version": True},
    {"seq_no_primary_term": True},
    {"_source": ["email"]},
    {"_source": "row*"},
    {"_source": {"excludes": ["id"]}},
    {"size": 10_001},
    {"size": -1},
    {"size": True},
    {"from": 9_995, "size": 10},
    {"sort": ["email"]},
    {"sort": [{"_script": {}}]},
    {"sort": [{"id": {"order": "asc", "nested": {}}}]},
    {"sort": ["emailDomain"]},
    {"search_after": [1]},
    {"pit": {"id": 5}},
    {"query": {"terms": {"id": {"index": "other", "id": "1", "path": "x"}}}},
    {"query": {"more_like_this": {"like": "a"}}},
    {"query": {"percolate": {}}},
    {"query": {"script": {"script": "1"}}},
    {"query": {"script_score": {}}},
    {"query": {"function_score": {}}},
    {"query": {"query_string": {"query": "*"}}},
    {"query": {"simple_query_string": {"query": "*"}}},
    {"query": {"regexp": {"id": ".*"}}},
    {"query": {"wildcard": {"id": "*"}}},
    {"query": {"fuzzy": {"fullName": "ann"}}},
    {"query": {"match": {"fullName": "ann"}}},
    {"query": {"intervals": {}}},
    {"query": {"has_child": {}}},
    {"query": {"wrapper": {"query": "e30="}}},
    {"query": {"term": {"email": "ann@example.com"}}},
    {"query": {"term": {"emailDomain": "example.com"}}},
    {"query": {"prefix": {"emailDomain": "ex"}}},
    {"query": {"term": {"environmentId": "2"}}},
    {"query": {"term": {"texts": "email\0a"}}},
    {"query": {"term": {"attributes.secret": "x"}}},
    {"query": {"term": {"metadata.tier": "x"}}},
    {"query": {"term": {"phone": {"value": "1", "boost": 2}}}},
    {"query": {"range": {"createdAt": {"gte": "now-1d"}}}},
    {"query": {"range": {"totalOrders": {"gte": 1, "relation": "within"}}}},
    {"query": {"range": {"totalOrderValue": {"gte": "NaN"}}}},
    {"query": {"range": {"totalOrderValue": {"gte": 1e300}}}},
    {"query": {"ids": {"values": ["a"] * 1001}}},
    {"query": {"exists": {"field": "row"}}},
    {"query": {"bool": {"should": [], "adjust_pure_negative": True}}},
    {"query": {"bool": {"filter": [ALL] * 257}}},
    {"query": nested(ALL, 8)},
    {"query": {"match_all": {}, "match_none": {}}},
    {"aggs": agg("global")},
    {"aggs": agg("significant_terms", field="phoneCountry")},
    {"aggs": agg("significant_text", field="fullName")},
    {"aggs": agg("rare_terms", field="phoneCountry")},
    {"aggs": agg("multi_terms", terms=[])},
    {"aggs": agg("top_hits", size=1)},
    {"aggs": agg("scripted_metric", init_script="1")},
    {"aggs": agg("sampler")},
    {"aggs": agg("nested", path="row")},
    {"aggs": {"a": {"filter": ALL, "aggs": {"b": {"bucket_script": {}}}}}},
    {"aggs": agg("sum", field="totalOrders", script="1")},
    {"aggs": agg("sum", field="email")},
    {"aggs": agg("terms", field="id", size=1000)},
    {"aggs": agg("terms", field="email")},
    {"aggs": agg("terms", field="fullName.whole")},
    {"aggs": agg("terms", field="emailDomain", size=1001)},
    {"aggs": agg("terms", field="emailDomain", include=".*")},
    {"aggs": agg("terms", field="phoneCountry", order={"_count": "asc"})},
    {"aggs": agg("terms", field="phoneCountry", collect_mode="depth_first")},
    {"aggs": agg("terms", field="attributes.secret")},
    {"aggs": agg("terms", {"b": {"terms": {"field": "emailDomain"}}}, field="phoneCountry")},
    {"aggs": agg("terms", {"b": {"date_histogram": DAYS}}, field="phoneCountry", size=100)},
    {"aggs": agg("terms", {"b": {"cardinality": {"field": "id"}}}, field="audienceIds", size=101)},
    {"aggs": {str(n): {"terms": {"field": "emailDomain"}} for n in range(4)}},
    {"aggs": {str(n): {"sum": {"field": "totalOrders"}} for n in range(21)}},
    {"aggs": agg("date_histogram", field="createdAt", fixed_interval="1s")},
    {"aggs": agg("date_histogram", field="createdAt", calendar_interval="minute")},
    {"aggs": agg("date_histogram", field="createdAt", calendar_interval=["day"])},
    {"aggs": agg("date_histogram", field="createdAt", calendar_interval="day")},
    {"aggs": agg("date_histogram", field="createdAt", calendar_interval="day", hard_bounds={"min": 0, "max": 10**13})},
    {"aggs": agg("date_histogram", field="createdAt", calendar_interval="year", extended_bounds={})},
    {"aggs": agg("histogram", field="totalOrders", interval=1)},
    {"aggs": agg("histogram", field="totalOrders", interval=0, hard_bounds={"min": 0, "max": 1})},
    {"aggs": agg("histogram", field="totalOrders", interval=1e-9, hard_bounds={"min": 0, "max": 1})},
    {"aggs": agg("adjacency_matrix", filters={str(n): ALL for n in range(11)})},
    {"aggs": agg("filters", filters=[ALL])},
    {"aggs": agg("composite", sources=[{"a": {"terms": {"field": "emailDomain"}}}])},
    {"aggs": agg("composite", sources=[{"a": {"terms": {"field": "id", "script": "1"}}}], size=10)},
    {"aggs": agg("composite", sources=[{"a": {"geotile_grid": {}}}])},
    {"aggs": {"a": {"filter": ALL, "aggs": agg("composite", sources=[{"a": {"terms": {"field": "id"}}}])}}},
    {"aggs": agg("percentiles", field="totalOrders", tdigest={"compression": 1e9})},
    {"aggs": agg("percentiles", field="totalOrders", percents=[101])},
    {"aggs": agg("cardinality", field="id", precision_threshold=40_000)},
    {"aggs": agg("range", field="totalOrders", ranges=[{"from": 1}] * 51)},
    {"aggs": {"a": {"filter": ALL, "meta": {"x": 1}}}},
    {"aggs": {}},
    {"aggs": agg("sum", field="totalOrders"), "aggregations": agg("sum", field="totalOrders")},
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: str(body)[:60])
def test_everything_that_is_not_in_the_list_is_refused_and_named(body: Any) -> None:
    with pytest.raises(Refused) as refused:
        ask(body)
    assert refused.value.path
    assert str(refused.value)


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
            "filter": [{"range": {"totalOrderValue": {"gte": 105000, "lt": 999900}}}, {"terms": {"id": ["c"]}}],
            "must_not": [{"exists": {"field": "email"}}],
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
    assert MAX_BUCKETS >= 1561


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
    converted = answers.encode(answers.aggregations(answer, asked.shape)).decode()
    assert '"sum":90071992547.409' in converted
    assert '"avg":null,"sum_of_squares":1,"std_deviation":0.5' in converted
    assert '"50.0":1.2345' in converted
    assert '{"1.5":33.3}' in converted
    assert '"key":"gold","doc_count":1,"v":{"value":0.0001}' in converted
    assert '"n":{"value":3.0}' in converted
