"""Nothing of another environment can be read, guessed, counted or changed: what is foreign is unknown."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.api.resources import add_to_new_audience, create, stored_rows
from tests.service import Account, Service, new_account

ULID = "0" * 26
KEY = {"Idempotency-Key": "a key of the owner's"}


class Names(NamedTuple):
    """What the rows of an environment can be named by."""

    consumer: str
    order: str
    audience: str
    synced: str
    email: str
    external_id: str

    def put_into(self, what: Any) -> Any:
        """A path or body with names in place of `<consumer>` and the like."""
        text = json.dumps(what)
        for name, value in self._asdict().items():
            text = text.replace(f"<{name}>", value)
        return json.loads(text)


class Asked(NamedTuple):
    method: str
    path: str
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.body) if self.body else ''}"


UNKNOWN = Names(f"cons_{ULID}", f"ord_{ULID}", f"aud_{ULID}", f"aud_{ULID}", "nobody@example.com", "nothing")
NAME, IDS = {"fullName": "Mine"}, {"consumerIds": ["<consumer>"]}
OWN = {"consumerIds": ["<own.consumer>"]}
ASKED = [
    *(Asked(method, "/consumers/<consumer>", NAME if method == "PUT" else None) for method in ("GET", "PUT", "DELETE")),
    Asked("GET", "/consumers/<consumer>?include=orders,audiences"),
    Asked("GET", "/ops/consumers/<consumer>/index-state"),
    Asked("PUT", "/consumers/<consumer>", {"email": "x"}),
    Asked("PUT", "/consumers/batch", [{"id": "<consumer>", **NAME}]),
    Asked("PUT", "/consumers/batch", [{"id": "<own.consumer>", **NAME}, {"id": "<consumer>", **NAME}]),
    Asked("POST", "/orders", {"consumerId": "<consumer>", "amount": 1}),
    Asked("POST", "/orders", {"consumer": {"email": "<email>"}, "amount": 1}),
    Asked("POST", "/orders", {"consumer": {"externalId": "<external_id>"}, "amount": 1}),
    Asked("POST", "/orders/batch", [{"consumerId": "<consumer>", "amount": 1}]),
    Asked("GET", "/orders?consumerId=<consumer>"),
    *(
        Asked(method, "/orders/<order>", {"amount": 2} if method == "PUT" else None)
        for method in ("GET", "PUT", "DELETE")
    ),
    Asked("PUT", "/orders/<own.order>", {"consumerId": "<consumer>"}),
    *(
        Asked(method, "/audiences/<audience>", {"name": "Mine"} if method == "PUT" else None)
        for method in ("GET", "PUT", "DELETE")
    ),
    *(
        Asked(method, f"/audiences/<{one}>/members", OWN)
        for method in ("POST", "PUT", "DELETE")
        for one in ("audience", "synced")
    ),
    *(Asked(method, "/audiences/<own.synced>/members", IDS) for method in ("POST", "PUT", "DELETE")),
    *(Asked(method, "/audiences/<synced>/members", IDS) for method in ("POST", "PUT", "DELETE")),
    *(Asked("GET", f"/audiences/<{one}>/{what}") for one in ("audience", "synced") for what in ("members", "count")),
    Asked("GET", "/audiences/<own.synced>/members?audienceId=<audience>"),
    Asked("GET", "/consumers?audienceId=<synced>"),
    Asked("GET", "/consumers/search?q=<email>"),
    Asked("GET", "/consumers/search?email=<email>"),
    Asked("GET", "/consumers/search?externalId=<external_id>"),
    Asked("GET", "/consumers?filter=email:<email>"),
    Asked("GET", "/consumers/search?q=nobody&filter=email:<email>"),
    Asked("GET", "/consumers?search=<external_id>"),
]


def fill(client: httpx.Client, tag: str) -> Names:
    """One of everything."""
    email, external_id = f"{tag}@example.com", f"{tag}-external"
    consumer = create(client, email=email, externalId=external_id, fullName="Owned")["id"]
    order = create(client, "/orders", consumerId=consumer, amount=5, externalId=external_id)["id"]
    audience = add_to_new_audience(client, consumer)
    synced = create(client, "/audiences", name="Synced", type="SYNCED_LIST")["id"]
    client.put(f"/audiences/{synced}/members", json={"consumerIds": [consumer]}).raise_for_status()
    client.post("/consumers", json={}, headers=KEY).raise_for_status()
    return Names(consumer, order, audience, synced, email, external_id)


class Two(NamedTuple):
    """An owner, and what somebody else may ask with."""

    owner: Account
    owned: Names
    other: Account
    intruder: httpx.Client
    own: Names

    def ask(self, asked: Asked, names: Names) -> tuple[int, str]:
        """The answer, with placeholders where it repeats names, and without its request id."""
        path, body = names.put_into(self.own_in([asked.path, asked.body]))
        response = self.intruder.request(asked.method, path, json=body)
        text = re.sub(r',?"requestId":"[^"]*"', "", response.text)
        for name, value in names._asdict().items():
            text = text.replace(value, f"<{name}>")
        return response.status_code, text

    def own_in(self, what: Any) -> Any:
        text = json.dumps(what)
        for name, value in self.own._asdict().items():
            text = text.replace(f"<own.{name}>", value)
        return json.loads(text)


@pytest.fixture(scope="module", params=["other mode", "other organization"])
def two(service: Service, request: pytest.FixtureRequest) -> Iterator[Two]:
    with new_account(service) as owner, new_account(service) as other:
        intruder = owner.test if request.param == "other mode" else other.live
        yield Two(owner, fill(owner.live, "owned"), other, intruder, fill(intruder, "own"))


def belongings(account: Account) -> tuple[Any, Any]:
    account.settled()
    number = account.live_environment
    return stored_rows(account.database, number), account.database.documents(number)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_foreign_id_gets_the_response_of_an_unknown_id(two: Two, asked: Asked) -> None:
    before = belongings(two.owner)
    foreign, unknown = two.ask(asked, two.owned), two.ask(asked, UNKNOWN)
    assert foreign == unknown
    is_list = asked.method == "GET" and re.search(r"\?(?!include|audienceId)", asked.path)
    assert foreign[0] == 200 if is_list else foreign[0] in {400, 404}
    assert belongings(two.owner) == before


def test_every_endpoint_with_an_id_is_covered(service: Service) -> None:
    paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    taking = {(verb.upper(), path) for path, verbs in paths.items() for verb in verbs if "{" in path}
    tried = {(asked.method, re.sub(r"<\w+>", "{}", asked.path.partition("?")[0])) for asked in ASKED}
    assert {(verb, re.sub(r"{\w+}", "{}", path).removeprefix("/api/v1")) for verb, path in taking} <= tried


@pytest.mark.parametrize("path", ["/consumers?", "/consumers/search?q=owned&", "/orders?", "/audiences?"])
def test_foreign_cursor_gets_the_response_of_a_damaged_cursor(two: Two, path: str) -> None:
    two.owner.settled()
    cursor = two.owner.live.get(path).json()["pageInfo"]["endCursor"]
    damaged = cursor[:8] + ("A" if cursor[8] != "A" else "B") + cursor[9:]
    foreign, unknown = (two.intruder.get(f"{path}after={one}") for one in (cursor, damaged))
    assert (foreign.status_code, unknown.status_code) == (400, 400)
    assert foreign.json()["details"] == unknown.json()["details"]
    assert two.owner.live.get(f"{path}after={cursor}").status_code == 200


def test_foreign_idempotency_key_is_a_new_key(two: Two) -> None:
    before = belongings(two.owner)
    headers = {"Idempotency-Key": KEY["Idempotency-Key"] + "?"}
    two.owner.live.post("/consumers", json={"fullName": "Owned too"}, headers=headers).raise_for_status()
    responses = [two.intruder.post("/consumers", json={"fullName": name}, headers=headers) for name in ("A", "A", "B")]
    assert [response.status_code for response in responses] == [201, 201, 409]
    assert [response.headers.get("Idempotent-Replayed") for response in responses[:2]] == [None, "true"]
    assert len(belongings(two.owner)[0]["consumers"]) == len(before[0]["consumers"]) + 1


def test_unique_values_are_unique_per_environment(two: Two) -> None:
    before = belongings(two.owner)
    mine = create(two.intruder, email=two.owned.email, externalId=two.owned.external_id)
    order = create(two.intruder, "/orders", consumerId=mine["id"], amount=1, externalId=two.owned.external_id)
    again = two.intruder.put(f"/orders/{order['id']}", json={"externalId": two.owned.external_id})
    assert again.status_code == 200
    two.intruder.delete(f"/consumers/{mine['id']}").raise_for_status()
    assert belongings(two.owner) == before


def test_lists_contain_no_foreign_rows(two: Two) -> None:
    for account in (two.owner, two.other):
        account.settled()
    for path in ("/consumers", "/consumers?search=owned", "/consumers/search?q=owned", "/orders", "/audiences"):
        text = two.intruder.get(path).raise_for_status().text
        assert not [value for value in two.owned if value in text]
