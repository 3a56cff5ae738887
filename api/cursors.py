"""Cursors of lists: opaque, self-contained positions.

A cursor holds the sort values of a row and the time of issue, sealed for the environment and the list's id: filters,
sort and direction. So a cursor is valid for a single list, and on every generation of the index.
"""

import binascii
import hashlib
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from api.seals import Seal, SealError

IDLE_SECONDS = 24 * 3600
CHECKSUM_BYTES = 12
"""Of the format before sealing."""


class CursorError(ValueError):
    """A cursor is damaged, expired, or of another list."""


class _Payload(msgspec.Struct, array_like=True):
    issued_at: int
    values: list[str | int | float | None]


class Cursors(NamedTuple):
    """The cursors of a list."""

    seal: Seal
    list_id: bytes
    """Identifies the list by everything that affects the rows and their order."""

    def encode(self, values: Sequence[Any], now: float | None = None) -> str:
        """Return the cursor of a row.

        Args:
            values: the row's sort values, as returned by the index.
            now: Unix time in seconds.
        """
        payload = msgspec.msgpack.encode(_Payload(int(time.time() if now is None else now), list(values)))
        return self.seal.seal("cursor", payload, self.list_id)

    def decode(self, cursor: str, now: float | None = None) -> list[Any]:
        """Return the sort values of the cursor's row.

        Raises:
            CursorError: the cursor is damaged, older than 24 hours, or was issued for another list.
        """
        payload = self._open(cursor)
        try:
            decoded = msgspec.msgpack.decode(payload, type=_Payload)
        except msgspec.MsgspecError:
            raise CursorError("Invalid cursor") from None
        if decoded.issued_at + IDLE_SECONDS < (time.time() if now is None else now):
            raise CursorError("Cursor has expired")
        return decoded.values

    def _open(self, cursor: str) -> bytes:
        try:
            return self.seal.open("cursor", cursor, self.list_id)
        except SealError:
            if self.seal.accepts_unsealed() and (payload := self._unsealed_payload(cursor)):
                return payload
            raise CursorError("Invalid cursor: damaged, or issued for another filter, sort or direction") from None

    def _unsealed_payload(self, cursor: str) -> bytes | None:
        """Return the payload of a cursor in the format before sealing; None if the text is none of this list."""
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except (UnicodeEncodeError, binascii.Error):
            return None
        payload = raw[CHECKSUM_BYTES:]
        content = self.list_id + b"\0" + payload
        checksum = hashlib.blake2b(content, digest_size=CHECKSUM_BYTES, person=b"consumers cursor").digest()
        is_issued = urlsafe_b64encode(checksum + payload).rstrip(b"=").decode() == cursor
        return payload if is_issued else None
