"""Clients of OpenSearch, for a single node or several (`nodes.py`)."""

import ssl
from typing import Any

from opensearchpy import AsyncOpenSearch, JSONSerializer, OpenSearch
from opensearchpy.exceptions import OpenSearchException

from infra.index.transports import AsyncNodes, SyncNodes
from infra.settings import Settings

OpenSearchError = OpenSearchException
"""Any failed request to OpenSearch, for code that catches failures but does not use the client library."""

TIMEOUT_SECONDS = 10
ATTEMPT_SECONDS = 3.0
"""Time for a node to answer, if there is another node to try. Most requests take less than a second."""
READ_TIMEOUT_SECONDS = 5
READ_ATTEMPT_SECONDS = 1.5


class TextSerializer(JSONSerializer):
    """Leaves responses as JSON text, to be decoded once, by the caller's type."""

    def loads(self, s: str) -> Any:
        return s


def tls(settings: Settings) -> ssl.SSLContext | None:
    """Return how certificates are verified, and the certificate of this client.

    None without `https://`, because loading the certificates takes 20 ms.
    """
    if "https://" not in settings.opensearch_url:
        return None
    context = ssl.create_default_context(cafile=settings.opensearch_ca)
    if settings.opensearch_certificate:
        context.load_cert_chain(settings.opensearch_certificate)
    return context


def open_client(settings: Settings, seconds: float = TIMEOUT_SECONDS) -> OpenSearch:
    """Open the client of the commands. Responses are decoded, and wait for up to `seconds`."""
    return _open(settings, seconds)


def open_writer(settings: Settings) -> OpenSearch:
    """Open the client of the indexer. Responses are JSON text."""
    return _open(settings, serializer=TextSerializer())


def _open(settings: Settings, seconds: float = TIMEOUT_SECONDS, **options: Any) -> OpenSearch:
    return OpenSearch(
        settings.opensearch_url.split(","),
        transport_class=SyncNodes,  # type: ignore[arg-type]  # has the methods that the client calls
        ssl_context=tls(settings),
        timeout=seconds,
        attempt_seconds=ATTEMPT_SECONDS,
        **options,
    )


def open_reader(settings: Settings) -> AsyncOpenSearch:
    """Open the client of the API. Responses are JSON text."""
    return AsyncOpenSearch(
        settings.opensearch_url.split(","),
        transport_class=AsyncNodes,  # type: ignore[arg-type]  # has the methods that the client calls
        ssl_context=tls(settings),
        timeout=READ_TIMEOUT_SECONDS,
        attempt_seconds=READ_ATTEMPT_SECONDS,
        serializer=TextSerializer(),
        pool_maxsize=64,
    )
