"""Write documents to OpenSearch in `_bulk` requests, and interpret the answers."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from opensearchpy import OpenSearch

from infra.index import naming
from infra.index.conversion import Form, convert
from infra.index.hits import Hit

MAX_REQUEST_BYTES = 2 * 1024 * 1024
"""Approximate size of a request: a request ends with the document that reaches this size."""
FILTER_PATH = "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
OK, DOCUMENT_FAULT, NOT_FOUND, CONFLICT, SERVER_FAULT = 200, 400, 404, 409, 500
CURRENT_VERSION = re.compile(r"current version \[(\d+)\]")


class IndexUnavailable(Exception):  # noqa: N818 (names a condition of the index, as the callers treat it)
    """No document can be written to the index at present."""


class Document(NamedTuple):
    """A document to write."""

    environment_id: int
    consumer_id: str
    version: int
    source: bytes


class Cause(msgspec.Struct):
    reason: str = ""


class ItemError(msgspec.Struct):
    type: str = ""
    reason: str = ""
    caused_by: Cause | None = None


class Item(msgspec.Struct):
    """OpenSearch's answer for a document of a request."""

    status: int
    error: ItemError | None = None

    @classmethod
    def refused(cls, reason: str) -> "Item":
        """Make the answer for a document whose request failed as a whole."""
        return cls(DOCUMENT_FAULT, ItemError("refused", reason))

    @property
    def is_conflict(self) -> bool:
        """Whether the index holds a newer version of the document."""
        return self.status == CONFLICT

    @property
    def is_written(self) -> bool:
        """Whether the request has written this version of the document."""
        return self.status < 300  # noqa: PLR2004 (HTTP's successes)

    @property
    def is_indexed(self) -> bool:
        """Whether the index holds this version of the document, or a newer version."""
        return self.is_written or self.is_conflict

    @property
    def is_server_error(self) -> bool:
        """Whether OpenSearch failed with 500. The document is the cause only if further documents are indexed."""
        return self.status == SERVER_FAULT

    @property
    def is_refused(self) -> bool:
        """Whether the document may be the cause of the failure."""
        return self.status == DOCUMENT_FAULT or self.is_server_error

    @property
    def is_index_unavailable(self) -> bool:
        """Whether the index is the cause of the failure: overload, a block, a missing alias."""
        return not self.is_indexed and not self.is_refused

    @property
    def error_kind(self) -> str:
        """Status and type of the error, without values of the document."""
        return f"{self.status} {self.error.type if self.error else ''}".rstrip()

    @property
    def reason(self) -> str:
        """OpenSearch's message. The message may quote the document."""
        if not self.error:
            return ""
        cause = f" ({self.error.caused_by.reason})" if self.error.caused_by else ""
        return f"{self.error.type}: {self.error.reason}{cause}"

    def indexed_version(self, limit: int) -> int | None:
        """The indexed version in a conflict, 0 without a conflict. None if unknown, or not below `limit`."""
        if not self.is_conflict:
            return 0
        match = CURRENT_VERSION.search(self.reason)
        return int(match[1]) if match and int(match[1]) < limit else None


class Response(msgspec.Struct):
    items: list[dict[str, Item]] = []
    """For each action of the request a dictionary with a single key, the type of the action."""


def write(
    client: OpenSearch,
    alias: str,
    batch: Sequence[Document],
    seconds: float | None = None,
    *,
    is_searchable: bool = False,
) -> list[Item]:
    """Write documents; return an answer for each document, in order.

    OpenSearch keeps the indexed document if its version is newer (`external_gte`).

    Args:
        client: a client with answers as JSON text.
        alias: the write alias of the index.
        batch: the documents.
        seconds: timeout of each request; the client's own timeout if None.
        is_searchable: whether each request refreshes the shards in which it has written a document.

    Raises:
        OpenSearchException: a request failed or timed out. Documents of earlier requests are written.
    """
    params = _timeout(seconds) | ({"refresh": "true"} if is_searchable else {})
    return [item for lines in requests(batch) for item in send(client, alias, lines, params)]


def send(client: OpenSearch, alias: str, lines: Sequence[bytes], params: dict[str, Any]) -> list[Item]:
    """Send a `_bulk` request; return an answer for each action, in order.

    Raises:
        OpenSearchException: the request failed or timed out.
    """
    answer: Any = client.bulk(
        body=b"\n".join(lines) + b"\n",
        index=alias,
        params={"require_alias": "true", "filter_path": FILTER_PATH} | params,
    )
    return [item for action in msgspec.json.decode(answer, type=Response).items for item in action.values()]


def delete_unchanged(client: OpenSearch, alias: str, hits: Sequence[Hit], **params: Any) -> list[Item]:
    """Delete documents found by a search, unless changed since; return an answer for each document, in order.

    Args:
        client: a client with answers as JSON text.
        alias: the write alias of the index.
        hits: with `seq_no` and `primary_term`.
        params: of the `_bulk` request.

    Raises:
        OpenSearchException: the request failed or timed out.
    """
    return send(client, alias, [msgspec.json.encode({"delete": _unchanged(hit)}) for hit in hits], params)


def _unchanged(hit: Hit) -> dict[str, Any]:
    routing = {} if hit.routing is None else {"routing": hit.routing}
    return {"_id": hit.id, "if_seq_no": hit.seq_no, "if_primary_term": hit.primary_term, **routing}


def raise_if_unavailable(items: Sequence[Item]) -> None:
    """Raise if the index, and not a document, is the cause of a failure.

    A server error (500) counts as a failure of the document only if the request had a single document.

    Raises:
        IndexUnavailable: with the kind of the first such answer.
    """
    for item in items:
        if item.is_index_unavailable or (item.is_server_error and len(items) > 1):
            raise IndexUnavailable(item.error_kind)


def convert_all(batch: Sequence[Document], form: Form) -> Sequence[Document]:
    """Convert documents to the document version and the fields of an index."""
    return [document._replace(source=convert(document.source, form)) for document in batch]


def refresh(client: OpenSearch, index: str, seconds: float | None = None) -> None:
    """Make written documents searchable.

    Raises:
        OpenSearchException: the refresh failed or timed out.
        IndexUnavailable: the refresh failed on at least one shard.
    """
    answer: Any = client.indices.refresh(index=index, params=_timeout(seconds))
    shards = msgspec.json.decode(answer)["_shards"]
    if shards["failed"] or not shards["successful"]:
        raise IndexUnavailable(f"a refresh failed on {shards['failed']} of {shards['total']} shards")


def _timeout(seconds: float | None) -> dict[str, Any]:
    return {"request_timeout": seconds} if seconds else {}


def requests(batch: Iterable[Document], size_bytes: int = MAX_REQUEST_BYTES) -> Iterator[list[bytes]]:
    """Divide documents into requests of about a size; yield the lines of each."""
    lines: list[bytes] = []
    size = 0
    for document in batch:
        action = {
            "_id": document.consumer_id,
            "routing": naming.routing(document.environment_id),
            "version": document.version,
            "version_type": "external_gte",
        }
        lines += [msgspec.json.encode({"index": action}), document.source]
        size += len(document.source)
        if size >= size_bytes:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines
