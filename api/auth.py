"""Who calls: a bearer key, its environment, and what it may do (contract.md §1)."""

import asyncio
import time
from datetime import UTC, datetime
from http import HTTPStatus

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.errors import Problem
from api.request import AnyRequest
from infra.accounts import keys
from infra.accounts.keys import Scope
from infra.logs import error_kind

log = structlog.get_logger()

CACHE_SECONDS = 3.0
"""A key that was revoked stops working this soon."""
CACHE_KEYS = 10_000
FLUSH_SECONDS = 60.0
"""Last uses of keys are stored this often; until then they are remembered."""
STORE_SECONDS = 2.0
"""The process may be ending: it must not wait for the database any longer."""

FIND_KEY = sa.text("""
    SELECT e.id AS environment_id, e.mode, o.id AS organization_id, o.currency, o.region, o.limit_reads,
        o.limit_writes, o.limit_batch, k.id AS key_id, k.scopes, k.expires_at, k.revoked_at
    FROM api_keys k JOIN environments e ON e.id = k.environment_id JOIN organizations o ON o.id = e.organization_id
    WHERE k.secret_hash = :secret_hash""")
# A key that another process is storing just now is left to it.
STORE_USES = sa.text("""
    WITH used AS (
        SELECT u.id, u.at FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS u (id, at)
        JOIN api_keys k ON k.id = u.id WHERE k.last_used_at IS NULL OR k.last_used_at < u.at
        FOR NO KEY UPDATE OF k SKIP LOCKED)
    UPDATE api_keys k SET last_used_at = used.at FROM used WHERE k.id = used.id""")


class Caller(msgspec.Struct, frozen=True):
    """The environment a request works in: all that it may see."""

    environment_id: int
    mode: str
    organization_id: str
    currency: str
    region: str | None
    limits: dict[str, int | None]
    """Requests a minute by category; None is the service's default, 0 is no limit."""
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
        self._used: dict[str, datetime] = {}

    async def caller(self, secret: str) -> Caller | None:
        """The key's caller, or None if there is no such key, or no longer."""
        secret_hash = keys.secret_hash(secret)
        asked, (until, caller) = time.monotonic(), self._known.get(secret_hash, (0.0, None))
        if until < asked:
            caller = await self._find(secret_hash)
            if len(self._known) >= CACHE_KEYS:
                self._known.clear()
            # The time the answer took counts: it may tell how things were at its beginning.
            self._known[secret_hash] = (asked + CACHE_SECONDS, caller)
        if caller is None or not caller.is_valid():
            return None
        self._used[caller.key_id] = datetime.now(UTC)
        return caller

    async def keep_uses(self) -> None:
        """Store the last uses now and then, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.store_uses()

    async def store_uses(self) -> None:
        """Store when each key was last used. Should that fail, it is for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with asyncio.timeout(STORE_SECONDS), self._engine.begin() as connection:
                await connection.execute(STORE_USES, {"ids": list(used), "times": list(used.values())})
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("key_uses_postponed", reason=error_kind(error))
            self._used = used | self._used

    async def _find(self, secret_hash: bytes) -> Caller | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND_KEY, {"secret_hash": secret_hash})).mappings().one_or_none()
        if row is None:
            return None
        values = dict(row, scopes=frozenset(row["scopes"]))
        limits = {category: values.pop(f"limit_{category}") for category in ("reads", "writes", "batch")}
        return Caller(**values, limits=limits)


async def authenticate(request: AnyRequest) -> None:
    """Who is it?

    Raises:
        Problem: 401.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() == "bearer" and secret.startswith("pk_"):
        raise Problem(HTTPStatus.UNAUTHORIZED, "Secret key required", headers=CHALLENGE)
    caller = None
    if scheme.lower() == "bearer" and secret.startswith(("sk_live_", "sk_test_")):
        known: Keys = request.app.state.api_keys
        caller = await known.caller(secret)
    if caller is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "Authentication required", headers=CHALLENGE)
    request.scope["auth"] = caller


def authorize(request: AnyRequest, scope: Scope) -> None:
    """Check that the caller's key has a scope.

    Raises:
        Problem: 403.
    """
    caller: Caller = request.scope["auth"]
    if scope not in caller.scopes:
        raise Problem(HTTPStatus.FORBIDDEN, "Forbidden", message=f"This key lacks the scope {scope}")


CHALLENGE = {"WWW-Authenticate": "Bearer"}
