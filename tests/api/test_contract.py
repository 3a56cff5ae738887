"""The running service against its own OpenAPI document."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from infra.local.servers import LocalServers
from tests.service import UNLIMITED_OPERATORS, Account, Service, new_service

PATHS = ("openapi.json", "openapi-operations.json")
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A separate service, because the rebuilds requested here would delay the tests of a shared service."""
    with new_service(servers, tmp_path_factory.mktemp("service"), UNLIMITED_OPERATORS) as running:
        yield running


@pytest.fixture(scope="module")
def documents(service: Service) -> list[dict[str, Any]]:
    return [httpx.get(f"{service.url}/{path}").raise_for_status().json() for path in PATHS]


@pytest.fixture(scope="module")
def document(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[0]


def operations(*documents: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{verb.upper()} {path}": operation
        for document in documents
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    }


@pytest.mark.parametrize("path", PATHS)
def test_every_response_matches_the_openapi_document(
    account: Account, service: Service, tmp_path: Path, path: str
) -> None:
    clients = {"MERCHANT_KEY": account.live, "OPERATOR_KEY": account.operator}
    secrets = {name: client.headers["authorization"].removeprefix("Bearer ") for name, client in clients.items()}
    command = [f"{sys.prefix}/bin/schemathesis", "--config-file", str(CONFIG), "run", f"{service.url}/{path}"]
    options = ["--checks", "all", "--continue-on-failure", "--no-color"]
    done = subprocess.run(
        [*command, *options], env=os.environ | secrets, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_endpoint_of_the_contract_is_documented(document: dict[str, Any]) -> None:
    written = ["", "/batch", "/batch/upsert", "/lookup", "/upsert", "/{}"]
    resources = {"consumers": [*written, "/search"], "orders": written}
    resources["audiences"] = ["", "/{}", "/{}/members"]
    paths = {f"/api/v1/{name}{suffix}" for name, suffixes in resources.items() for suffix in suffixes}
    paths |= {"/health/live", "/health/ready", "/openapi.json", "/docs"}
    assert paths <= {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}


def test_every_example_matches_its_schema(documents: list[dict[str, Any]]) -> None:
    contents = [
        (document["components"], content)
        for document in documents
        for operation in operations(document).values()
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in part.get("content", {}).values()
        if "example" in content
    ]
    assert len(contents) > 100
    for components, content in contents:
        schema = json.loads(json.dumps(content["schema"]).replace("#/components/", "#/$defs/components/"))
        defs = json.loads(json.dumps(components).replace("#/components/", "#/$defs/components/"))
        validator = jsonschema_rs.validator_for({**schema, "$defs": {"components": defs}}, validate_formats=True)
        validator.validate(content["example"])


def test_every_request_example_is_accepted(document: dict[str, Any], account: Account) -> None:
    documented = operations(document)

    def example(operation: str) -> Any:
        return documented[operation]["requestBody"]["content"]["application/json"]["example"]

    api = account.live
    consumer = api.post("/consumers", json=example("POST /api/v1/consumers"))
    order = api.post("/orders", json=example("POST /api/v1/orders"))
    audience = api.post("/audiences", json=example("POST /api/v1/audiences"))
    static = api.post("/audiences", json={"name": "Friends", "type": "SYNCED_LIST"})
    ids = [response.raise_for_status().json()["id"] for response in (consumer, order, audience, static)]
    changes = {
        f"/consumers/{ids[0]}": "/consumers/{consumerId}",
        f"/orders/{ids[1]}": "/orders/{orderId}",
        f"/audiences/{ids[2]}": "/audiences/{audienceId}",
    }
    for path, template in changes.items():
        api.put(path, json=example(f"PUT /api/v1{template}")).raise_for_status()
    batch = [item | {"id": ids[0]} for item in example("PUT /api/v1/consumers/batch")]
    api.put("/consumers/batch", json=batch).raise_for_status()
    for verb in ("POST", "PUT", "DELETE"):
        assert list(example(f"{verb} /api/v1/audiences/{{audienceId}}/members")) == ["consumerIds"]
        response = api.request(verb, f"/audiences/{ids[3]}/members", json={"consumerIds": [ids[0]]})
        assert response.status_code == 200, response.text


def test_every_operation_documents_its_errors_and_headers(documents: list[dict[str, Any]]) -> None:
    for name, operation in operations(*documents).items():
        if "/api/v1/" not in name:
            continue
        assert {"401", "403", "429", "500", "503"} <= operation["responses"].keys(), name
        assert operation["security"] == [{"operatorKey" if "/api/v1/ops/" in name else "key": []}], name
        for status, response in operation["responses"].items():
            assert {"X-Request-Id", "X-Content-Type-Options", "Cache-Control"} <= response["headers"].keys(), name
            assert ("X-RateLimit-Reset" in response["headers"]) == (status != "401"), (name, status)


def test_documentation_page_works_offline(service: Service) -> None:
    page = httpx.get(f"{service.url}/docs").raise_for_status().text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) == 4
    for asset in assets:
        assert asset.startswith("/docs/assets/")
        assert httpx.get(f"{service.url}{asset}").raise_for_status().content


def test_the_root_leads_to_the_documentation(service: Service) -> None:
    response = httpx.get(f"{service.url}/")
    assert (response.status_code, response.headers["location"]) == (302, "/docs")


@pytest.mark.parametrize("path", ["/nothing", "/docs/nothing", "/api/v1/nothing", "/api/v1/consumers/a/b"])
def test_unknown_path_is_404_in_the_error_envelope(service: Service, path: str) -> None:
    response = httpx.get(f"{service.url}{path}")
    assert (response.status_code, response.json()["error"]) == (404, "Not found")
    assert response.headers["x-request-id"] == response.json()["requestId"]


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "OPTIONS"])
def test_allow_lists_exactly_the_methods_of_a_path(account: Account, method: str) -> None:
    response = account.live.request(method, "/consumers/x")
    assert response.status_code == (204 if method == "OPTIONS" else 405)
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}


@pytest.mark.parametrize(
    "path", ["/consumers/{id}", "/consumers?first=1", "/consumers/cons_unknown", "/consumers/search?q=x", "/nothing"]
)
def test_head_answers_like_get_without_the_body(account: Account, path: str) -> None:
    # The list must have the consumer at both requests.
    created = account.live.post("/consumers", json={"fullName": "Head"}, headers={"Prefer": "wait=10"})
    consumer = created.raise_for_status().json()
    path = path.format(id=consumer["id"])
    got, headed = account.live.get(path), account.live.head(path)
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    varying = {"date", "x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset", "index-lag-ms"}
    assert headed.headers.keys() == got.headers.keys()
    for name in got.headers.keys() - varying:
        assert headed.headers[name] == got.headers[name], name
