"""Live questions: OpenSearch's own language and client, exact, and limited to the rows of the environment."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch
from opensearchpy.exceptions import RequestError

from infra.exports import attributes
from tests.api.resources import create, faults
from tests.service import Account, Service

PHONES = ("+442079460111", "+12025550123", "+4930123456", None)


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
    account.test.post("/consumers/batch", json=people[:7]).raise_for_status()
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
    assert shop.live.post("/analytics/consumers/_search?typed_keys=true", json={}).status_code == 400
    assert shop.live.post("/analytics/_search", json={}).status_code == 400
