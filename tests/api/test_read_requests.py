"""What a read asks of OpenSearch, and what it answers when that cannot."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from infra.index.naming import read_alias
from infra.local import ports
from tests.api.audiences import insert_consumers
from tests.api.resources import create, faults
from tests.indexer.doorway import Doorway
from tests.service import Account, Service, new_account

MANY: list[dict[str, Any]] = [
    {"field": "metadata.a", "operator": "NOT_IN", "values": ["5#", "x#", True, 7]},
    {"field": "metadata.a", "operator": "NOT_CONTAINS", "values": ["#"]},
    {"field": "phone", "operator": "NOT_EQUALS", "values": ["+44207946#"]},
    {"field": "totalOrders", "operator": "BETWEEN", "values": ["-1", "#"]},
    {"field": "totalOrderValue", "operator": "NOT_IN", "values": ["5.#", "7#"]},
    {"field": "createdAt", "operator": "BETWEEN", "values": ["2000-01-01", "#-01-01"]},
    {"field": "lastOrderAt", "operator": "NOT_EQUALS", "values": ["#-01-01"]},
]
"""Of each kind one that holds of everybody; with a number of four digits, no two are the same."""


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


def asked(account: Account, path: str, **parameters: Any) -> int:
    """How many searches an answer took."""
    before = searches(account)
    response = account.live.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return searches(account) - before


def test_page_costs_one_search_and_its_audiences_one_more(crowd: Account) -> None:
    made = [create(crowd.live, "/audiences", name=f"A{n}", type="DYNAMIC", filter=f"metadata.a:{n}") for n in range(5)]
    everybody = create(crowd.live, "/audiences", name="All", type="DYNAMIC", filter="NOT metadata.a:*")["id"]
    try:
        assert asked(crowd, "/consumers") == 1
        assert asked(crowd, "/consumers", count="true", search="person", filter="fullName:*", audienceId=everybody) == 1
        assert asked(crowd, "/consumers/search", q="person", explain="true") == 1
        assert asked(crowd, f"/audiences/{everybody}/members") == 1
        assert asked(crowd, f"/audiences/{everybody}/count") == 1
        assert asked(crowd, "/consumers", include="audiences", first=30) == 2
        assert asked(crowd, f"/audiences/{everybody}/members", include="audiences", first=30) == 2
        one = crowd.live.get("/consumers").json()["data"][0]["id"]
        assert asked(crowd, f"/consumers/{one}") == 0
        assert asked(crowd, f"/consumers/{one}", include="orders") == 0
        assert asked(crowd, f"/consumers/{one}", include="audiences,orders") == 1
    finally:
        for audience in [*(one["id"] for one in made), everybody]:
            crowd.live.delete(f"/audiences/{audience}").raise_for_status()


@pytest.fixture(scope="module")
def hundred(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        insert_consumers(account, 100)
        account.settled()
        yield account


@pytest.mark.parametrize("rule", MANY, ids=lambda rule: f"{rule['field']} {rule['operator']}")
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
        asked = {"audienceId": made[0], "filter": " ".join(f"NOT metadata.b{n}{condition}" for n in range(50))}
        asked |= {"search": "person pers " * 16, "first": "100", "count": "true"}
        counted = hundred.live.get(f"/audiences/{made[1]}/members", params={"count": "true"})
        assert counted.json()["totalCount"] == 100
        listed = hundred.live.get(f"/audiences/{made[1]}/members", params=asked)
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


class Cut(NamedTuple):
    """A client of an API whose way to OpenSearch a test may close."""

    client: httpx.Client
    way: Doorway
    paths: list[str]

    def statuses(self) -> list[int]:
        responses = [self.client.get(path) for path in self.paths]
        for response in responses:
            if response.status_code != 200:
                assert response.json()["error"] == "Search unavailable"
                assert int(response.headers["Retry-After"]) > 0
        return [response.status_code for response in responses]


@pytest.fixture(scope="module")
def cut(service: Service, crowd: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    audience = create(crowd.live, "/audiences", name="All", type="DYNAMIC", filter="fullName:*")["id"]
    consumer = crowd.live.get("/consumers").json()["data"][0]["id"]
    paths = [path.replace("<audience>", audience).replace("<consumer>", consumer) for path in READS]
    with Doorway(service.database.settings.opensearch_url) as way:
        given = msgspec.structs.replace(service.database.settings, port=ports.pick(), opensearch_url=way.address)
        other = Service(service.database._replace(settings=given), tmp_path_factory.mktemp("cut"))
        other.start("api")
        headers = {"Authorization": crowd.live.headers["Authorization"]}
        try:
            with httpx.Client(base_url=f"{other.url}/api/v1", headers=headers, timeout=30) as client:
                yield Cut(client, way, paths)
        finally:
            other.close()


def test_read_is_503_while_opensearch_is_away(cut: Cut) -> None:
    assert cut.statuses() == [200] * len(READS)
    cut.way.close()
    assert cut.statuses() == [503] * len(READS)
    consumer = cut.paths[-1].partition("?")[0]
    assert cut.client.get(consumer).status_code == 200
    assert cut.client.get(consumer, params={"include": "orders"}).status_code == 200
    cut.way.open()
    assert cut.statuses() == [200] * len(READS)


def test_read_is_503_while_opensearch_hangs(cut: Cut) -> None:
    cut.way.open(hanging=True)
    response = cut.client.get(cut.paths[-1])
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    cut.way.open()
    assert cut.statuses() == [200] * len(READS)


@contextmanager
def refusing(account: Account) -> Iterator[None]:
    """OpenSearch refuses requests with 429, for want of memory."""
    cluster, name = account.database.search.cluster, "network.breaker.inflight_requests.limit"
    cluster.put_settings(body={"transient": {name: "1b"}})
    try:
        yield
    finally:
        cluster.put_settings(body={"transient": {name: None}})


def test_read_is_503_while_opensearch_is_overloaded(cut: Cut, crowd: Account) -> None:
    with refusing(crowd):
        assert cut.statuses() == [503] * len(READS)
    assert cut.statuses() == [200] * len(READS)


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
    for given in ({"rules": rules}, {"filter": text}):
        for method, path in (("POST", "/audiences"), ("PUT", f"/audiences/{audience}")):
            response = hundred.live.request(method, path, json={"name": "A", "type": "DYNAMIC"} | given)
            assert faults(response).keys() == given.keys()
    assert faults(hundred.live.get("/consumers", params={"filter": text})).keys() == {"filter"}
    hundred.live.delete(f"/audiences/{audience}").raise_for_status()
