"""Writing documents: what is sent to OpenSearch, and what its answers mean."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from opensearchpy import OpenSearch

from infra.index import mapping

MAX_BYTES = 8 * 1024 * 1024
"""Of the documents in one request, about."""
ANSWERED = "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
FIELDS = frozenset(mapping.MAPPING["properties"])
CONFLICT, DOCUMENT_FAULT, SERVER_FAULT = 409, 400, 500
CURRENT_VERSION = re.compile(r"current version \[(\d+)\]")


class IndexUnavailable(Exception):  # noqa: N818 (names a condition of the index, as the callers treat it)
    """The index cannot be written just now, whatever the documents."""


class Document(NamedTuple):
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
    """What became of one document."""

    status: int
    error: ItemError | None = None

    @classmethod
    def refused(cls, reason: str) -> "Item":
        """A document that no answer could be had for."""
        return cls(DOCUMENT_FAULT, ItemError("refused", reason))

    @property
    def is_conflict(self) -> bool:
        """Whether the index holds something newer."""
        return self.status == CONFLICT

    @property
    def is_written(self) -> bool:
        return self.status < 300 or self.is_conflict  # noqa: PLR2004 (HTTP's successes)

    @property
    def is_server_error(self) -> bool:
        """Whether OpenSearch stumbled over it: over the document, if it takes others."""
        return self.status == SERVER_FAULT

    @property
    def is_refused(self) -> bool:
        return self.status == DOCUMENT_FAULT or self.is_server_error

    @property
    def is_index_unavailable(self) -> bool:
        """Whether the fault is the place's: overload, a block, a missing alias."""
        return not self.is_written and not self.is_refused

    @property
    def error_kind(self) -> str:
        return f"{self.status} {self.error.type if self.error else ''}".rstrip()

    @property
    def reason(self) -> str:
        if not self.error:
            return ""
        cause = f" ({self.error.caused_by.reason})" if self.error.caused_by else ""
        return f"{self.error.type}: {self.error.reason}{cause}"

    def indexed_version(self, highest: int) -> int | None:
        """The version a conflicting document met in the index, 0 without a conflict; None from `highest` on."""
        if not self.is_conflict:
            return 0
        found = CURRENT_VERSION.search(self.reason)
        return int(found[1]) if found and int(found[1]) < highest else None


class _Answer(msgspec.Struct):
    items: list[dict[str, Item]] = []


def write(client: OpenSearch, alias: str, batch: Sequence[Document], seconds: float | None = None) -> list[Item]:
    """Send the documents; an older one never replaces a newer. Answers an item a document, in order.

    A request may take so many seconds, or as long as the client waits.

    Raises:
        OpenSearchException: a whole request failed, or took too long; others may have been written.
    """
    return [item for lines in _requests(batch) for item in _bulk(client, alias, lines, seconds)]


def raise_if_unavailable(items: Sequence[Item]) -> None:
    """Raise if the answers show that the index, and not a document, is at fault.

    A server error (500) is a document's own fault only if the request had no other document.

    Raises:
        IndexUnavailable: the message is the first such answer.
    """
    for item in items:
        if item.is_index_unavailable or (item.is_server_error and len(items) > 1):
            raise IndexUnavailable(item.error_kind)


def fit_to_mapping(batch: Sequence[Document], fields: frozenset[str]) -> Sequence[Document]:
    """The documents with these fields alone: an index refuses those that its mapping does not declare."""
    if fields >= FIELDS:
        return batch
    return [written._replace(source=select_fields(written.source, fields)) for written in batch]


def select_fields(source: bytes, fields: frozenset[str]) -> bytes:
    """A document with these fields alone."""
    if fields >= FIELDS:
        return source
    content = msgspec.json.decode(source, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({name: value for name, value in content.items() if name in fields})


def refresh(client: OpenSearch, index: str, seconds: float | None = None) -> None:
    """Make searchable what was written.

    Raises:
        OpenSearchException: it failed, or took too long.
        IndexUnavailable: it is not known to be on every shard.
    """
    answer: Any = client.indices.refresh(index=index, params=_within(seconds))
    shards = msgspec.json.decode(answer)["_shards"]
    if shards["failed"] or not shards["successful"]:
        raise IndexUnavailable(f"a refresh failed on {shards['failed']} of {shards['total']} shards")


def _within(seconds: float | None) -> dict[str, Any]:
    return {"request_timeout": seconds} if seconds else {}


def _requests(batch: Sequence[Document]) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    size = 0
    for written in batch:
        action = {"_id": written.consumer_id, "version": written.version, "version_type": "external_gte"}
        lines += [msgspec.json.encode({"index": action}), written.source]
        size += len(written.source)
        if size >= MAX_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _bulk(client: OpenSearch, alias: str, lines: list[bytes], seconds: float | None) -> list[Item]:
    answer: Any = client.bulk(
        body=b"\n".join(lines) + b"\n",
        index=alias,
        params={"require_alias": "true", "filter_path": ANSWERED} | _within(seconds),
    )
    return [item["index"] for item in msgspec.json.decode(answer, type=_Answer).items]
