"""No row of another environment can be read, guessed, counted or changed: foreign ids are unknown ids."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.api.resources import add_to_new_audience, create, stored_rows
from tests.service import Account, Service, new_account

ULID = "0" * 26
EXPORTS = "/api/v1/exports/"
"""Their ids are tried by tests/api/test_exports.py, which makes exports."""
KEY = {"Idempotency-Key": "a key of the owner's"}


class Names(NamedTuple):
    """The ids and unique values of an environment's rows."""

    consumer: str
    order: str
    audience: str
    synced: str
    email: str
    external_id: str

    def substituted(self, what: Any) -> Any:
        """Replace `<consumer>` and the other placeholders in a path or body."""
        text = json.dumps(what)
        for name, value in self._asdict().items():
            text = text.replace(f"<{name}>", value)
        return json.loads(text)


class ForeignRequest(NamedTuple):
    method: str
    path: str
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.body) if self.body else ''}"


UNKNOWN = Names(f"cons_{ULID}", f"ord_{ULID}", f"aud_{ULID}", f"aud_{ULID}", "nobody@example.com", "nothing")
NAME, IDS = {"fullName": "Mine"}, {"consumerIds": ["<consumer>"]}
OWN = {"consumerIds": ["<own.consumer>"]}
FOREIGN_REQUESTS = [
    *(
        ForeignRequest(method, "/consumers/<consumer>", NAME if method == "PUT" else None)
        for method in ("GET", "PUT", "DELETE")
    ),
    ForeignRequest("GET", "/consumers/<consumer>?include=orders,audiences"),
    ForeignRequest("PUT", "/consumers/<consumer>", {"email": "x"}),
    ForeignRequest("PUT", "/consumers/batch", [{"id": "<consumer>", **NAME}]),
    ForeignRequest("PUT", "/consumers/batch", [{"id": "<own.consumer>", **NAME}, {"id": "<consumer>", **NAME}]),
    ForeignRequest("POST", "/orders", {"consumerId": "<consumer>", "amount": 1}),
    ForeignRequest("POST", "/orders", {"consumer": {"email": "<email>"}, "amount": 1}),
    ForeignRequest("POST", "/orders", {"consumer": {"externalId": "<external_id>"}, "amount": 1}),
    ForeignRequest("POST", "/orders/batch", [{"consumerId": "<consumer>", "amount": 1}]),
    ForeignRequest("GET", "/orders?consumerId=<consumer>"),
    *(
        ForeignRequest(method, "/orders/<order>", {"amount": 2} if method == "PUT" else None)
        for method in ("GET", "PUT", "DELETE")
    ),
    ForeignRequest("PUT", "/orders/<own.order>", {"consumerId": "<consumer>"}),
    *(
        ForeignRequest(method, "/audiences/<audience>", {"name": "Mine"} if method == "PUT" else None)
        for method in ("GET", "PUT", "DELETE")
    ),
    *(
        ForeignRequest(method, f"/audiences/<{one}>/members", OWN)
        for method in ("POST", "PUT", "DELETE")
        for one in ("audience", "synced")
    ),
    *(ForeignRequest(method, "/audiences/<own.synced>/members", IDS) for method in ("POST", "PUT", "DELETE")),
    *(ForeignRequest(method, "/audiences/<synced>/members", IDS) for method in ("POST", "PUT", "DELETE")),
    *(
        ForeignRequest("GET", f"/audiences/<{one}>/{what}")
        for one in ("audience", "synced")
        for what in ("members", "count")
    ),
    ForeignRequest("GET", "/audiences/<own.synced>/members?audienceId=<audience>"),
    ForeignRequest("GET", "/consumers?audienceId=<synced>"),
    ForeignRequest("GET", "/consumers/search?q=<email>"),
    ForeignRequest("GET", "/consumers/search?email=<email>"),
    ForeignRequest("GET", "/consumers/search?externalId=<external_id>"),
    ForeignRequest("GET", "/consumers?filter=email:<email>"),
    ForeignRequest("GET", "/consumers/search?q=nobody&filter=email:<email>"),
    ForeignRequest("GET", "/consumers?search=<external_id>"),
]


def fill(client: httpx.Client, tag: str) -> Names:
    """Create one resource of each kind."""
    email, external_id = f"{tag}@example.com", f"{tag}-external"
    consumer = create(client, email=email, externalId=external_id, fullName="Owned")["id"]
    order = create(client, "/orders", consumerId=consumer, amount=5, externalId=external_id)["id"]
    audience = add_to_new_audience(client, consumer)
    synced = create(client, "/audiences", name="Synced", type="SYNCED_LIST")["id"]
    client.put(f"/audiences/{synced}/members", json={"consumerIds": [consumer]}).raise_for_status()
    client.post("/consumers", json={}, headers=KEY).raise_for_status()
    return Names(consumer, order, audience, synced, email, external_id)


class OwnerAndIntruder(NamedTuple):
    """An owner's account and resources, and an intruder's client and resources."""

    owner: Account
    owned: Names
    other: Account
    intruder: httpx.Client
    own: Names

    def send(self, foreign_request: ForeignRequest, names: Names) -> tuple[int, str]:
        """Send a request as the intruder; return status and text, with placeholders for ids and no request id."""
        path, body = names.substituted(self.own_substituted([foreign_request.path, foreign_request.body]))
        response = self.intruder.request(foreign_request.method, path, json=body)
        text = re.sub(r',?"requestId":"[^"]*"', "", response.text)
        for name, value in names._asdict().items():
            text = text.replace(value, f"<{name}>")
        return response.status_code, text

    def own_substituted(self, what: Any) -> Any:
        text = json.dumps(what)
        for name, value in self.own._asdict().items():
            text = text.replace(f"<own.{name}>", value)
        return json.loads(text)


@pytest.fixture(scope="module", params=["other mode", "other organization"])
def parties(service: Service, request: pytest.FixtureRequest) -> Iterator[OwnerAndIntruder]:
    with new_account(service) as owner, new_account(service) as other:
        intruder = owner.test if request.param == "other mode" else other.live
        yield OwnerAndIntruder(owner, fill(owner.live, "owned"), other, intruder, fill(intruder, "own"))


def stored_state(account: Account) -> tuple[Any, Any]:
    account.settled()
    number = account.live_environment
    return stored_rows(account.database, number), account.database.documents(number)


@pytest.mark.parametrize("foreign_request", FOREIGN_REQUESTS, ids=str)
def test_foreign_id_gets_the_response_of_an_unknown_id(
    parties: OwnerAndIntruder, foreign_request: ForeignRequest
) -> None:
    before = stored_state(parties.owner)
    foreign, unknown = parties.send(foreign_request, parties.owned), parties.send(foreign_request, UNKNOWN)
    assert foreign == unknown
    is_list = foreign_request.method == "GET" and re.search(r"\?(?!include|audienceId)", foreign_request.path)
    assert foreign[0] == 200 if is_list else foreign[0] in {400, 404}
    assert stored_state(parties.owner) == before


def test_every_endpoint_with_an_id_is_covered(service: Service) -> None:
    paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    taking = {
        (verb.upper(), path)
        for path, verbs in paths.items()
        for verb in verbs
        if "{" in path and not path.startswith(("/api/v1/ops/", EXPORTS))
    }
    tried = {
        (foreign_request.method, re.sub(r"<\w+>", "{}", foreign_request.path.partition("?")[0]))
        for foreign_request in FOREIGN_REQUESTS
    }
    assert {(verb, re.sub(r"{\w+}", "{}", path).removeprefix("/api/v1")) for verb, path in taking} <= tried


@pytest.mark.parametrize("path", ["/consumers?", "/consumers/search?q=owned&", "/orders?", "/audiences?"])
def test_foreign_cursor_gets_the_response_of_a_damaged_cursor(parties: OwnerAndIntruder, path: str) -> None:
    parties.owner.settled()
    cursor = parties.owner.live.get(path).json()["pageInfo"]["endCursor"]
    damaged = cursor[:8] + ("A" if cursor[8] != "A" else "B") + cursor[9:]
    foreign, unknown = (parties.intruder.get(f"{path}after={one}") for one in (cursor, damaged))
    assert (foreign.status_code, unknown.status_code) == (400, 400)
    assert foreign.json()["details"] == unknown.json()["details"]
    assert parties.owner.live.get(f"{path}after={cursor}").status_code == 200


def test_foreign_idempotency_key_is_a_new_key(parties: OwnerAndIntruder) -> None:
    before = stored_state(parties.owner)
    headers = {"Idempotency-Key": KEY["Idempotency-Key"] + "?"}
    parties.owner.live.post("/consumers", json={"fullName": "Owned too"}, headers=headers).raise_for_status()
    responses = [
        parties.intruder.post("/consumers", json={"fullName": name}, headers=headers) for name in ("A", "A", "B")
    ]
    assert [response.status_code for response in responses] == [201, 201, 409]
    assert [response.headers.get("Idempotent-Replayed") for response in responses[:2]] == [None, "true"]
    assert len(stored_state(parties.owner)[0]["consumers"]) == len(before[0]["consumers"]) + 1


def test_unique_values_are_unique_per_environment(parties: OwnerAndIntruder) -> None:
    before = stored_state(parties.owner)
    mine = create(parties.intruder, email=parties.owned.email, externalId=parties.owned.external_id)
    order = create(parties.intruder, "/orders", consumerId=mine["id"], amount=1, externalId=parties.owned.external_id)
    again = parties.intruder.put(f"/orders/{order['id']}", json={"externalId": parties.owned.external_id})
    assert again.status_code == 200
    parties.intruder.delete(f"/consumers/{mine['id']}").raise_for_status()
    assert stored_state(parties.owner) == before


def test_lists_contain_no_foreign_rows(parties: OwnerAndIntruder) -> None:
    for account in (parties.owner, parties.other):
        account.settled()
    for path in ("/consumers", "/consumers?search=owned", "/consumers/search?q=owned", "/orders", "/audiences"):
        text = parties.intruder.get(path).raise_for_status().text
        assert not [value for value in parties.owned if value in text]
