"""Authentication by bearer key (contract.md §1)."""

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
from infra.logs import error_kind

log = structlog.get_logger()

CHALLENGE = {"WWW-Authenticate": "Bearer"}
CACHE_SECONDS = 3.0
"""How long a key is cached; a revoked key stops working within this time."""
CACHE_KEYS = 10_000
FLUSH_SECONDS = 60.0
"""Time between two flushes of the keys' last uses to the database."""
STORE_SECONDS = 2.0
"""Time limit of a flush, because the last flush delays the end of the process."""

FIND_KEY = sa.text("""
    SELECT e.id AS environment_id, e.mode, o.id AS organization_id, o.currency, o.region, o.limit_reads,
        o.limit_writes, o.limit_batch, k.id AS key_id, k.scopes, k.expires_at, k.revoked_at
    FROM api_keys k JOIN environments e ON e.id = k.environment_id JOIN organizations o ON o.id = e.organization_id
    WHERE k.secret_hash = :secret_hash""")
# A row locked by another process is skipped: both would store nearly the same time.
STORE_LAST_USES = sa.text("""
    WITH used AS (
        SELECT u.id, u.at FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS u (id, at)
        JOIN api_keys k ON k.id = u.id WHERE k.last_used_at IS NULL OR k.last_used_at < u.at
        FOR NO KEY UPDATE OF k SKIP LOCKED)
    UPDATE api_keys k SET last_used_at = used.at FROM used WHERE k.id = used.id""")


class Caller(msgspec.Struct, frozen=True):
    """The key of a request, and the key's environment. A request can reach nothing outside its environment."""

    environment_id: int
    mode: str
    organization_id: str
    currency: str
    region: str | None
    limits: dict[str, int | None]
    """Requests a minute by category. None: the default of the service; 0: unlimited."""
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > datetime.now(UTC))


class Keys:
    """Finds keys by the hash of their secret, with a cache of a few seconds, and stores when each was last used."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._cache: dict[bytes, tuple[float, Caller | None]] = {}
        """By secret hash: the end of validity on the monotonic clock, and the result of the query."""
        self._last_uses: dict[str, datetime] = {}

    async def caller(self, secret: str) -> Caller | None:
        """Return the caller of a key; None if the key is unknown, revoked or expired."""
        secret_hash = keys.secret_hash(secret)
        now = time.monotonic()
        valid_until, caller = self._cache.get(secret_hash, (0.0, None))
        if valid_until < now:
            caller = await self._find(secret_hash)
            if len(self._cache) >= CACHE_KEYS:
                self._cache.clear()
            # Expiry counts from before the query, because the query may have read the row at its start.
            self._cache[secret_hash] = (now + CACHE_SECONDS, caller)
        if caller is None or not caller.is_valid():
            return None
        self._last_uses[caller.key_id] = datetime.now(UTC)
        return caller

    async def store_last_uses_regularly(self) -> None:
        """Store the last uses every `FLUSH_SECONDS`, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.store_last_uses()

    async def store_last_uses(self) -> None:
        """Store when each key was last used. After a failure, the next call stores the same times again."""
        last_uses, self._last_uses = self._last_uses, {}
        if not last_uses:
            return
        values = {"ids": list(last_uses), "times": list(last_uses.values())}
        try:
            async with asyncio.timeout(STORE_SECONDS), self._engine.begin() as connection:
                await connection.execute(STORE_LAST_USES, values)
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("key_last_uses_not_stored", reason=error_kind(error))
            self._last_uses = last_uses | self._last_uses

    async def _find(self, secret_hash: bytes) -> Caller | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND_KEY, {"secret_hash": secret_hash})).mappings().one_or_none()
        if row is None:
            return None
        values = dict(row, scopes=frozenset(row["scopes"]))
        limits = {category: values.pop(f"limit_{category}") for category in ("reads", "writes", "batch")}
        return Caller(**values, limits=limits)


async def authenticate(request: AnyRequest) -> None:
    """Find the caller by the `Authorization` header; `caller_of` returns the caller afterwards.

    Raises:
        Problem: 401.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() == "bearer" and secret.startswith("pk_"):
        raise Problem(HTTPStatus.UNAUTHORIZED, "Secret key required", headers=CHALLENGE)
    caller = None
    if scheme.lower() == "bearer" and secret.startswith(("sk_live_", "sk_test_")):
        api_keys: Keys = request.app.state.api_keys
        caller = await api_keys.caller(secret)
    if caller is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "Authentication required", headers=CHALLENGE)
    request.scope["auth"] = caller


def caller_of(request: AnyRequest) -> Caller:
    """Return the caller of an authenticated request."""
    caller: Caller = request.scope["auth"]
    return caller
