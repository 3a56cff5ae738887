"""Typical mistakes of a client's first afternoon: each answer says what is wrong, what is allowed, and what to do."""

import json
from typing import Any, NamedTuple

import httpx
import pytest

from tests.api.resources import create
from tests.service import Account

GOOD = {"email": "jose@example.com", "externalId": "crm-1"}
DYNAMIC = {"name": "A", "type": "DYNAMIC"}
TEN = "0123456789"


class Mistake(NamedTuple):
    """A request, and the expected answer: the code of a fault or of the error, and parts of its message."""

    request: str
    status: int
    code: str
    parts: tuple[str, ...]
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012 (not changed)


MISTAKES = [
    Mistake("GET /consumers", 401, "authentication_required", ("Bearer sk_",), headers={"Authorization": ""}),
    Mistake("GET /consumers", 401, "authentication_required", ("Bearer sk_",), headers={"Authorization": "sk_live_a"}),
    Mistake(
        "GET /consumers",
        401,
        "authentication_required",
        ("another header", "Bearer sk_"),
        headers={"Authorization": "", "X-API-Key": "sk_live_a"},
    ),
    Mistake("GET /consumers", 401, "authentication_required", ("Basic",), headers={"Authorization": "Basic c2s6"}),
    Mistake("GET /consumers", 401, "secret_key_required", ("publishable",), headers={"Authorization": "Bearer pk_a"}),
    Mistake("GET /consumers", 401, "authentication_required", ("unknown",), headers={"Authorization": "Bearer sk_a"}),
    Mistake("GET /api/consumers", 404, "not_found", ("/api/v1", "/docs")),
    Mistake("PATCH /consumers/{id}", 405, "method_not_allowed", ("GET, HEAD", "Use PUT"), {}),
    Mistake("POST /consumers/{id}", 405, "method_not_allowed", ("DELETE, GET, HEAD, OPTIONS, PUT",), {}),
    Mistake(
        "POST /consumers",
        415,
        "unsupported_media_type",
        ("x-www-form-urlencoded", "JSON"),
        b"email=a",
        {"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Mistake("POST /consumers", 400, "invalid_json", ("malformed",), b'{"email": }'),
    Mistake("POST /consumers", 400, "invalid_json", ("empty", "{}"), b""),
    Mistake("POST /consumers", 400, "invalid_type", ("object", "/batch"), [GOOD]),
    Mistake("POST /consumers/batch", 400, "invalid_type", ("array", "`consumers`"), GOOD),
    Mistake("POST /consumers/batch", 400, "invalid_type", ("array", "`consumers`"), {"data": [GOOD]}),
    Mistake("POST /consumers", 400, "unknown_field", ("use fullName",), {"full_name": "A"}),
    Mistake("POST /consumers", 400, "unknown_field", ("use fullName",), {"firstName": "A", "lastName": "B"}),
    Mistake("POST /consumers", 400, "invalid_type", ("text or null", "number"), {"externalId": 5}),
    Mistake("POST /consumers", 400, "invalid_email", ("email",), {"email": "abc"}),
    Mistake("POST /consumers", 400, "invalid_phone", ("hone",), {"phone": "abc"}),
    Mistake("POST /consumers", 400, "invalid_type", ("object", "text"), {"metadata": "gold"}),
    Mistake("POST /consumers", 400, "invalid_metadata", ("50 keys",), {"metadata": dict.fromkeys(map(str, range(60)))}),
    Mistake(
        "POST /consumers", 400, "invalid_metadata", ("5 levels",), {"metadata": {"a": {"b": {"c": {"d": {"e": {}}}}}}}
    ),
    Mistake("POST /consumers", 400, "unknown_field", ("use metadata",), {"tags": ["a"]}),
    Mistake("POST /consumers", 400, "email_taken", ("already exists",), {"email": "JOSE@example.com"}),
    Mistake("POST /consumers?dryRun=true", 400, "unknown_parameter", ("none is allowed",), {}),
    Mistake("PUT /consumers/123", 404, "consumer_not_found", ("cons_", "live"), {}),
    Mistake("GET /consumers/3f0c9f1e-3f5b-4a52-8a68-6e9c8a3b7f10", 404, "consumer_not_found", ("cons_",)),
    Mistake("GET /consumers/{test}", 404, "consumer_not_found", ("test",)),
    Mistake("GET /consumers?page=2&limit=50", 400, "unknown_parameter", ("use after",)),
    Mistake("GET /consumers?starting_after=cons_1", 400, "unknown_parameter", ("use after",)),
    Mistake("GET /consumers?after={id}", 400, "invalid_cursor", ("Invalid cursor",)),
    Mistake("GET /consumers?first=500", 400, "out_of_range", ("at most 100",)),
    Mistake("GET /consumers?sort=-createdAt", 400, "unknown_parameter", ("use sortBy",)),
    Mistake("GET /consumers?sortBy=created_at", 400, "invalid_choice", ("createdAt", "totalOrders")),
    Mistake("GET /consumers?sortDir=DESC", 400, "invalid_choice", ("asc or desc",)),
    Mistake("GET /consumers?createdAfter=yesterday", 400, "invalid_time", ("RFC 3339", "date")),
    Mistake("GET /consumers?createdAfter=1704067200", 400, "invalid_time", ("RFC 3339", "date")),
    Mistake("GET /consumers?email=a@b.example", 400, "unknown_parameter", ("/consumers/search?email=",)),
    Mistake("GET /consumers?q=john", 400, "unknown_parameter", ("/consumers/search?q=",)),
    Mistake("GET /consumers/search?search=john", 400, "unknown_parameter", ("use q",)),
    Mistake("GET /consumers/search", 400, "required", ("email, phone or externalId",)),
    Mistake("GET /consumers?filter=emial:*", 400, "invalid_filter", ("Unknown field", "email")),
    Mistake("GET /consumers?filter=totalOrders > 5", 400, "invalid_filter", ("character",)),
    Mistake('GET /consumers?filter=fullName:"a', 400, "invalid_filter", ("quotes",)),
    Mistake("GET /consumers?filter=createdAt:>soon", 400, "invalid_filter", ("RFC 3339",)),
    Mistake("GET /consumers?filter=email:* and phone:*", 400, "invalid_filter", ("Write AND in capitals",)),
    Mistake("GET /consumers?include=orders", 400, "invalid_choice", ("audiences", "/api/v1/orders")),
    Mistake("GET /audiences/{aud}?expand=rules", 400, "unknown_parameter", ("none is allowed",)),
    Mistake("POST /orders", 400, "not_combinable", ("consumerId or consumer",), {"amount": 1}),
    Mistake("POST /orders", 400, "consumer_not_found", ("create the consumer",), {"amount": 1, "consumerId": "cons_1"}),
    Mistake("POST /orders", 400, "invalid_amount", ("decimal number",), {"amount": "1,50", "consumerId": "{id}"}),
    Mistake("POST /orders", 400, "invalid_amount", ("0 or more",), {"amount": -1, "consumerId": "{id}"}),
    Mistake(
        "POST /orders",
        400,
        "required",
        ("other than USD",),
        {"amount": 1, "currencyCode": "GBP", "consumerId": "{id}"},
    ),
    Mistake(
        "POST /orders",
        400,
        "invalid_currency",
        ("ISO 4217",),
        {"amount": 1, "currencyCode": "US$", "consumerId": "{id}"},
    ),
    Mistake(
        "POST /orders", 400, "invalid_choice", ("COMPLETED",), {"amount": 1, "status": "done", "consumerId": "{id}"}
    ),
    Mistake("POST /orders", 400, "invalid_amount", ("4 decimals",), {"amount": "1.00001", "consumerId": "{id}"}),
    Mistake(
        "POST /orders", 400, "required", ("Required",), {"amount": 1, "items": [{"sku": "a"}], "consumerId": "{id}"}
    ),
    Mistake("POST /audiences", 400, "invalid_choice", ("SYNCED_LIST",), {"name": "A", "type": "STATIC_LIST"}),
    Mistake(
        "POST /audiences",
        400,
        "invalid_choice",
        ("GREATER_THAN",),
        DYNAMIC | {"rules": [{"field": "totalOrders", "operator": ">", "values": [1]}]},
    ),
    Mistake(
        "POST /audiences",
        400,
        "unknown_field",
        ("use values",),
        DYNAMIC | {"rules": [{"field": "totalOrders", "operator": "EQUALS", "value": 1}]},
    ),
    Mistake(
        "POST /audiences",
        400,
        "invalid_rule",
        ("not supported for email", "EQUALS"),
        DYNAMIC | {"rules": [{"field": "email", "operator": "GREATER_THAN", "values": [1]}]},
    ),
    Mistake("POST /audiences", 400, "required", ("DYNAMIC",), DYNAMIC),
    Mistake("POST /audiences/{dynamic}/members", 400, "not_possible", ("DYNAMIC", "rules"), {"consumerIds": ["{id}"]}),
    Mistake("POST /audiences/{aud}/members", 400, "consumer_not_found", ("Unknown consumer",), {"consumerIds": ["x"]}),
    Mistake("POST /audiences/{aud}/members", 400, "invalid_type", ('{"consumerIds": […]}',), ["{id}"]),
    Mistake("DELETE /audiences/{aud}/members", 400, "invalid_json", ("empty",)),
    Mistake("PUT /consumers/{id}", 412, "precondition_failed", ("current ETag", "quotes"), {}, {"If-Match": "abc"}),
    Mistake("POST /consumers", 400, "invalid_length", ("1 to 255",), {}, {"Idempotency-Key": ""}),
    Mistake("POST /consumers", 400, "invalid_length", ("1 to 255",), {}, {"Idempotency-Key": TEN * 30}),
    Mistake(
        "GET /consumers", 400, "invalid_token", ("Consistency-Token", "unchanged"), headers={"Consistency-Token": "x"}
    ),
    Mistake("PUT /consumers/batch", 400, "required", ("Required",), [{"fullName": "A"}]),
    Mistake("PUT /consumers/batch", 400, "duplicate", ("Duplicate id",), [{"id": "{id}"}, {"id": "{id}"}]),
    Mistake("PUT /consumers/batch", 404, "consumer_not_found", ("Unknown consumer",), [{"id": "cons_1"}]),
    Mistake("POST /consumers/batch", 400, "batch_too_large", ("at most 500",), [{}] * 501),
    Mistake("GET /ops/index", 403, "forbidden", ("operator",)),
    Mistake("GET /consumers/lookup", 400, "not_combinable", ("externalId or email",)),
    Mistake("GET /consumers/lookup?externalId=none", 404, "consumer_not_found", ("value",)),
    Mistake("GET /orders/lookup", 400, "required", ("Required",)),
    Mistake("GET /orders/lookup?externalId=none", 404, "order_not_found", ("value",)),
    Mistake("GET /consumers/lookup?externalId=a%01b", 400, "invalid_value", ("control characters",)),
    Mistake("GET /consumers/lookup?externalId=" + "9" * 256, 400, "invalid_length", ("at most 255",)),
    Mistake("POST /orders", 400, "invalid_value", ("at most 255",), {"consumer": {"externalId": TEN * 26}}),
    Mistake("POST /orders", 400, "invalid_value", ("254",), {"amount": 1, "consumer": {"email": "a" * 300 + "@b.de"}}),
]


@pytest.fixture
def ids(account: Account) -> dict[str, str]:
    made = {
        "id": create(account.live, **GOOD)["id"],
        "test": create(account.test)["id"],
        "aud": create(account.live, "/audiences", name="A", type="STATIC")["id"],
    }
    rules = [{"field": "email", "operator": "EXISTS"}]
    return made | {"dynamic": create(account.live, "/audiences", **DYNAMIC, rules=rules)["id"]}


def send(client: httpx.Client, mistake: Mistake, ids: dict[str, str]) -> httpx.Response:
    def substituted(text: str) -> str:
        for name, value in ids.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    method, path = substituted(mistake.request).split(" ", 1)
    content = mistake.body if isinstance(mistake.body, bytes | None) else substituted(json.dumps(mistake.body))
    headers = {"Content-Type": "application/json"} | mistake.headers
    url = str(client.base_url.join("/" + path.lstrip("/"))) if path.startswith("/api/") else path
    return client.request(method, url, content=content, headers=headers)


def test_answers_to_mistakes(account: Account, ids: dict[str, str]) -> None:
    wrong = []
    for mistake in MISTAKES:
        response = send(account.live, mistake, ids)
        body = response.json()
        named = [fault for fault in body.get("details", [body]) if fault["code"] == mistake.code]
        message = " ".join([body["error"], body.get("message", ""), *(fault.get("message", "") for fault in named)])
        if response.status_code != mistake.status or not named or not all(part in message for part in mistake.parts):
            wrong.append((mistake.request, mistake.status, mistake.code, mistake.parts, response.status_code, body))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(MISTAKES) > 75


def test_taken_values_name_the_owner(account: Account, ids: dict[str, str]) -> None:
    for field, value in GOOD.items():
        fault = account.live.post("/consumers", json={field: value.upper() if field == "email" else value}).json()
        assert fault["details"][0]["existingId"] == ids["id"]
    repeated = account.live.post("/consumers/batch", json=[{"email": "b@example.com"}] * 2).json()["details"]
    assert [(fault["field"], "existingId" in fault) for fault in repeated] == [("[1].email", False)]
    order = create(account.live, "/orders", consumerId=ids["id"], amount=1, externalId="o-1")
    again = account.live.post("/orders", json={"consumerId": ids["id"], "amount": 1, "externalId": "o-1"}).json()
    assert again["details"][0]["existingId"] == order["id"]


def test_lookups_are_current(account: Account, ids: dict[str, str]) -> None:
    client = account.live
    consumer = client.get(f"/consumers/{ids['id']}")
    for parameters in ({"externalId": "crm-1"}, {"email": "Jose@Example.com"}):
        response = client.get("/consumers/lookup", params=parameters)
        assert (response.status_code, response.text) == (200, consumer.text)
        assert response.headers["ETag"] == consumer.headers["ETag"]
        assert (
            client.get(
                "/consumers/lookup", params=parameters, headers={"If-None-Match": response.headers["ETag"]}
            ).status_code
            == 304
        )
        assert account.test.get("/consumers/lookup", params=parameters).status_code == 404
    order = create(client, "/orders", consumerId=ids["id"], amount=1, externalId="o-2")
    assert client.get("/orders/lookup", params={"externalId": "o-2"}).json() == order
    assert account.test.get("/orders/lookup", params={"externalId": "o-2"}).status_code == 404
    assert [row["id"] for row in client.get("/orders", params={"externalId": "o-2"}).json()["data"]] == [order["id"]]
    assert client.get("/orders", params={"externalId": "none"}).json()["data"] == []


def test_what_clients_send_by_habit_is_taken(account: Account, ids: dict[str, str]) -> None:
    """Lists of parameters in both forms, fields that clients know from elsewhere, and several tokens."""
    client = account.live
    both = client.get(f"/consumers/{ids['id']}?include=audiences&include=orders").json()
    assert both.keys() >= {"audiences", "orders"}
    assert client.get("/audiences?include=rules").status_code == 200
    rules = [{"field": "email", "operator": "EXISTS", "position": 1}]
    body = DYNAMIC | {"rules": rules, "iconName": "star", "lastRefreshedAt": None}
    assert client.post("/audiences", json=body).status_code == 201
    tokens = [client.post("/consumers", json={}).headers["Consistency-Token"] for _ in range(3)]
    listed = client.get("/consumers", headers={"Consistency-Token": ", ".join([tokens[2], *tokens[:2]])})
    assert (listed.status_code, listed.headers.get("Index-Stale")) == (200, None)
    assert len(listed.json()["data"]) == 4
    assert client.get("/consumers?createdAfter=2024-11-01T10:00:00%2B0000").status_code == 200
