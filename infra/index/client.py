"""Clients of OpenSearch, of one node or several. None waits or repeats: the drain backs off, a reader is told.

But a node that cannot be reached is passed over for another, and left alone for a while.
"""

from typing import Any

from opensearchpy import AsyncOpenSearch, JSONSerializer, OpenSearch
from opensearchpy.exceptions import OpenSearchException

from infra.settings import Settings

OpenSearchError = OpenSearchException
"""Any failed request to OpenSearch, for code that catches failures but does not use the client library."""

TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 5


class TextSerializer(JSONSerializer):
    """Leaves answers as text, so that a page's rows are never parsed and rendered again."""

    def loads(self, s: str) -> Any:
        return s


def _nodes(settings: Settings) -> dict[str, Any]:
    hosts = settings.opensearch_url.split(",")
    return {"hosts": hosts, "max_retries": len(hosts) - 1, "retry_on_status": (), "retry_on_timeout": False}


def open_client(settings: Settings) -> OpenSearch:
    """For commands."""
    return OpenSearch(**_nodes(settings), timeout=TIMEOUT_SECONDS)


def open_writer(settings: Settings) -> OpenSearch:
    """For the drain: answers are JSON text."""
    return OpenSearch(**_nodes(settings), timeout=TIMEOUT_SECONDS, serializer=TextSerializer())


def open_reader(settings: Settings) -> AsyncOpenSearch:
    """For the API: answers are JSON text."""
    return AsyncOpenSearch(
        **_nodes(settings),
        timeout=READ_TIMEOUT_SECONDS,
        serializer=TextSerializer(),
        pool_maxsize=64,
    )
