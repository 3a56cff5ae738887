"""Cursors: opaque, self-contained places in a list.

A cursor holds the sort values of a row and when it was given out. Its checksum also covers what was asked (the
environment, filters, sort, direction), so it is good for that list alone, on any index generation.
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


class Place(msgspec.Struct, array_like=True):
    given_at: int
    values: list[str | int | float | None]


def encode(question: bytes, values: Sequence[Any], now: float | None = None) -> str:
    """The cursor of a row.

    Args:
        question: all that decides which rows are listed, and in which order.
        values: the row's sort values, as the index gave them.
        now: Unix time in seconds.
    """
    payload = msgspec.msgpack.encode(Place(int(time.time() if now is None else now), list(values)))
    return urlsafe_b64encode(_checksum(question, payload) + payload).rstrip(b"=").decode()


def decode(question: bytes, cursor: str, now: float | None = None) -> list[Any]:
    """The sort values of the row a cursor stands for.

    Raises:
        CursorError: it is damaged, older than 24 hours, or was given for another question.
    """
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (UnicodeEncodeError, binascii.Error):
        raise CursorError("Invalid cursor") from None
    checksum, payload = raw[:CHECKSUM_BYTES], raw[CHECKSUM_BYTES:]
    # The text form of some bytes is not unique; only the one given out is taken.
    if checksum != _checksum(question, payload) or urlsafe_b64encode(raw).rstrip(b"=").decode() != cursor:
        raise CursorError("Invalid cursor: damaged, or given for another filter, sort or direction")
    try:
        place = msgspec.msgpack.decode(payload, type=Place)
    except msgspec.MsgspecError:
        raise CursorError("Invalid cursor") from None
    if place.given_at + IDLE_SECONDS < (time.time() if now is None else now):
        raise CursorError("Cursor has expired")
    return place.values


def _checksum(question: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(question + b"\0" + payload, digest_size=CHECKSUM_BYTES, person=b"consumers cursor").digest()
