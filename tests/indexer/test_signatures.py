"""Requests to a managed domain of AWS are signed: a proxy before OpenSearch checks each signature as AWS does."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import msgspec
import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from opensearchpy.exceptions import AuthorizationException

from infra.index.client import OpenSearchError, open_client, open_reader
from infra.index.naming import read_alias
from infra.settings import Settings, SettingsError
from tests.indexer.conftest import Pipeline

REGION, KEY, SECRET = "eu-central-1", "AKIDEXAMPLE", "wJalrXUtnFEMI"
EMPTY_HOME = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}


class Domain(ThreadingHTTPServer):
    """Forwards requests with a correct signature to OpenSearch; answers 403 to all others."""

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.upstream = httpx.Client(base_url=address)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.accepted = 0


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Domain

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._is_signed(body):
            self._answer(403, b'{"message": "The request signature does not match"}')
            return
        self.server.accepted += 1
        content_type = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        answer = self.server.upstream.request(self.command, self.path, content=body, headers=content_type)
        self._answer(answer.status_code, answer.content)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST  # noqa: N815 (names of the library)

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    def _is_signed(self, body: bytes) -> bool:
        """Compute the signature from what arrived, and compare."""
        scheme, _, fields = self.headers.get("Authorization", "").partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            return False
        parts = dict(field.strip().split("=", 1) for field in fields.split(","))
        names = parts["SignedHeaders"].split(";")
        if self.headers["X-Amz-Content-SHA256"] != hashlib.sha256(body).hexdigest() or "host" not in names:
            return False
        signer = SigV4Auth(Credentials(KEY, SECRET), "es", REGION)
        headers = {name: self.headers[name] for name in names}
        url = f"http://{self.headers['Host']}{self.path}"
        request = AWSRequest(self.command, url, headers=headers, data=body)
        request.context["timestamp"] = self.headers["X-Amz-Date"]
        text = signer.string_to_sign(request, signer.canonical_request(request))
        scope = f"{KEY}/{self.headers['X-Amz-Date'][:8]}/{REGION}/es/aws4_request"
        return parts["Credential"] == scope and parts["Signature"] == signer.signature(text, request)


@pytest.fixture
def domain(pipeline: Pipeline) -> Iterator[Domain]:
    with Domain(pipeline.database.settings.opensearch_url) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.upstream.close()


@pytest.fixture
def settings(pipeline: Pipeline, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in (EMPTY_HOME | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(name, value)
    changes = {"opensearch_url": domain.address, "opensearch_aws_region": REGION}
    return msgspec.structs.replace(pipeline.database.settings, **changes)


def test_requests_of_both_clients_are_signed(settings: Settings, domain: Domain) -> None:
    alias = read_alias(settings.index_prefix)
    client = open_client(settings)
    assert client.cluster.health(params={"filter_path": "status,nodes.*.name"})["status"]
    assert client.search(index=alias, body={"query": {"term": {"fullName": "Zoë"}}})["hits"]["hits"] == []
    # The path has characters that both sides must encode alike.
    assert client.get(index=alias, id="a b/ü", params={"ignore": 404})["found"] is False
    client.close()

    async def search() -> str:
        reader = open_reader(settings)
        try:
            body = {"query": {"term": {"name": "Zoë"}}}
            return str(await reader.search(index=alias, body=body, params={"preference": "_local", "size": "1"}))
        finally:
            await reader.close()

    assert '"hits"' in asyncio.run(search())
    assert domain.accepted >= 4


def test_wrong_credentials_are_refused(settings: Settings, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    client = open_client(settings)
    with pytest.raises(AuthorizationException):
        client.cluster.health()
    client.close()
    unsigned = open_client(msgspec.structs.replace(settings, opensearch_aws_region=None))
    with pytest.raises(OpenSearchError):
        unsigned.cluster.health()
    unsigned.close()
    assert domain.accepted == 0


def test_missing_credentials_are_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SettingsError, match="no credentials of AWS: set AWS_ACCESS_KEY_ID"):
        open_client(settings)
