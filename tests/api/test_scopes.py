"""Every route with every scope: a key opens exactly the routes and fields of its scopes (contract.md §1)."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, get_origin

import httpx
import pytest

from api.openapi.endpoints import Endpoint
from api.scopes import FieldScope
from infra.accounts import keys
from infra.accounts.keys import SCOPES
from tests.api.resources import add_to_new_audience, count_rows, create
from tests.endpoints import merchant_endpoints
from tests.service import Account, Service

SAMPLES: dict[str, Any] = {
    "audience_id": "aud_" + "0" * 26,
    "consumer": {"email": "a@example.com"},
    "rules": [],
    "filter": "email:*",
    "personal": True,
}
"""A value for each field with a scope of its own."""


class Clients:
    """Clients of an account, each with a key of certain scopes."""

    def __init__(self, service: Service, account: Account, stack: ExitStack) -> None:
        self._service, self._account, self._stack = service, account, stack
        self._clients = dict[frozenset[str], httpx.Client]()

    def with_scopes(self, scopes: Iterable[str]) -> httpx.Client:
        chosen = frozenset(scopes)
        if chosen not in self._clients:
            with self._account.database.engine.begin() as connection:
                key = keys.create(connection, self._account.name, "live", scopes=chosen).key
            headers = {"Authorization": f"Bearer {key}"}
            client = httpx.Client(base_url=self._service.url, headers=headers, timeout=30)
            self._clients[chosen] = self._stack.enter_context(client)
        return self._clients[chosen]


@pytest.fixture
def clients(service: Service, account: Account) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(service, account, stack)


def address(endpoint: Endpoint) -> str:
    return endpoint.path.replace("{", "").replace("}", "")


def test_every_route_requires_exactly_its_scopes(clients: Clients) -> None:
    tried = 0
    for endpoint in merchant_endpoints():
        assert endpoint.options
        body = b"not even JSON" if endpoint.body else None
        for scope in SCOPES:
            lacking = clients.with_scopes(set(SCOPES) - {scope})
            response = lacking.request(endpoint.method, address(endpoint), content=body)
            assert (response.status_code == 403) == (scope in endpoint.options.scopes), (endpoint.path, scope)
            if response.status_code == 403:
                assert response.json()["error"] == "Forbidden"
                assert scope in response.json()["message"]
            tried += 1
        exact = clients.with_scopes(endpoint.options.scopes)
        response = exact.request(endpoint.method, address(endpoint), content=body)
        assert response.status_code not in {401, 403}, endpoint.path
    assert tried >= 20 * len(SCOPES)


class FieldRequest(NamedTuple):
    """A request with a field that requires a scope of its own."""

    endpoint: Endpoint
    struct: Any
    required: FieldScope

    def send(self, client: httpx.Client) -> httpx.Response:
        name, _, value = self.required.name(self.struct).partition("=")
        sample = value or SAMPLES[self.required.field]
        method, path = self.endpoint.method, address(self.endpoint)
        if self.struct is self.endpoint.parameters:
            return client.request(method, path, params={name: sample})
        body: Any = {name: sample}
        return client.request(method, path, json=[{}, body] if get_origin(self.endpoint.body) is list else body)


def test_every_field_requires_exactly_its_scope(clients: Clients) -> None:
    requests = [
        FieldRequest(endpoint, struct, required)
        for endpoint in merchant_endpoints()
        for struct in endpoint.inputs
        for required in struct.field_scopes
    ]
    assert len(requests) >= 12
    for request in requests:
        assert request.endpoint.options
        scope, scopes = request.required.scope, request.endpoint.options.scopes
        response = request.send(clients.with_scopes({*scopes, scope}))
        assert response.status_code != 403, request
        if scope in scopes:
            continue
        response = request.send(clients.with_scopes(set(SCOPES) - {scope}))
        assert response.status_code == 403, request
        assert scope in response.json()["message"]
        assert request.required.name(request.struct) in response.json()["message"]


def test_include_shows_nothing_without_the_scope_of_the_data(clients: Clients, account: Account) -> None:
    consumer = create(account.live, email="ann@example.com")["id"]
    create(account.live, "/orders", consumerId=consumer, amount=5)
    add_to_new_audience(account.live, consumer, "Secret list")
    account.settled()
    reader = clients.with_scopes(["read:consumers"])
    for include in ("orders", "audiences", "orders,audiences"):
        response = reader.get(f"/api/v1/consumers/{consumer}", params={"include": include})
        assert response.status_code == 403
        assert "Secret list" not in response.text
    assert reader.get("/api/v1/consumers", params={"include": "audiences"}).status_code == 403
    full = clients.with_scopes(["read:consumers", "read:orders", "read:audiences"])
    response = full.get(f"/api/v1/consumers/{consumer}", params={"include": "orders,audiences"})
    assert len(response.json()["orders"]) == len(response.json()["audiences"]) == 1


def test_members_are_hidden_from_a_key_without_read_consumers(clients: Clients, account: Account) -> None:
    audience = add_to_new_audience(account.live, create(account.live, email="ann@example.com")["id"])
    account.settled()
    narrow = clients.with_scopes(["read:audiences", "write:audiences"])
    path = f"/api/v1/audiences/{audience}"
    assert narrow.get(f"{path}/count").json()["count"] == 1
    assert narrow.get(f"{path}/members").status_code == 403
    rule = {"field": "email", "operator": "EQUALS", "values": ["ann@example.com"]}
    dynamic = narrow.post("/api/v1/audiences", json={"name": "Ann?", "type": "DYNAMIC", "rules": [rule]})
    assert dynamic.status_code == 403
    assert narrow.post("/api/v1/audiences", json={"name": "Friends", "type": "STATIC"}).status_code == 201


def test_order_by_email_tells_nothing_without_read_consumers(clients: Clients, account: Account) -> None:
    consumer = create(account.live, email="ann@example.com")["id"]
    narrow = clients.with_scopes(["write:orders"])
    answers = [
        narrow.post("/api/v1/orders", json={"consumer": {"email": email}, "amount": "x"})
        for email in ("ann@example.com", "nobody@example.com")
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].json()["message"] == answers[1].json()["message"]
    assert narrow.post("/api/v1/orders", json={"consumerId": consumer, "amount": 5}).status_code == 201


def test_refused_key_changes_nothing(clients: Clients, account: Account) -> None:
    read_only = clients.with_scopes(["read:consumers"])
    for _ in range(3):
        assert read_only.post("/api/v1/consumers", json={}, headers={"Idempotency-Key": "k"}).status_code == 403
    for table in ("consumers", "idempotency_keys"):
        assert count_rows(account, table) == 0
