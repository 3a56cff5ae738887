"""The secret of a key: shown once, and stored only as a hash.

A secret is a prefix such as `sk_live_`, 43 random characters, and a checksum of 6 characters. The checksum tells a
secret from a random text without a query of the database. Secrets made by earlier releases have no checksum.
"""

import hashlib
import re
import secrets
import zlib
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

from infra.accounts.organizations import OrganizationError

HINT_CHARACTERS = 4
"""Characters of a secret shown in lists, after the prefix."""
AFTER_PREFIX = re.compile(r"(?P<random>[A-Za-z0-9_-]{43})(?P<checksum>[A-Za-z0-9_-]{6})?")


def new_secret(prefix: str) -> str:
    """Make a secret with 256 random bits and a checksum after a prefix such as `sk_live_`."""
    text = prefix + secrets.token_urlsafe(32)
    return text + _checksum(text)


def may_exist(secret: str, prefix: str) -> bool:
    """Return whether a text has the form of a secret with this prefix: with a correct checksum, or with none."""
    match = AFTER_PREFIX.fullmatch(secret.removeprefix(prefix))
    if not secret.startswith(prefix) or not match:
        return False
    return match["checksum"] in (None, _checksum(prefix + match["random"]))


def secret_hash(secret: str) -> bytes:
    """Return the digest for storage. Plain SHA-256 is enough: a secret has 256 random bits and cannot be guessed."""
    return hashlib.sha256(secret.encode()).digest()


def hint(secret: str, prefix: str) -> str:
    """Return the first characters of a secret, to recognize the key in a list."""
    return secret[: len(prefix) + HINT_CHARACTERS]


def checked_expiry(expires_at: datetime | None) -> datetime | None:
    """Check the expiry of a new key; None: the key never expires.

    Raises:
        OrganizationError: the time has passed.
    """
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise OrganizationError("a key cannot expire in the past: give a later time")
    return expires_at


def _checksum(text: str) -> str:
    return urlsafe_b64encode(zlib.crc32(text.encode()).to_bytes(4)).rstrip(b"=").decode()
