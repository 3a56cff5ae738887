"""Clients of OpenSearch. Neither repeats a request by itself: the drain backs off, a reader is told."""

from typing import Any

from opensearchpy import AsyncOpenSearch, JSONSerializer, OpenSearch

from infra.settings import Settings

TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 5


class TextSerializer(JSONSerializer):
    """Leaves answers as text, so that a page's rows are never parsed and rendered again."""

    def loads(self, s: str) -> Any:
        return s


def client(settings: Settings) -> OpenSearch:
    """For commands."""
    return OpenSearch(settings.opensearch_url, timeout=TIMEOUT_SECONDS, max_retries=0)


def writer(settings: Settings) -> OpenSearch:
    """For the drain: answers are JSON text."""
    return OpenSearch(settings.opensearch_url, timeout=TIMEOUT_SECONDS, max_retries=0, serializer=TextSerializer())


def reader(settings: Settings) -> AsyncOpenSearch:
    """For the API: answers are JSON text."""
    return AsyncOpenSearch(
        settings.opensearch_url,
        timeout=READ_TIMEOUT_SECONDS,
        max_retries=0,
        serializer=TextSerializer(),
        pool_maxsize=64,
    )
