"""The secret of a key: shown once, and stored only as a hash."""

import hashlib
import secrets
from datetime import UTC, datetime

from infra.accounts.organizations import OrganizationError

HINT_CHARACTERS = 4
"""Characters of a secret shown in lists, after the prefix."""


def new_secret(prefix: str) -> str:
    """Make a secret with 256 random bits after a prefix such as `sk_live_`."""
    return prefix + secrets.token_urlsafe(32)


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
