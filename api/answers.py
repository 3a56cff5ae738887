"""What a request is answered: JSON as bytes, so that it can be stored, replayed and passed through unchanged."""

import hashlib
from typing import Any

import msgspec
from litestar import MediaType, Request, Response


class Answer(msgspec.Struct):
    """A success. `headers` are those that belong to the outcome, and are replayed with it."""

    status: int
    body: bytes
    headers: dict[str, str] = {}

    def response(self, **more: str) -> Response[Any]:
        headers = self.headers | {name.replace("_", "-"): value for name, value in more.items()}
        return Response(self.body, status_code=self.status, headers=headers, media_type=MediaType.JSON)


def array(items: list[bytes]) -> bytes:
    """A JSON array of what is JSON already."""
    return b"[" + b",".join(items) + b"]"


def etag(version: int) -> str:
    """The entity tag of a consumer's version."""
    return f'"{version}"'


def weak_etag(body: bytes) -> str:
    """The entity tag of an answer that is made of more than one row."""
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def tags(request: Request[Any, Any, Any], header: str) -> set[str] | None:
    """The entity tags a conditional header names, or its `*`; None without it. Several such headers are as one."""
    given = request.headers.getall(header, [])
    return {tag.strip() for tag in ",".join(given).split(",")} if given else None


def is_match(known: set[str] | None, tag: str) -> bool:
    """Whether an `If-Match` allows a write of what has this tag: a weak one says too little."""
    return known is None or known == {"*"} or tag in known


def is_none_match(known: set[str] | None, tag: str) -> bool:
    """Whether an `If-None-Match` names the tag, so that nothing need be sent."""
    if known is None:
        return False
    return known == {"*"} or tag.removeprefix("W/") in {one.removeprefix("W/") for one in known}
