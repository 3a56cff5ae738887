"""Live questions: OpenSearch's own language and client, exact, and limited to the rows of the environment."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch, helpers
from opensearchpy.exceptions import NotFoundError, RequestError

from infra.exports import attributes
from tests.api.resources import create, fault_fields, faults
from tests.service import Account, Service

PHONES = ("+442079460111", "+12025550123", "+4930123456", None)
FOREIGN = {"phone": "+33123456789", "fullName": "Secretname F"}
VALUE = {"field": "totalOrderValue"}
FOREIGN_VALUE = {"from": "7777.7777", "to": "7777.7778"}
HARMLESS: dict[str, Any] = {
    "ignore_unavailable": True,
    "allow_no_indices": True,
    "expand_wildcards": "all",
    "allow_partial_search_results": True,
    "preference": "_local",
    "routing": "other",
    "human": True,
    "pretty": True,
    "filter_path": "hits.total",
    "search_type": "dfs_query_then_fetch",
    "request_timeout": 30,
    "params": {"timeout": 30},
}
"""Parameters of a search that change nothing."""
EVERY_AGGREGATION: dict[str, Any] = {
    **{kind: {kind: VALUE} for kind in ("sum", "avg", "max", "stats", "extended_stats", "percentiles")},
    "value_count": {"value_count": {"field": "createdAt"}},
    "cardinality": {"cardinality": {"field": "id"}},
    "percentile_ranks": {"percentile_ranks": VALUE | {"values": ["7777.7777"], "keyed": False}},
    "filter": {"filter": {"match_all": {}}, "aggs": {"most": {"max": VALUE}}},
    "filters": {"filters": {"filters": {"all": {"match_all": {}}, "none": {"match_none": {}}}}},
    "adjacency_matrix": {
        "adjacency_matrix": {"filters": {"a": {"match_all": {}}, "b": {"exists": {"field": "email"}}}}
    },
    "missing": {"missing": {"field": "phoneCountry"}},
    "range": {"range": VALUE | {"ranges": [{"to": "7777.7777"}, FOREIGN_VALUE]}},
    "date_range": {"date_range": {"field": "createdAt", "ranges": [{"from": "now-1d/d"}, {"to": "now-1d"}]}},
    "histogram": {"histogram": VALUE | {"interval": 1000, "hard_bounds": {"min": 0, "max": 9000}}},
    "date_histogram": {"date_histogram": {"field": "createdAt", "calendar_interval": "year"}},
    "terms": {"terms": {"field": "phoneCountry"}},
    "composite": {
        "composite": {
            "size": 100,
            "sources": [
                {"country": {"terms": {"field": "phoneCountry", "missing_bucket": True}}},
                {"year": {"date_histogram": {"field": "createdAt", "calendar_interval": "year"}}},
            ],
        }
    },
}


@pytest.fixture
def shop(account: Account) -> Account:
    """Twenty consumers with orders in the live environment, and others in the test environment."""
    people = [
        {
            "email": f"secret{number}@{'tiny' if number < 3 else 'common'}.example",
            "phone": PHONES[number % 4],
            "fullName": f"Secretname {number}",
            "externalId": f"secret-{number}",
            "metadata": {"tier": "gold" if number % 2 else "silver", "note": f"secretnote{number}", "points": number},
        }
        for number in range(20)
    ]
    made = account.live.post("/consumers/batch", json=people).raise_for_status().json()
    others = [
        FOREIGN | {"email": f"secret{number}@foreign.example", "metadata": {"tier": "foreign"}} for number in range(7)
    ]
    foreign = account.test.post("/consumers/batch", json=others).raise_for_status().json()
    account.test.post("/orders", json={"consumerId": foreign[0]["id"], "amount": "7777.7777"}).raise_for_status()
    orders = [{"consumerId": made[n % 10]["id"], "amount": f"{n}.0001"} for n in range(30)]
    with account.database.engine.begin() as connection:
        attributes.declare(connection, account.name, attributes.parse(["metadata.tier:text", "metadata.points:number"]))
    account.live.post("/orders/batch", json=orders, headers={"Prefer": "wait=10"}).raise_for_status()
    account.settled()
    return account


@pytest.fixture
def opensearch(service: Service, shop: Account) -> Iterator[OpenSearch]:
    address = urlsplit(service.url)
    headers = {"Authorization": shop.live.headers["authorization"]}
    hosts = [{"host": address.hostname, "port": address.port, "url_prefix": "api/v1/analytics"}]
    client = OpenSearch(hosts, headers=headers)
    yield client
    client.close()


def stored(account: Account, expression: str) -> Any:
    with account.database.engine.connect() as connection:
        query = sa.text(f"SELECT {expression} FROM consumers WHERE environment_id = :e")
        return connection.execute(query, {"e": account.live_environment}).scalar_one()


def test_client_of_opensearch_gets_exact_answers(opensearch: OpenSearch, shop: Account) -> None:
    assert opensearch.info()["version"]["distribution"] == "opensearch"
    answer = opensearch.search(
        index="consumers",
        body={
            "size": 0,
            "aggs": {
                "value": {"stats": {"field": "totalOrderValue"}},
                "orders": {"sum": {"field": "totalOrders"}},
                "countries": {
                    "terms": {"field": "phoneCountry"},
                    "aggs": {"value": {"sum": {"field": "totalOrderValue"}}},
                },
                "tiers": {"terms": {"field": "attributes.tier"}},
                "domains": {"terms": {"field": "emailDomain"}},
                "buyers": {"filter": {"range": {"totalOrders": {"gte": 1}}}},
                "months": {"date_histogram": {"field": "createdAt", "calendar_interval": "month"}},
                "bands": {
                    "histogram": {"field": "totalOrderValue", "interval": 10, "hard_bounds": {"min": 0, "max": 90}}
                },
            },
        },
    )
    aggs = answer["aggregations"]
    assert answer["hits"]["total"] == {"value": 20, "relation": "eq"}
    total = stored(shop, "sum(total_order_value)")
    assert Decimal(str(aggs["value"]["sum"])) == total
    assert Decimal(str(aggs["value"]["max"])) == stored(shop, "max(total_order_value)")
    assert aggs["orders"]["value"] == stored(shop, "sum(total_orders)")
    countries = {bucket["key"]: Decimal(str(bucket["value"]["value"])) for bucket in aggs["countries"]["buckets"]}
    like = "sum(total_order_value) FILTER (WHERE phone LIKE '+{}%')"
    assert countries == {name: stored(shop, like.format(code)) for name, code in (("GB", 44), ("US", 1), ("DE", 49))}
    assert {bucket["key"]: bucket["doc_count"] for bucket in aggs["tiers"]["buckets"]} == {"gold": 10, "silver": 10}
    assert {bucket["key"]: bucket["doc_count"] for bucket in aggs["domains"]["buckets"]} == {"common.example": 17}
    assert aggs["buyers"]["doc_count"] == 10
    assert [bucket["doc_count"] for bucket in aggs["months"]["buckets"]] == [20]
    assert sum(bucket["doc_count"] for bucket in aggs["bands"]["buckets"]) == 20
    assert opensearch.count(index="consumers")["count"] == 20
    gold = {"query": {"term": {"attributes.tier": "gold"}}}
    assert opensearch.count(index="consumers", body=gold)["count"] == 10
    assert "totalOrders" in opensearch.field_caps(index="consumers", fields="*")["fields"]
    mapping = opensearch.indices.get_mapping(index="consumers")["consumers"]["mappings"]["properties"]
    assert mapping["totalOrderValue"] == {"type": "double"}


def test_walk_at_a_point_in_time_meets_every_consumer_once(opensearch: OpenSearch, shop: Account) -> None:
    pit = opensearch.create_pit(index="consumers", params={"keep_alive": "1m"})["pit_id"]
    create(shop.live, fullName="Later")
    shop.settled()
    body: dict[str, Any] = {"pit": {"id": pit}, "size": 7, "sort": [{"totalOrderValue": "desc"}, "id"]}
    ids, values = [], []
    while hits := opensearch.search(body=body)["hits"]["hits"]:
        ids += [hit["_id"] for hit in hits]
        values += [hit["_source"]["totalOrderValue"] for hit in hits]
        body["search_after"] = hits[-1]["sort"]
    assert len(set(ids)) == len(ids) == 20
    assert values == sorted(values, reverse=True)
    foreign = shop.test.post("/analytics/_search", json={"pit": {"id": pit}})
    assert list(faults(foreign)) == ["pit.id"]
    assert shop.test.request("DELETE", "/analytics/_search/point_in_time", json={"pit_id": [pit]}).status_code == 400
    assert opensearch.delete_pit(body={"pit_id": [pit]})["pits"][0]["successful"]


def test_no_answer_has_a_personal_value_or_a_row_of_another_environment(shop: Account) -> None:
    metrics = {"t": {"terms": {"field": "audienceIds"}}, "d": {"terms": {"field": "emailDomain", "min_doc_count": 0}}}
    questions: list[dict[str, Any]] = [
        {"size": 100},
        {"size": 100, "_source": ["id"], "sort": ["createdAt", "id"]},
        {"query": {"bool": {"must_not": [{"exists": {"field": "email"}}]}}, "size": 100},
        {"query": {"bool": {"should": [{"match_all": {}}, {"match_none": {}}]}}, "aggs": metrics},
        {"aggs": {"c": {"composite": {"size": 1000, "sources": [{"id": {"terms": {"field": "id"}}}]}}}},
        {
            "aggs": {
                "m": {"missing": {"field": "phoneCountry"}},
                "p": {"terms": {"field": "attributes.points", "size": 50}},
            }
        },
    ]
    with shop.database.engine.connect() as connection:
        query = sa.text("SELECT id FROM consumers WHERE environment_id <> :e")
        foreign = set(connection.execute(query, {"e": shop.live_environment}).scalars())
    assert foreign
    for question in questions:
        answer = shop.live.post("/analytics/consumers/_search", json=question)
        assert answer.status_code == 200, answer.text
        assert "secret" not in answer.text.lower()
        assert "tiny" not in answer.text
        assert not any(consumer in answer.text for consumer in foreign)
        assert "Index-Lag-Ms" in answer.headers
    points = shop.live.post("/analytics/consumers/_search", json=questions[-1]).json()["aggregations"]["p"]["buckets"]
    assert {bucket["key"] for bucket in points} == {str(number) for number in range(20)}


def test_every_aggregation_counts_the_rows_of_its_environment_alone(shop: Account) -> None:
    answer = shop.live.post("/analytics/consumers/_search?typed_keys=true", json={"size": 0, "aggs": EVERY_AGGREGATION})
    assert answer.status_code == 200, answer.text
    assert not any(foreign in answer.text for foreign in ('"FR"', "foreign"))
    aggs = {typed.partition("#")[2]: value for typed, value in answer.json()["aggregations"].items()}
    assert set(aggs) == set(EVERY_AGGREGATION)
    most, total = (stored(shop, f"{function}(total_order_value)") for function in ("max", "sum"))
    for amount in (aggs["max"]["value"], aggs["stats"]["max"], aggs["filter"]["max#most"]["value"]):
        assert Decimal(str(amount)) == most
    assert Decimal(str(aggs["extended_stats"]["sum"])) == Decimal(str(aggs["sum"]["value"])) == total
    assert (aggs["value_count"]["value"], aggs["cardinality"]["value"]) == (20, 20)
    assert aggs["percentile_ranks"]["values"] == [{"key": 7777.7777, "value": 100}]
    assert (aggs["filter"]["doc_count"], aggs["missing"]["doc_count"]) == (20, 5)
    counts = {
        name: [bucket["doc_count"] for bucket in aggs[name]["buckets"]]
        for name in ("adjacency_matrix", "range", "date_range", "date_histogram", "terms", "composite", "histogram")
    }
    assert counts == {
        "adjacency_matrix": [20, 20, 20],
        "range": [20, 0],
        "date_range": [0, 20],
        "date_histogram": [20],
        "terms": [5, 5, 5],
        "composite": [5, 5, 5, 5],
        "histogram": [20],
    }
    assert {name: bucket["doc_count"] for name, bucket in aggs["filters"]["buckets"].items()} == {"all": 20, "none": 0}
    tiers = shop.live.post(
        "/analytics/consumers/_search", json={"aggs": {"t": {"terms": {"field": "attributes.tier"}}}}
    )
    assert {bucket["key"] for bucket in tiers.json()["aggregations"]["t"]["buckets"]} == {"gold", "silver"}


def test_walks_over_missing_values_and_without_deleted_consumers(shop: Account) -> None:
    gone = create(shop.live, fullName="Gone")["id"]
    shop.live.delete(f"/consumers/{gone}", headers={"Prefer": "wait=10"}).raise_for_status()
    shop.settled()
    pit = shop.live.post("/analytics/consumers/_search/point_in_time?keep_alive=1m").raise_for_status().json()["pit_id"]
    for field in ("lastOrderAt", "phoneCountry"):
        for order in ("asc", "desc"):
            body: dict[str, Any] = {"pit": {"id": pit}, "size": 3, "sort": [{field: order}, "id"]}
            body["track_total_hits"] = False  # OpenSearch then passes over segments
            ids = list[str]()
            while hits := shop.live.post("/analytics/_search", json=body).raise_for_status().json()["hits"]["hits"]:
                ids += [hit["_id"] for hit in hits]
                body["search_after"] = hits[-1]["sort"]
            assert len(set(ids)) == len(ids) == 20, (field, order)
            assert gone not in ids
    shop.live.request("DELETE", "/analytics/_search/point_in_time", json={"pit_id": [pit]}).raise_for_status()
    ended = shop.live.post("/analytics/_search", json={"pit": {"id": pit}})
    assert (ended.status_code, ended.json()["message"]) == (404, "The point in time has ended: make another")


def test_client_of_opensearch_works_by_every_way_to_send_a_body(service: Service, shop: Account) -> None:
    address = urlsplit(service.url)
    hosts = [{"host": address.hostname, "port": address.port, "url_prefix": "api/v1/analytics"}]
    headers = {"Authorization": shop.live.headers["authorization"]}
    gold = {"query": {"term": {"attributes.tier": "gold"}}}
    for way in ("GET", "POST", "source"):
        with OpenSearch(hosts, headers=headers, send_get_body_as=way) as client:
            assert client.ping()
            found = client.transport.perform_request("GET", "/consumers/_search", body=gold)
            counted = client.transport.perform_request("GET", "/consumers/_count", body=gold)
            assert (found["hits"]["total"]["value"], counted["count"]) == (10, 10), way
    with OpenSearch(hosts, headers=headers) as client:
        plain = client.search(
            index="consumers",
            **HARMLESS,
            size=1,
            from_=1,
            sort="createdAt:desc,id",
            _source_includes="id",
            rest_total_hits_as_int=True,
        )
        assert plain["hits"]["total"] == 20
        assert [list(hit["_source"]) for hit in plain["hits"]["hits"]] == [["id"]]
        assert client.count(index="consumers", ignore_unavailable=True, pretty=True)["count"] == 20
        assert list(client.field_caps(index="consumers", fields="total*")["fields"]) == [
            "totalOrders",
            "totalOrderValue",
        ]
        for parameters in (
            {"q": "a"},
            {"scroll": "1m"},
            {"explain": True},
            {"terminate_after": 1},
            {"stored_fields": "*"},
        ):
            with pytest.raises(RequestError) as refused:
                client.search(index="consumers", params=parameters)
            assert f"'field': '{next(iter(parameters))}'" in str(refused.value.info)
        with pytest.raises(RequestError, match="400"):
            next(iter(helpers.scan(client, index="consumers")))
        with pytest.raises(NotFoundError) as unknown:
            client.msearch(body=[{}, gold], index="consumers")
        assert "Live questions have no such path" in str(unknown.value.info)
        with pytest.raises(NotFoundError):
            client.scroll(scroll_id="x")


def test_no_hostile_body_or_path_is_an_answer(shop: Account) -> None:
    for text in (
        '{"size": 1e400}',
        '{"size": NaN}',
        '{"size": 1, "size": 2}',
        '{"query": ' + "[" * 5000 + "]" * 5000 + "}",
    ):
        answer = shop.live.post("/analytics/consumers/_search", content=text)
        assert (answer.status_code, answer.json()["error"]) == (400, "Invalid JSON"), text[:40]
    assert fault_fields(shop.live.post("/analytics/consumers/_field_caps", json={"index_filter": {}})) == [
        "index_filter"
    ]
    assert fault_fields(shop.live.get("/analytics/consumers/_search?source=[]")) == ["source"]
    assert fault_fields(shop.live.get('/analytics/consumers/_search?source={"profile":true}')) == ["body.profile"]
    for index in (
        "consumers,other",
        "*",
        "_all",
        "%3Cconsumers-%7Bnow%2Fd%7D%3E",
        "-x",
        "consumers*",
        "other:consumers",
    ):
        assert shop.live.post(f"/analytics/{index}/_search", json={}).status_code == 404, index
    for path in (
        "consumers%2F_search",
        "../consumers/_search",
        "consumers/../_cat/indices",
        "consumers/_search/template",
    ):
        assert shop.live.post(f"/analytics/{path}", json={}).status_code in {404, 405}, path


def test_other_paths_and_bodies_are_refused(opensearch: OpenSearch, shop: Account) -> None:
    with pytest.raises(RequestError):
        opensearch.search(index="consumers", body={"aggs": {"all": {"global": {}}}})
    named = shop.live.post("/analytics/consumers/_search", json={"query": {"terms": {"id": {"index": "x"}}}})
    assert list(faults(named)) == ["query.terms.id"]
    for path in (
        "consumers/_termvectors/x",
        "consumers-000001/_search",
        "consumers/_doc/x",
        "_cat/indices",
        "_msearch",
    ):
        assert shop.live.post(f"/analytics/{path}", json={}).status_code in {404, 405}, path
    assert shop.live.post("/analytics/_search", json={}).status_code == 400
