"""Clients of OpenSearch, for a single node or several (`nodes.py`)."""

import ssl
from collections.abc import Callable
from typing import Any

from opensearchpy import AsyncOpenSearch, AWSV4SignerAsyncAuth, JSONSerializer, OpenSearch, Urllib3AWSV4SignerAuth
from opensearchpy.exceptions import OpenSearchException

from infra.index.bytes_connections import BytesConnection
from infra.index.connections import HttpConnection
from infra.index.transports import AsyncNodes, SyncNodes
from infra.settings import Settings, SettingsError

OpenSearchError = OpenSearchException
"""Any failed request to OpenSearch, for code that catches failures but does not use the client library."""

TIMEOUT_SECONDS = 10
ATTEMPT_SECONDS = 3.0
"""Time for a node to answer, if there is another node to try. Most requests take less than a second."""
WRITER_THREADS = 4
"""Connections kept to a node: the threads of a rebuild, and those of standby generations, send at the same time."""
READ_TIMEOUT_SECONDS = 5
READ_ATTEMPT_SECONDS = 1.5


class TextSerializer(JSONSerializer):
    """Leaves responses as JSON, to be decoded once, by the caller's type."""

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


def _signed(settings: Settings, sign: Callable[[Any, str], Any]) -> dict[str, Any]:
    """Return the options of a client that signs its requests for AWS (SigV4); none without OPENSEARCH_AWS_REGION.

    Args:
        settings: with the region.
        sign: makes the signer from the credentials and the region.

    Raises:
        SettingsError: there are no credentials, or the library for signatures is not installed.
    """
    if settings.opensearch_aws_region is None:
        return {}
    try:
        from botocore.session import get_session  # type: ignore[import-untyped]  # noqa: PLC0415 (an extra)
    except ImportError:
        raise SettingsError("OPENSEARCH_AWS_REGION needs botocore: install `consumers[aws]`") from None
    if (credentials := get_session().get_credentials()) is None:
        raise SettingsError(
            "OPENSEARCH_AWS_REGION is set, but there are no credentials of AWS: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the machine a role"
        )
    return {"http_auth": sign(credentials, settings.opensearch_aws_region)}


def open_client(settings: Settings, seconds: float = TIMEOUT_SECONDS) -> OpenSearch:
    """Open the client of the commands. Responses are decoded, and wait for up to `seconds`."""
    return _open(settings, seconds)


def open_writer(settings: Settings) -> OpenSearch:
    """Open the client of the indexer. Responses are the bytes of JSON."""
    return _open(settings, serializer=TextSerializer(), connection_class=BytesConnection, pool_maxsize=WRITER_THREADS)


def _open(settings: Settings, seconds: float = TIMEOUT_SECONDS, **options: Any) -> OpenSearch:
    return OpenSearch(
        settings.opensearch_url.split(","),
        transport_class=SyncNodes,  # type: ignore[arg-type]  # has the methods that the client calls
        ssl_context=tls(settings),
        timeout=seconds,
        attempt_seconds=ATTEMPT_SECONDS,
        **_signed(settings, Urllib3AWSV4SignerAuth),
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
        connection_class=HttpConnection,
        **_signed(settings, AWSV4SignerAsyncAuth),
    )
