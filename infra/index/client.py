"""Clients of OpenSearch, for a single node or several.

A failed request is not repeated: the drain backs off, and a reader gets a 503. Only an unreachable node is skipped: the
request goes to another node, and the skipped node gets no requests for a while.
"""

import ssl
from typing import Any

from opensearchpy import AsyncOpenSearch, JSONSerializer, OpenSearch
from opensearchpy.exceptions import OpenSearchException

from infra.settings import Settings

OpenSearchError = OpenSearchException
"""Any failed request to OpenSearch, for code that catches failures but does not use the client library."""

TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 5


class TextSerializer(JSONSerializer):
    """Leaves responses as JSON text, to be decoded once, by the caller's type."""

    def loads(self, s: str) -> Any:
        return s


def _nodes(settings: Settings) -> dict[str, Any]:
    hosts = settings.opensearch_url.split(",")
    return {
        "hosts": hosts,
        "ssl_context": _tls(settings),
        "max_retries": len(hosts) - 1,
        "retry_on_status": (),
        "retry_on_timeout": False,
    }


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Return how certificates are verified; None without `https://`, because loading them takes 20 ms."""
    is_encrypted = "https://" in settings.opensearch_url
    return ssl.create_default_context(cafile=settings.opensearch_ca) if is_encrypted else None


def open_client(settings: Settings) -> OpenSearch:
    """Open the client of the commands. Responses are decoded."""
    return OpenSearch(**_nodes(settings), timeout=TIMEOUT_SECONDS)


def open_writer(settings: Settings) -> OpenSearch:
    """Open the client of the indexer. Responses are JSON text."""
    return OpenSearch(**_nodes(settings), timeout=TIMEOUT_SECONDS, serializer=TextSerializer())


def open_reader(settings: Settings) -> AsyncOpenSearch:
    """Open the client of the API. Responses are JSON text."""
    return AsyncOpenSearch(
        **_nodes(settings),
        timeout=READ_TIMEOUT_SECONDS,
        serializer=TextSerializer(),
        pool_maxsize=64,
    )
