"""Cursors of lists: opaque, self-contained positions.

A cursor holds the sort values of a row and the time of issue. The checksum also covers the list's id: environment,
filters, sort and direction. So a cursor is valid for a single list, and on every generation of the index.
"""

import binascii
import hashlib
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

IDLE_SECONDS = 24 * 3600
CHECKSUM_BYTES = 12


class CursorError(ValueError):
    """A cursor is damaged, expired, or of another list."""


class _Payload(msgspec.Struct, array_like=True):
    issued_at: int
    values: list[str | int | float | None]


def encode(list_id: bytes, values: Sequence[Any], now: float | None = None) -> str:
    """Return the cursor of a row.

    Args:
        list_id: identifies the list by everything that affects the rows and their order.
        values: the row's sort values, as returned by the index.
        now: Unix time in seconds.
    """
    payload = msgspec.msgpack.encode(_Payload(int(time.time() if now is None else now), list(values)))
    return urlsafe_b64encode(_checksum(list_id, payload) + payload).rstrip(b"=").decode()


def decode(list_id: bytes, cursor: str, now: float | None = None) -> list[Any]:
    """Return the sort values of the cursor's row.

    Raises:
        CursorError: the cursor is damaged, older than 24 hours, or was issued for another list.
    """
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (UnicodeEncodeError, binascii.Error):
        raise CursorError("Invalid cursor") from None
    checksum, payload = raw[:CHECKSUM_BYTES], raw[CHECKSUM_BYTES:]
    # Several base64 texts can decode to the same bytes; only the issued text is accepted.
    if checksum != _checksum(list_id, payload) or urlsafe_b64encode(raw).rstrip(b"=").decode() != cursor:
        raise CursorError("Invalid cursor: damaged, or issued for another filter, sort or direction")
    try:
        decoded = msgspec.msgpack.decode(payload, type=_Payload)
    except msgspec.MsgspecError:
        raise CursorError("Invalid cursor") from None
    if decoded.issued_at + IDLE_SECONDS < (time.time() if now is None else now):
        raise CursorError("Cursor has expired")
    return decoded.values


def _checksum(list_id: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(list_id + b"\0" + payload, digest_size=CHECKSUM_BYTES, person=b"consumers cursor").digest()
