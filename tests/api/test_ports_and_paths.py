"""The paths of each port, and paths in other spellings."""

import httpx
import pytest

from tests.api.raw_http import exchange
from tests.service import Service

LIST = "/api/v1/consumers"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//metrics",
            "/%6detrics",
            "/%6Detrics",
            "/metrics",
            "/metrics/",
            "/./metrics",
            "/x/../metrics",
            "/metrics/.",
        ),
        *("/health//live", "//health/live", "/health/liv%65", "/health/./live", "/health/live/.."),
        *("/api/v1//consumers", "/api/v1/./consumers", "//api/v1/consumers", f"{LIST}//", f"{LIST}/.", f"{LIST}/.."),
        *("/api/v1/%63onsumers", "/api%2Fv1/consumers", "/api%2fv1/consumers", f"{LIST}%2F", f"{LIST}/%2e"),
        *(
            "/api/%76%31/consumers",
            f"{LIST}/%73earch?q=xx",
            f"{LIST}/x/%2e%2e/search?q=xx",
            "/docs//",
            "//openapi.json",
        ),
    ],
)
def test_path_in_another_spelling_is_404(service: Service, path: str) -> None:
    answer = exchange(service.url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer
    assert answer.status == 404
    assert answer.json == {
        "error": "Not found",
        "code": "not_found",
        "requestId": answer.headers["x-request-id"],
    }
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize("path", [LIST, f"{LIST}/", "/health/live", "/health/live/", "http://x/health/live"])
def test_path_in_its_usual_spelling_is_found(service: Service, path: str) -> None:
    answer = exchange(service.url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer
    assert answer.status in {200, 401}


def test_port_for_operators_serves_metrics_and_health_alone(service: Service) -> None:
    for path in ("/metrics", "/health/live", "/health/ready"):
        assert httpx.get(f"{service.operations_url}{path}").status_code == 200
    for path in (LIST, "/openapi.json", "/docs", "/api/v1/ops/index", "/"):
        response = httpx.get(f"{service.operations_url}{path}")
        assert (response.status_code, response.json()["error"]) == (404, "Not found")
