"""Answers to requests. The body is JSON as bytes: stored, replayed and passed through unchanged."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import MediaType, Response
from litestar.response import Stream

from api.freshness import TransactionId
from api.request import AnyRequest
from infra.seals import Seal

VERSION_BYTES = 8
PART_BYTES = 256 * 1024


class Answer(msgspec.Struct):
    """A successful outcome. `headers` belong to the outcome and are replayed with the body."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    transaction: TransactionId | None = None
    """Of a write."""
    consumer_ids: Sequence[str] = ()
    """Consumers with data in the body. When one of them is deleted, a stored copy of the answer is deleted as well."""
    stored_body: bytes | None = None
    """Stored for retries in place of `body`, if the write deleted a consumer: without the data of the consumer."""

    def response(self) -> Response[Any]:
        """Build the response. A large body is compressed and sent in parts; other requests get their turn in between.

        Compressing 8 MB at once would take 87 to 166 ms.
        """
        if len(self.body) <= PART_BYTES:
            return Response(self.body, status_code=self.status, headers=self.headers, media_type=MediaType.JSON)
        headers = self.headers | {"Content-Length": str(len(self.body))}
        return Stream(_parts(self.body), status_code=self.status, headers=headers, media_type=MediaType.JSON)


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for offset in range(0, len(body), PART_BYTES):
        yield body[offset : offset + PART_BYTES]
        await asyncio.sleep(0)


def ok(value: Any, consumer_ids: Sequence[str] = ()) -> Answer:
    """Answer 200 with a value as JSON."""
    return Answer(HTTPStatus.OK, msgspec.json.encode(value), consumer_ids=consumer_ids)


def created(value: Any, headers: dict[str, str] | None = None, consumer_ids: Sequence[str] = ()) -> Answer:
    """Answer 201 with a value as JSON."""
    return Answer(HTTPStatus.CREATED, msgspec.json.encode(value), headers or {}, consumer_ids=consumer_ids)


def location(collection: str, resource_id: str) -> dict[str, str]:
    """Return the header that names the path of a new resource. A batch has no path of its own."""
    return {"Location": f"/api/v1/{collection}/{resource_id}"}


def array(items: list[bytes]) -> bytes:
    """Join items, each already JSON, to a JSON array."""
    return b"[" + b",".join(items) + b"]"


def etag(seal: Seal, consumer_id: str, version: int) -> str:
    """Return the entity tag of a consumer's version. The tag is the same for every response with this version."""
    return f'"{seal.seal("etag", version.to_bytes(VERSION_BYTES), consumer_id.encode())}"'


def etags(seal: Seal, consumer_id: str, version: int) -> list[str]:
    """Return all entity tags that clients may hold for a consumer's version, the current tag first."""
    sealed = seal.seal_with_each_key("etag", version.to_bytes(VERSION_BYTES), consumer_id.encode())
    return [f'"{text}"' for text in [*sealed, *([str(version)] if seal.accepts_unsealed() else [])]]


def weak_etag(body: bytes) -> str:
    """Return the entity tag of a body made of several rows."""
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def entity_tags(request: AnyRequest, header: str) -> set[str] | None:
    """Return the entity tags in a conditional header, or `*`; None without the header.

    Several headers of the same name count as a single list.
    """
    values = request.headers.getall(header, [])
    return {tag.strip() for tag in ",".join(values).split(",")} if values else None


def is_match(tags: set[str], current: list[str]) -> bool:
    """Return whether the tags of an `If-Match` name a current tag, so that the write may go on (strong comparison)."""
    return tags == {"*"} or not tags.isdisjoint(current)


def is_none_match(tags: set[str] | None, current: list[str]) -> bool:
    """Return whether the tags of an `If-None-Match` include a current tag (weak comparison): the answer is then 304."""
    if tags is None:
        return False
    known = {tag.removeprefix("W/") for tag in tags}
    return tags == {"*"} or not known.isdisjoint(tag.removeprefix("W/") for tag in current)
