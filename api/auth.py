"""Who calls: a bearer key, its environment, and what it may do (contract.md §1)."""

import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import sqlalchemy as sa
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from sqlalchemy.ext.asyncio import AsyncEngine

from api.errors import Problem
from infra import keys
from infra.tables import api_keys, environments, organizations

CACHE_SECONDS = 3.0
"""A key that was revoked stops working this soon."""
CACHE_KEYS = 10_000

FIND_KEY = (
    sa.select(
        environments.c.id.label("environment_id"),
        organizations.c.id.label("organization_id"),
        organizations.c.currency,
        organizations.c.region,
        api_keys.c.id.label("key_id"),
        api_keys.c.scopes,
        api_keys.c.expires_at,
        api_keys.c.revoked_at,
    )
    .join(environments, environments.c.id == api_keys.c.environment_id)
    .join(organizations, organizations.c.id == environments.c.organization_id)
    .where(api_keys.c.secret_hash == sa.bindparam("secret_hash"))
)


class Caller(msgspec.Struct, frozen=True):
    """The environment a request works in: all that it may see."""

    environment_id: int
    organization_id: str
    currency: str
    region: str | None
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > datetime.now(UTC))


class Keys:
    """Looks keys up by the hash of their secret, and remembers what it found for a few seconds."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[bytes, tuple[float, Caller | None]] = {}

    async def caller(self, secret: str) -> Caller | None:
        """The key's caller, or None if there is no such key, or no longer."""
        secret_hash = keys.secret_hash(secret)
        until, caller = self._known.get(secret_hash, (0.0, None))
        if until < time.monotonic():
            caller = await self._find(secret_hash)
            if len(self._known) >= CACHE_KEYS:
                self._known.clear()
            self._known[secret_hash] = (time.monotonic() + CACHE_SECONDS, caller)
        return caller if caller and caller.is_valid() else None

    async def _find(self, secret_hash: bytes) -> Caller | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND_KEY, {"secret_hash": secret_hash})).one_or_none()
        return row and Caller(**dict(row._mapping, scopes=frozenset(row.scopes)))  # noqa: SLF001 (its public name)


async def authenticate(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard of every route of the API; the route names the scope it needs as `opt["scope"]`."""
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() == "bearer" and secret.startswith("pk_"):
        raise Problem(HTTPStatus.UNAUTHORIZED, "Secret key required", headers=CHALLENGE)
    caller = None
    if scheme.lower() == "bearer" and secret.startswith(("sk_live_", "sk_test_")):
        known: Keys = connection.app.state.api_keys
        caller = await known.caller(secret)
    if caller is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "Authentication required", headers=CHALLENGE)
    connection.scope["auth"] = caller
    if (scope := handler.opt["scope"]) not in caller.scopes:
        raise Problem(HTTPStatus.FORBIDDEN, "Forbidden", message=f"This key lacks the scope {scope}")


CHALLENGE = {"WWW-Authenticate": "Bearer"}
