"""Seals: tokens, entity tags and cursors are encrypted, so that they tell a client nothing about other merchants.

A consistency token holds a transaction number, an entity tag a version, and a cursor the sort values of a row. The
numbers come from counters of the whole service: in clear, their differences would tell a merchant how much all others
write (docs/decisions/0015-sealed-tokens-etags-and-cursors.md).

A sealed text is URL-safe base64 of the key's id (1 byte), the authentication tag (16 bytes) and the encrypted content.
The cipher is AES-SIV, which is deterministic: the same state has the same entity tag, in every process. The
environment, the purpose and a name are authenticated together with the content. So a text is valid only in the
environment, for the purpose and for the name it was sealed for.
"""

import binascii
import math
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from infra.database.sealing_keys import SealingKey

Purpose: TypeAlias = Literal["token", "etag", "cursor", "changes", "pit"]


class SealError(ValueError):
    """A text was not sealed by this service for this environment, purpose and name, or was modified."""


class Keyring:
    """The sealing keys. The newest key seals; every key opens."""

    def __init__(self, keys: Sequence[SealingKey]) -> None:
        self.ciphers = {key.id: AESSIV(key.secret) for key in keys}
        self.newest_first = sorted(self.ciphers, reverse=True)
        deadlines = (key.unsealed_until.timestamp() for key in keys if key.unsealed_until)
        self.unsealed_until = max(deadlines, default=-math.inf)
        """Unix time."""
        deadlines = (key.short_tokens_until.timestamp() for key in keys if key.short_tokens_until)
        self.short_tokens_until = max(deadlines, default=-math.inf)
        """Unix time."""

        deadlines = (key.plain_cursors_until.timestamp() for key in keys if key.plain_cursors_until)
        self.plain_cursors_until = max(deadlines, default=-math.inf)
        """Unix time."""

    def of(self, environment_id: int) -> "Seal":
        return Seal(self, environment_id)


class Seal:
    """Seals and opens the texts of an environment."""

    def __init__(self, keyring: Keyring, environment_id: int) -> None:
        self._keyring, self._environment_id = keyring, environment_id

    def seal(self, purpose: Purpose, content: bytes, name: bytes = b"") -> str:
        """Return the sealed text of a content. `name` is the object within the purpose: a consumer, or a list."""
        return self._seal(self._keyring.newest_first[0], purpose, content, name)

    def seal_with_each_key(self, purpose: Purpose, content: bytes, name: bytes = b"") -> list[str]:
        """Return the sealed text of a content under each key: first the text that `seal` returns."""
        return [self._seal(key_id, purpose, content, name) for key_id in self._keyring.newest_first]

    def open(self, purpose: Purpose, text: str, name: bytes = b"") -> bytes:
        """Return the content of a sealed text.

        Raises:
            SealError: the text was not sealed for this environment, purpose and name, or was modified.
        """
        try:
            raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            content = self._keyring.ciphers[raw[0]].decrypt(raw[1:], [self._bound(purpose, name)])
        except (UnicodeEncodeError, binascii.Error, IndexError, KeyError, InvalidTag):
            raise SealError("Invalid seal") from None
        # Several base64 texts can decode to the same bytes; only the issued text is accepted.
        if _encode(raw) != text:
            raise SealError("Invalid seal")
        return content

    def accepts_unsealed(self) -> bool:
        """Return whether the formats before sealing are accepted too: for a day after an upgrade."""
        return time.time() < self._keyring.unsealed_until

    def makes_short_tokens(self) -> bool:
        """Return whether tokens must be readable by the release before: for a day after an upgrade."""
        return time.time() < self._keyring.short_tokens_until

    def makes_plain_cursors(self) -> bool:
        """Return whether cursors must be readable by the release before: for a day after an upgrade."""
        return time.time() < self._keyring.plain_cursors_until

    def _seal(self, key_id: int, purpose: Purpose, content: bytes, name: bytes) -> str:
        sealed = self._keyring.ciphers[key_id].encrypt(content, [self._bound(purpose, name)])
        return _encode(bytes([key_id]) + sealed)

    def _bound(self, purpose: Purpose, name: bytes) -> bytes:
        # Unambiguous: neither a purpose nor a number contains a colon.
        return b"%b:%d:%b" % (purpose.encode(), self._environment_id, name)


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
