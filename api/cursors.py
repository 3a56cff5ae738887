"""Cursors of lists: opaque, self-contained positions.

A cursor holds the sort values of a row, the time of issue, and the parameters of the list: filters, sort, direction.
It is sealed for the environment and the kind of list. So a cursor is valid for a single list, on every generation of
the index, and the next page can be requested with the cursor alone.
"""

import binascii
import hashlib
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from api.errors import INVALID_CURSOR
from infra.seals import Seal, SealError

IDLE_SECONDS = 24 * 3600
EXPIRED = "Cursor has expired after 24 hours: begin again without a cursor"
OTHER_LIST = "Invalid cursor: damaged, or issued for another filter, sort or direction"
MEMBERS_OF = "members_of"
"""The parameter for the audience in the path of a list of members."""
ADDED_PARAMETERS: dict[str, dict[str, Any]] = {
    "list": {"updated_after": None, "updated_before": None},
    "orders": {"external_id": None, "updated_after": None, "updated_before": None, "sort_by": "placedAt"},
}
"""By kind of list: parameters that earlier releases do not have, with their defaults. A cursor does not name a default,
so the cursors of both releases stay valid during an upgrade."""
CHECKSUM_BYTES = 12
"""Of the format before sealing."""


class CursorError(ValueError):
    """A cursor is damaged, expired, or of another list."""


class _Payload(msgspec.Struct, array_like=True):
    issued_at: int
    values: list[str | int | float | None]
    parameters: dict[str, Any] = {}
    spacing: list[str | int | float | None] = []
    """Ignored by the release before."""


class Position(NamedTuple):
    """The row of a cursor."""

    values: list[Any]
    """The row's sort values, as returned by the index."""
    spacing: Sequence[str | float | None] = ()
    """How the rows lie around the row (`api/consumers/windows.py`); empty if unknown."""


def parameters_of(seal: Seal, kind: str, cursor: str) -> dict[str, Any] | None:
    """Return the parameters in a cursor; None if the text is no cursor of this kind, or of the release before."""
    payload = _opened(seal, kind, cursor)
    return _plain(ADDED_PARAMETERS.get(kind, {})) | payload.parameters if payload else None


def _opened(seal: Seal, kind: str, cursor: str) -> _Payload | None:
    try:
        return msgspec.msgpack.decode(seal.open("cursor", cursor, kind.encode()), type=_Payload)
    except (SealError, msgspec.MsgspecError):
        return None


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as a cursor holds them, without those that are not given."""
    return {name: msgspec.to_builtins(value) for name, value in parameters.items() if value is not None}


class Cursors(NamedTuple):
    """The cursors of a list."""

    seal: Seal
    kind: str
    """The kind of list, such as `orders`."""
    parameters: Mapping[str, Any]
    """Everything else that affects the rows and their order."""
    environment_id: int

    @property
    def _named(self) -> dict[str, Any]:
        """The parameters that a cursor names."""
        defaults = ADDED_PARAMETERS.get(self.kind, {})
        return {
            name: value for name, value in self.parameters.items() if name not in defaults or value != defaults[name]
        }

    @property
    def list_id(self) -> bytes:
        """Identifies the list. Cursors of the release before are sealed for this id."""
        further = [self.parameters[MEMBERS_OF]] if MEMBERS_OF in self.parameters else []
        parameters = {name: value for name, value in self._named.items() if name != MEMBERS_OF}
        return msgspec.json.encode([self.kind, self.environment_id, parameters, *further])

    def encode(
        self, values: Sequence[Any], now: float | None = None, spacing: Sequence[str | float | None] = ()
    ) -> str:
        """Return the cursor of a row.

        Args:
            values: the row's sort values, as returned by the index.
            now: Unix time in seconds.
            spacing: as in `Position`.
        """
        issued_at = int(time.time() if now is None else now)
        if self.seal.makes_plain_cursors():
            return self.seal.seal("cursor", msgspec.msgpack.encode([issued_at, values, {}]), self.list_id)
        payload = [issued_at, values, _plain(self._named), *([spacing] if spacing else [])]
        return self.seal.seal("cursor", msgspec.msgpack.encode(payload), self.kind.encode())

    def decode(self, cursor: str, now: float | None = None) -> Position:
        """Return the cursor's row.

        Raises:
            CursorError: the cursor is damaged, older than 24 hours, or was issued for another list.
        """
        decoded = _opened(self.seal, self.kind, cursor)
        if decoded and decoded.parameters != _plain(self._named):
            raise CursorError(OTHER_LIST)
        if not decoded:
            try:
                decoded = msgspec.msgpack.decode(self._open(cursor), type=_Payload)
            except msgspec.MsgspecError:
                raise CursorError(INVALID_CURSOR) from None
        if decoded.issued_at + IDLE_SECONDS < (time.time() if now is None else now):
            raise CursorError(EXPIRED)
        return Position(decoded.values, decoded.spacing)

    def _open(self, cursor: str) -> bytes:
        try:
            return self.seal.open("cursor", cursor, self.list_id)
        except SealError:
            if self.seal.accepts_unsealed() and (payload := self._unsealed_payload(cursor)):
                return payload
            raise CursorError(OTHER_LIST) from None

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
