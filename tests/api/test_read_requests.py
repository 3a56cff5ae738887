"""Searches per read, and responses of reads while OpenSearch is not available."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from infra.index.mapping import shards_of_environment
from infra.index.naming import read_alias
from tests.api.audiences import insert_consumers
from tests.api.resources import create, faults
from tests.indexer.proxy import Proxy
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

RULES: list[dict[str, Any]] = [
    {"field": "metadata.a", "operator": "NOT_IN", "values": ["5#", "x#", True, 7]},
    {"field": "metadata.a", "operator": "NOT_CONTAINS", "values": ["#"]},
    {"field": "phone", "operator": "NOT_EQUALS", "values": ["+44207946#"]},
    {"field": "totalOrders", "operator": "BETWEEN", "values": ["-1", "#"]},
    {"field": "totalOrderValue", "operator": "NOT_IN", "values": ["5.#", "7#"]},
    {"field": "createdAt", "operator": "BETWEEN", "values": ["2000-01-01", "#-01-01"]},
    {"field": "lastOrderAt", "operator": "NOT_EQUALS", "values": ["#-01-01"]},
]
"""Rules of each kind, true for all consumers; a four-digit number in place of `#` makes the rules differ."""


def numbered(rule: dict[str, Any], number: int) -> dict[str, Any]:
    text = json.dumps(rule | {"groupId": f"{number % 7}"}).replace("#", f"{4000 + number}")
    content: dict[str, Any] = json.loads(text)
    return content


@pytest.fixture(scope="module")
def crowd(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        insert_consumers(account, 30)
        account.settled()
        yield account


def searches(account: Account) -> int:
    stats = account.database.search.indices.stats(index=read_alias(account.database.settings.index_prefix))
    return int(stats["_all"]["total"]["search"]["query_total"])


def costs(account: Account, number: int, path: str, **parameters: Any) -> None:
    """Assert that a request makes this number of searches. Each shard of the environment counts a search.

    Background tasks of the service search as well, now and then: the request is repeated until it was alone.
    """
    expected = number * shards_of_environment(account.database.settings.index_shards)

    def is_number() -> bool:
        before = searches(account)
        response = account.live.get(path, params=parameters)
        assert response.status_code == 200, response.text
        counted = searches(account) - before
        assert counted >= expected, f"{counted} searches"
        return counted == expected

    wait_until(is_number, what=f"{number} searches for {path}")


def test_page_costs_one_search_and_its_audiences_one_more(crowd: Account) -> None:
    made = [create(crowd.live, "/audiences", name=f"A{n}", type="DYNAMIC", filter=f"metadata.a:{n}") for n in range(5)]
    everybody = create(crowd.live, "/audiences", name="All", type="DYNAMIC", filter="NOT metadata.a:*")["id"]
    try:
        costs(crowd, 1, "/consumers")
        narrowed = {"search": "person", "filter": "fullName:*", "audienceId": everybody}
        costs(crowd, 1, "/consumers", count="true", first=30, **narrowed)
        costs(crowd, 2, "/consumers", count="true", **narrowed)
        costs(crowd, 1, "/consumers/search", q="person", explain="true")
        costs(crowd, 1, f"/audiences/{everybody}/members")
        costs(crowd, 1, f"/audiences/{everybody}/count")
        costs(crowd, 2, "/consumers", include="audiences", first=30)
        costs(crowd, 2, f"/audiences/{everybody}/members", include="audiences", first=30)
        one = crowd.live.get("/consumers").json()["data"][0]["id"]
        costs(crowd, 0, f"/consumers/{one}")
        costs(crowd, 0, f"/consumers/{one}", include="orders")
        costs(crowd, 1, f"/consumers/{one}", include="audiences,orders")
    finally:
        for audience in [*(one["id"] for one in made), everybody]:
            crowd.live.delete(f"/audiences/{audience}").raise_for_status()


@pytest.fixture(scope="module")
def hundred(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        insert_consumers(account, 100)
        account.settled()
        yield account


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['field']} {rule['operator']}")
def test_page_includes_any_number_of_large_audiences(hundred: Account, rule: dict[str, Any]) -> None:
    inside_text = "CONTAINS" in rule["operator"]
    number = 10 if inside_text else 60
    made = []
    for begin in range(0, 50 * number, 50):
        rules = [numbered(rule, begin + n) for n in range(50)]
        made.append(create(hundred.live, "/audiences", name="A", type="DYNAMIC", rules=rules)["id"])
    try:
        response = hundred.live.get("/consumers", params={"include": "audiences", "first": 100})
        assert response.status_code == 200, response.text
        assert [[one["id"] for one in row["audiences"]] for row in response.json()["data"]] == [sorted(made)] * 100
        condition = ":~impossible" if inside_text else ":5"
        parameters = {"audienceId": made[0], "filter": " ".join(f"NOT metadata.b{n}{condition}" for n in range(50))}
        parameters |= {"search": "person pers " * 16, "first": "100", "count": "true"}
        counted = hundred.live.get(f"/audiences/{made[1]}/members", params={"count": "true"})
        assert counted.json()["totalCount"] == 100
        listed = hundred.live.get(f"/audiences/{made[1]}/members", params=parameters)
        assert listed.status_code == (400 if inside_text else 200), listed.text
        assert inside_text == ("The query is too long" in listed.text)
        assert inside_text or listed.json()["totalCount"] == 100
    finally:
        for audience in made:
            hundred.live.delete(f"/audiences/{audience}").raise_for_status()


READS = [
    "/consumers",
    "/consumers?search=person",
    "/consumers?include=audiences",
    "/consumers/search?q=person",
    "/audiences/<audience>/members",
    "/audiences/<audience>/count",
    "/consumers/<consumer>?include=audiences",
]


FAILED_ROUNDS = 5


class ApiBehindProxy(NamedTuple):
    """A client of an API that reaches OpenSearch through a proxy."""

    client: httpx.Client
    proxy: Proxy
    paths: list[str]
    api: Service

    def statuses(self) -> list[int]:
        responses = [self.client.get(path) for path in self.paths]
        for response in responses:
            if response.status_code != 200:
                assert response.json()["error"] == "Search unavailable"
                assert int(response.headers["Retry-After"]) > 0
        return [response.status_code for response in responses]

    def recover(self) -> None:
        """Wait until all reads succeed: a node that failed is used again after its next probe."""
        wait_until(lambda: self.statuses() == [200] * len(READS), what="the reads")


@pytest.fixture(scope="module")
def behind_proxy(
    service: Service, crowd: Account, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiBehindProxy]:
    audience = create(crowd.live, "/audiences", name="All", type="DYNAMIC", filter="fullName:*")["id"]
    consumer = crowd.live.get("/consumers").json()["data"][0]["id"]
    paths = [path.replace("<audience>", audience).replace("<consumer>", consumer) for path in READS]
    with Proxy(service.database.settings.opensearch_url) as proxy:
        database = service.database.on_other_ports()
        settings = msgspec.structs.replace(database.settings, opensearch_url=proxy.address)
        other = Service(database._replace(settings=settings), tmp_path_factory.mktemp("cut"))
        other.start("api")
        headers = {"Authorization": crowd.live.headers["Authorization"]}
        try:
            with httpx.Client(base_url=f"{other.url}/api/v1", headers=headers, timeout=30) as client:
                yield ApiBehindProxy(client, proxy, paths, other)
        finally:
            other.close()


def test_read_is_503_while_opensearch_is_away(behind_proxy: ApiBehindProxy) -> None:
    assert behind_proxy.statuses() == [200] * len(READS)
    behind_proxy.proxy.close()
    assert behind_proxy.statuses() == [503] * len(READS)
    consumer = behind_proxy.paths[-1].partition("?")[0]
    assert behind_proxy.client.get(consumer).status_code == 200
    assert behind_proxy.client.get(consumer, params={"include": "orders"}).status_code == 200
    for _ in range(FAILED_ROUNDS):
        behind_proxy.statuses()
    logged = behind_proxy.api.log("api")
    # Each period begins with three lines, and the requests may take longer than a period.
    assert 0 < logged.count('"status":503') < FAILED_ROUNDS * len(READS) / 2
    behind_proxy.proxy.open()
    behind_proxy.recover()


def test_read_is_503_while_opensearch_hangs(behind_proxy: ApiBehindProxy) -> None:
    behind_proxy.proxy.open(hanging=True)
    response = behind_proxy.client.get(behind_proxy.paths[-1])
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    behind_proxy.proxy.open()
    behind_proxy.recover()


@contextmanager
def refusing(account: Account) -> Iterator[None]:
    """Make OpenSearch refuse requests with 429, as if memory were short."""
    cluster, name = account.database.search.cluster, "network.breaker.inflight_requests.limit"
    cluster.put_settings(body={"transient": {name: "1b"}})
    try:
        yield
    finally:
        cluster.put_settings(body={"transient": {name: None}})


def test_read_is_503_while_opensearch_is_overloaded(behind_proxy: ApiBehindProxy, crowd: Account) -> None:
    with refusing(crowd):
        assert behind_proxy.statuses() == [503] * len(READS)
    behind_proxy.recover()


LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "texts", [[LETTERS * 9], [LETTERS[n % 26 :] + LETTERS for n in range(16)], ["💥🎉" * 100], ["ab"] * 50], ids=len
)
def test_audience_with_the_longest_text_rules_is_counted(hundred: Account, texts: list[str]) -> None:
    rules: list[dict[str, Any]] = [{"field": "email", "operator": "NOT_CONTAINS", "values": [text]} for text in texts]
    audience = create(hundred.live, "/audiences", name="A", type="DYNAMIC", rules=rules)["id"]
    try:
        assert hundred.live.get(f"/audiences/{audience}/count").json().get("count") == 100
    finally:
        hundred.live.delete(f"/audiences/{audience}").raise_for_status()


def test_audience_with_too_much_text_is_refused(hundred: Account) -> None:
    rules = [{"field": "email", "operator": "CONTAINS", "values": ["x" * 255]}] * 4
    text = " ".join(["email:~" + "x" * 255] * 4)
    audience = create(hundred.live, "/audiences", name="A", type="DYNAMIC", filter="email:*")["id"]
    for fields in ({"rules": rules}, {"filter": text}):
        for method, path in (("POST", "/audiences"), ("PUT", f"/audiences/{audience}")):
            response = hundred.live.request(method, path, json={"name": "A", "type": "DYNAMIC"} | fields)
            assert faults(response).keys() == fields.keys()
    assert faults(hundred.live.get("/consumers", params={"filter": text})).keys() == {"filter"}
    hundred.live.delete(f"/audiences/{audience}").raise_for_status()
