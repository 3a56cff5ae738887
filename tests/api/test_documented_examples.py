"""The contract's examples, replayed by a plain HTTP client: status, headers and every field of each response, in order.

Ids and current times are written `…`.
"""

import http.client
import json
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from infra.accounts import keys, organizations
from tests.service import Account, Service

NOW = r'"20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'
PLACED = "2024-11-01T10:00:00.000Z"
UNKNOWN = {kind: f"{kind}_01J00000000000000000000000" for kind in ("cons", "ord", "aud")}
CONSUMER = {
    "id": "cons_…",
    "email": None,
    "phone": None,
    "fullName": None,
    "metadata": None,
    "externalId": None,
    "totalOrders": 0,
    "totalOrderValue": 0,
    "lastOrderAt": None,
    "createdAt": "…",
    "updatedAt": "…",
}
JOSE = {
    "email": "jose@example.com",
    "phone": "+442079460958",
    "fullName": "José García",
    "metadata": {"tier": "gold"},
    "externalId": "crm-1",
}
ORDER = {
    "id": "ord_…",
    "consumerId": "cons_…",
    "externalId": None,
    "status": "COMPLETED",
    "amount": "149.99",
    "refundedAmount": "0",
    "currencyCode": "USD",
    "baseAmount": "149.99",
    "items": None,
    "metadata": None,
    "placedAt": "…",
    "createdAt": "…",
    "updatedAt": "…",
}
AUDIENCE: dict[str, Any] = {
    "id": "aud_…",
    "name": "Best",
    "description": None,
    "metadata": None,
    "type": "STATIC",
    "rules": None,
    "createdAt": "…",
    "updatedAt": "…",
}


class PlainResponse(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def matches(self, expected: Any) -> bool:
        """Assert that the response is this JSON with its fields in this order, apart from ids and current times."""
        text = re.sub(NOW, '"…"', re.sub(f'"{PLACED}"', '"placed"', self.text))
        text = re.sub(r'"(cons|ord|aud)_[0-9A-HJKMNP-TV-Z]{26}"', r'"\1_…"', text)
        text = re.sub(r'"req_\w{26}"', '"req_…"', text)
        expected_text = json.dumps(expected).replace(f'"{PLACED}"', '"placed"')
        assert json.dumps(json.loads(text)) == expected_text
        return True


class Client(NamedTuple):
    address: str
    key: str

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> PlainResponse:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/api/v1{path}", sent, all_headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return PlainResponse(response.status, response.headers, text)


@pytest.fixture
def client(service: Service, account: Account) -> Client:
    with account.database.engine.begin() as connection:
        organizations.set_limits(connection, account.name, {"reads": 1000, "writes": 500, "batch": 100})
        key = keys.create(connection, account.name, "live", name="plain").key
    return Client(urlsplit(service.url).netloc, key)


def create_id(client: Client, path: str, **fields: Any) -> str:
    response = client.send("POST", path, fields)
    assert response.status == 201, response.text
    return str(response.json["id"])


def test_consumer_lifecycle(client: Client) -> None:
    made = client.send("POST", "/consumers", JOSE | {"phone": "+44 20 7946 0958", "fullName": " José García "})
    assert made.status == 201
    assert made.matches(CONSUMER | JOSE)
    path = f"/consumers/{made.json['id']}"
    got = client.send("GET", path)
    assert (got.status, got.text, got.headers["ETag"]) == (200, made.text, made.headers["ETag"])
    changed = client.send("PUT", path, {"fullName": "Pepe", "phone": None, "metadata": {"vip": True}})
    assert changed.status == 200
    expected = JOSE | {"phone": None, "fullName": "Pepe", "metadata": {"vip": True, "tier": "gold"}}
    assert changed.matches(CONSUMER | expected)
    gone = client.send("DELETE", path)
    assert (gone.status, gone.text) == (200, changed.text)
    assert client.send("DELETE", path).status == 404


@pytest.mark.parametrize("wrapped", [False, True])
def test_consumer_batches_in_both_forms(client: Client, wrapped: bool) -> None:  # noqa: FBT001
    def body(items: list[Any]) -> Any:
        return {"consumers": items} if wrapped else items

    made = client.send("POST", "/consumers/batch", body([JOSE, {"email": "b@example.com"}]))
    assert made.status == 201
    assert made.matches([CONSUMER | JOSE, CONSUMER | {"email": "b@example.com"}])
    first, second = (one["id"] for one in made.json)
    changed = client.send("PUT", "/consumers/batch", body([{"id": second, "fullName": "B"}, {"id": first}]))
    assert changed.status == 200
    assert changed.matches([CONSUMER | {"email": "b@example.com", "fullName": "B"}, CONSUMER | JOSE])
    assert [one["id"] for one in changed.json] == [second, first]


@pytest.mark.parametrize("reference", [{"email": "JOSE@example.com"}, {"externalId": "crm-1"}])
def test_order_lifecycle_by_consumer_email_or_external_id(client: Client, reference: dict[str, str]) -> None:
    buyer = create_id(client, "/consumers", **JOSE)
    item = {"productId": "p1", "variantId": None, "quantity": 2, "unitAmount": "74.995"}
    fields = {"externalId": "o-1", "items": [item], "metadata": {"a": 1}, "placedAt": PLACED}
    made = client.send("POST", "/orders", {"consumer": reference, "amount": 149.99} | fields)
    assert made.status == 201
    assert made.matches(ORDER | fields)
    assert made.json["consumerId"] == buyer
    path = f"/orders/{made.json['id']}"
    assert client.send("GET", path).text == made.text
    changed = client.send("PUT", path, {"status": "REFUNDED", "refundedAmount": "149.99", "items": None})
    expected = ORDER | fields | {"status": "REFUNDED", "refundedAmount": "149.99", "items": None}
    assert changed.matches(expected)
    assert client.send("DELETE", path).text == changed.text
    batch = [{"consumerId": buyer, "amount": "149.99", "placedAt": PLACED}, {"consumer": reference, "amount": "1.50"}]
    for body in (batch, {"orders": batch}):
        several = client.send("POST", "/orders/batch", body)
        assert several.status == 201
        second = ORDER | {"amount": "1.50", "baseAmount": "1.50"}
        assert several.matches([ORDER | {"placedAt": PLACED}, second])
    shown = client.send("GET", f"/consumers/{buyer}?include=orders")
    assert (shown.json["totalOrders"], shown.json["totalOrderValue"]) == (4, 302.98)
    assert list(shown.json) == [*CONSUMER, "orders"]
    assert [one["amount"] for one in shown.json["orders"]] == ["1.50", "1.50", "149.99", "149.99"]


def test_order_list(client: Client) -> None:
    buyer, other = create_id(client, "/consumers"), create_id(client, "/consumers")
    days = [create_id(client, "/orders", consumerId=buyer, amount=n, placedAt=f"2024-11-0{n}") for n in (1, 2, 3)]
    create_id(client, "/orders", consumerId=other, amount=4, status="CANCELLED", placedAt="2024-11-02")

    def ids_of(query: str) -> list[str]:
        response = client.send("GET", f"/orders?{query}")
        assert response.status == 200, response.text
        assert list(response.json) == ["data", "pageInfo"]
        return [one["id"] for one in response.json["data"]]

    assert ids_of(f"consumerId={buyer}") == days[::-1]
    assert ids_of("placedAfter=2024-11-02&placedBefore=2024-11-03&status=COMPLETED") == [days[1]]
    page = client.send("GET", f"/orders?consumerId={buyer}&first=1").json
    info = page["pageInfo"]
    assert list(info) == ["startCursor", "endCursor", "hasNextPage", "hasPreviousPage"]
    assert (info["hasNextPage"], info["hasPreviousPage"]) == (True, False)
    assert ids_of(f"consumerId={buyer}&first=2&after={info['endCursor']}") == days[1::-1]
    assert ids_of(f"consumerId={buyer}&last=2") == days[1::-1]
    nothing = client.send("GET", "/orders?status=REFUNDED")
    info = {"startCursor": None, "endCursor": None, "hasNextPage": False, "hasPreviousPage": False}
    assert nothing.matches({"data": [], "pageInfo": info})


def test_audiences_of_each_type_and_their_members(client: Client) -> None:
    rules = [
        {"field": "totalOrderValue", "operator": "GREATER_THAN", "values": [100], "groupId": "a"},
        {"field": "metadata.tier", "operator": "IN", "values": ["gold", "silver"], "groupId": "a"},
        {"field": "email", "operator": "EXISTS", "values": [], "groupId": None},
    ]
    kinds: dict[str, dict[str, Any]] = {
        "STATIC": {},
        "DYNAMIC": {"rules": rules},
        "SYNCED_LIST": {"description": "d"},
    }
    for kind, fields in kinds.items():
        made = client.send("POST", "/audiences", {"name": "Best", "type": kind, **fields})
        assert made.status == 201
        assert made.matches(AUDIENCE | {"type": kind} | fields)
        assert client.send("GET", f"/audiences/{made.json['id']}").text == made.text
    newest = client.send("GET", "/audiences").json
    assert list(newest) == ["data", "pageInfo"]
    assert [one["type"] for one in newest["data"]] == ["SYNCED_LIST", "DYNAMIC", "STATIC"]
    path, ids = f"/audiences/{made.json['id']}/members", [create_id(client, "/consumers") for _ in range(3)]
    for method, sent_ids, counts in (
        ("POST", ids[:2], {"addedCount": 2}),
        ("PUT", ids[1:], {"addedCount": 1, "removedCount": 1}),
        ("DELETE", ids, {"removedCount": 2}),
    ):
        response = client.send(method, path, {"consumerIds": sent_ids})
        assert response.status == 200
        assert response.matches({"audienceId": "aud_…", **counts})


ERROR = {"requestId": "req_…"}
EMAIL = {"field": "email", "code": "invalid_email", "message": "Invalid email format"}
INVALID = {"error": "Validation failed", "code": "validation_failed"}
TOO_LARGE = {
    "error": "Max batch size is 500",
    "code": "batch_too_large",
    "message": "Send at most 500 items in a request",
}


def no_object(resource: str, prefix: str) -> dict[str, str]:
    noun = resource.lower()
    message = (
        f"This environment has no {noun} with this id. Ids begin with {prefix}; "
        "keys of live and of test see different data"
    )
    return {"error": f"{resource} not found", "code": f"{noun}_not_found", "message": message}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "expected"),
    [
        ("POST", "/consumers", {"email": "x"}, 400, INVALID | {"details": [EMAIL]}),
        (
            "POST",
            "/consumers",
            {"email": "JOSE@example.com"},
            400,
            {
                "error": "Email already exists",
                "code": "email_taken",
                "details": [
                    {
                        "field": "email",
                        "code": "email_taken",
                        "message": "Email already exists",
                        "existingId": "cons_…",
                    }
                ],
            },
        ),
        (
            "POST",
            "/consumers",
            {"externalId": "crm-1"},
            400,
            {
                "error": "External ID already exists",
                "code": "external_id_taken",
                "details": [
                    {
                        "field": "externalId",
                        "code": "external_id_taken",
                        "message": "External ID already exists",
                        "existingId": "cons_…",
                    }
                ],
            },
        ),
        (
            "POST",
            "/consumers/batch",
            [{}, {}, {}, {"email": "x"}],
            400,
            INVALID | {"details": [EMAIL | {"field": "[3].email"}]},
        ),
        ("POST", "/consumers/batch", [{}] * 501, 400, TOO_LARGE),
        ("POST", "/orders/batch", {"orders": [{}] * 501}, 400, TOO_LARGE),
        ("GET", f"/consumers/{UNKNOWN['cons']}", None, 404, no_object("Consumer", "cons_")),
        ("PUT", f"/consumers/{UNKNOWN['cons']}", {}, 404, no_object("Consumer", "cons_")),
        ("DELETE", f"/orders/{UNKNOWN['ord']}", None, 404, no_object("Order", "ord_")),
        ("GET", f"/audiences/{UNKNOWN['aud']}", None, 404, no_object("Audience", "aud_")),
        (
            "GET",
            "/nothing",
            None,
            404,
            {
                "error": "Not found",
                "code": "not_found",
                "message": "The paths of the API begin with /api/v1: /docs lists them",
            },
        ),
        (
            "PATCH",
            "/consumers",
            {},
            405,
            {
                "error": "Method not allowed",
                "code": "method_not_allowed",
                "message": "This path has the methods GET, HEAD, OPTIONS, POST. "
                "Use PUT to change some fields of an object",
            },
        ),
    ],
)
def test_error_uses_the_envelope(
    client: Client, method: str, path: str, body: Any, status: int, expected: dict[str, Any]
) -> None:
    create_id(client, "/consumers", **JOSE)
    response = client.send(method, path, body)
    assert response.status == status
    assert response.matches(expected | ERROR)
    assert response.json["requestId"] == response.headers["X-Request-Id"]


def test_header_errors_use_the_envelope(client: Client, account: Account) -> None:
    path = f"/consumers/{create_id(client, '/consumers')}"
    send = "send `Authorization: Bearer sk_…` with a secret key of the environment"
    for key, code, sentence, message in (
        ("sk_live_x", "authentication_required", "Authentication required", "This key is unknown, revoked or expired"),
        ("pk_live_x", "secret_key_required", "Secret key required", "A publishable key opens nothing here"),
    ):
        response = client._replace(key=key).send("GET", path)
        assert response.status == 401
        assert response.matches({"error": sentence, "code": code, "message": f"{message}: {send}"} | ERROR)
    with account.database.engine.begin() as connection:
        reader = keys.create(connection, account.name, "live", scopes=["read:consumers"]).key
    response = client._replace(key=reader).send("POST", "/consumers", {})
    assert response.status == 403
    assert response.matches(
        {"error": "Forbidden", "code": "forbidden", "message": "This key lacks the scope write:consumers"} | ERROR
    )
    response = client.send("PUT", path, {"fullName": "A"}, If_Match='"1"')
    tag = client.send("GET", path).headers["ETag"]
    assert response.status == 412
    message = f"The current ETag is {tag}: read the consumer again, and send the ETag with its quotes"
    expected = {"error": "Precondition failed", "code": "precondition_failed", "message": message}
    assert response.matches(expected | ERROR)
    response = client.send("POST", "/consumers", b"{}", Content_Type="text/plain")
    assert response.status == 415
    expected = {"error": "Content-Type must be application/json", "code": "unsupported_media_type"}
    assert response.matches(expected | {"message": "The Content-Type 'text/plain' is not supported: send JSON"} | ERROR)
    response = client.send("POST", "/consumers", b"", Content_Length=str(10 * 1024 * 1024 + 1))
    assert response.status == 413
    assert response.matches({"error": "Request body too large", "code": "body_too_large"} | ERROR)


def test_documented_headers(client: Client) -> None:
    first = client.send("POST", "/consumers", {}, Idempotency_Key="k", X_Request_Id="mine-1")
    again = client.send("POST", "/consumers", {}, Idempotency_Key="k")
    assert (first.status, again.status, again.text) == (201, 201, first.text)
    assert first.headers["X-Request-Id"] == "mine-1"
    assert (first.headers["Idempotent-Replayed"], again.headers["Idempotent-Replayed"]) == (None, "true")
    for name in ("ETag", "Consistency-Token"):
        assert first.headers[name]
        assert first.headers[name] == again.headers[name]
    assert re.fullmatch(r'"[\w-]{34}"', first.headers["ETag"])
    assert (first.headers["X-RateLimit-Limit"], first.headers["X-RateLimit-Remaining"]) == ("500", "499")
    assert re.fullmatch(r"\d{10}", first.headers["X-RateLimit-Reset"])
    other = client.send("POST", "/consumers", {"fullName": "A"}, X_Idempotency_Key="k")
    assert other.status == 409
    message = "This Idempotency-Key was used for another request: send a new key with each new request"
    assert other.matches({"error": "Conflict", "code": "idempotency_key_reused", "message": message} | ERROR)
    unchanged = client.send("GET", f"/consumers/{first.json['id']}", If_None_Match=first.headers["ETag"])
    assert (unchanged.status, unchanged.text) == (304, "")
