"""Connections of the indexer to a node of OpenSearch: answers stay bytes.

opensearch-py decodes each answer to a text. JSON is decoded from UTF-8, so the text would be encoded again. For
documents with letters beyond ASCII, both conversions take four times as long as decoding the JSON.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from opensearchpy import Urllib3HttpConnection
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import ConnectionTimeout, SSLError
from urllib3 import Retry
from urllib3.exceptions import ReadTimeoutError
from urllib3.exceptions import SSLError as TLSError


class BytesConnection(Urllib3HttpConnection):
    """The connections of a client to a node, with the interface and the errors of opensearch-py."""

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request, and return status, headers and body of the response.

        Raises:
            ConnectionTimeout: no answer within `timeout`, in seconds.
            NoAnswer: there was no connection, or the connection was lost.
            TransportError: the status is an error, and not in `ignore`.
        """
        path = self.url_prefix + url
        target = f"{path}?{urlencode(params)}" if params else path
        address = self.host + target
        own = self.headers | dict(headers or {})
        if callable(self.http_auth):
            own |= self.http_auth(method, address, body)
        started = time.monotonic()
        limit = {"timeout": timeout} if timeout else {}
        try:
            response = self.pool.urlopen(method, target, body, retries=Retry(total=False), headers=own, **limit)
        except Exception as error:
            self.log_request_fail(method, address, target, body, time.monotonic() - started, exception=error)
            if isinstance(error, TLSError):
                raise SSLError("N/A", str(error), error) from error
            if isinstance(error, ReadTimeoutError):
                raise ConnectionTimeout("TIMEOUT", str(error), error) from error
            raise NoAnswer("N/A", str(error), error) from error
        self._raise_warnings(response.headers.get_all("warning", ()))
        if not 200 <= response.status < 300 and response.status not in ignore:  # noqa: PLR2004 (HTTP's successes)
            text = response.data.decode("utf-8", "replace")
            seconds = time.monotonic() - started
            self.log_request_fail(method, address, target, body, seconds, response.status, text)
            self._raise_error(response.status, text, response.headers.get("content-type"))
        return response.status, response.headers, response.data
