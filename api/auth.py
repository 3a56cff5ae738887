"""Authentication by bearer key (contract.md §1).

A request with a secret key (`sk_…`) comes from a `Caller`: a merchant, in an environment. A request with an operator's
key (`op_…`) comes from an `Operator`, in no environment. `api/scopes.py` decides which routes each of the two may use.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.error_codes import ErrorCode
from api.errors import Problem
from api.request import AnyRequest
from api.seals import Seals
from infra.accounts import operators
from infra.accounts.key_secrets import may_exist, secret_hash
from infra.accounts.keys import CACHE_SECONDS
from infra.logs import error_kind
from infra.seals import Seal

log = structlog.get_logger()
T = TypeVar("T")

CHALLENGE = {"WWW-Authenticate": "Bearer"}
PREFIXES = ("sk_live_", "sk_test_", operators.PREFIX)
UNKNOWN_OPERATOR_KEY = f"This operator key is unknown, revoked or expired: make another with `{operators.COMMAND}`"
UNKNOWN_KEY = "This key is unknown, revoked or expired"
SEND_SECRET_KEY = "send `Authorization: Bearer sk_…` with a secret key of the environment"  # noqa: S105 (no password)
CACHE_KEYS = 10_000
UNKNOWN_LOOKUPS = 2
"""How many unknown secrets are looked up at a time: random secrets must not take the connections of all requests."""
FLUSH_SECONDS = 60.0
"""Time between two flushes of the keys' last uses to the database."""
STORE_SECONDS = 2.0
"""Time limit of a flush, because the last flush delays the end of the process."""

FIND_KEY = sa.text("""
    SELECT e.id AS environment_id, e.mode, o.id AS organization_id, o.currency, o.region, o.limit_reads,
        o.limit_writes, o.limit_batch, o.limit_stored_mib, e.stored_mib, k.id AS key_id, k.scopes,
        k.expires_at, k.revoked_at
    FROM api_keys k JOIN environments e ON e.id = k.environment_id JOIN organizations o ON o.id = e.organization_id
    WHERE k.secret_hash = :secret_hash""")
FIND_OPERATOR_KEY = sa.text("""
    SELECT id AS key_id, expires_at, revoked_at FROM operator_keys WHERE secret_hash = :secret_hash""")
# A row locked by another process is skipped: both would store nearly the same time.
STORE_LAST_USES = [
    sa.text(f"""
        WITH used AS (
            SELECT u.id, u.at FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS u (id, at)
            JOIN {table} k ON k.id = u.id WHERE k.last_used_at IS NULL OR k.last_used_at < u.at
            FOR NO KEY UPDATE OF k SKIP LOCKED)
        UPDATE {table} k SET last_used_at = used.at FROM used WHERE k.id = used.id""")
    for table in ("api_keys", "operator_keys")
]


class Requester(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a request, and the conventions for its values and its rate."""

    key_id: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    currency: str = "USD"
    region: str | None = None
    limits: Mapping[str, int | None] = {}
    """Requests a minute by category. None, or no entry: the default of the service; 0: unlimited."""

    @property
    def counted_as(self) -> str:
        """The name under which the rate limits count the requests: the environment, or the operator's key."""
        return self.key_id

    @property
    def is_test(self) -> bool:
        """Whether the key is of a test environment."""
        return False

    def is_valid(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > datetime.now(UTC))


class Caller(Requester, frozen=True, kw_only=True):
    """A merchant's key, and the key's environment. A request can reach nothing outside its environment."""

    environment_id: int
    mode: str
    organization_id: str
    scopes: frozenset[str]
    stored_mib: int = 0
    """MiB of rows in the environment, as last measured."""
    limit_stored_mib: int | None = None
    """The limit of the organization; None: the default of the service; 0: unlimited."""
    seal: Seal
    """Seals tokens, entity tags and cursors for this environment alone."""

    @property
    def is_test(self) -> bool:
        return self.mode == "test"

    @property
    def counted_as(self) -> str:
        return str(self.environment_id)


class Operator(Requester, frozen=True, kw_only=True):
    """An operator's key, for the operations alone."""


class Keys:
    """Finds keys by the hash of their secret, with a cache of a few seconds, and stores their last uses."""

    def __init__(self, engine: AsyncEngine, seals: Seals) -> None:
        self._engine, self._seals = engine, seals
        self._known: dict[bytes, tuple[float, Requester]] = {}
        """By secret hash: the end of validity on the monotonic clock, and the requester."""
        self._unknown: dict[bytes, float] = {}
        """The same for secrets without a key. Random secrets must not displace the known keys."""
        self._unknown_lookups = asyncio.Semaphore(UNKNOWN_LOOKUPS)
        self._lookups: dict[bytes, asyncio.Task[Requester | None]] = {}
        """By secret hash: the query in progress. Requests that arrive meanwhile wait for the same query."""
        self._last_uses: dict[str, datetime] = {}

    async def find(self, secret: str) -> Requester | None:
        """Return the requester with a key, valid or not; None if no key has this secret."""
        digest, now = secret_hash(secret), time.monotonic()
        valid_until, requester = self._known.get(digest, (0.0, None))
        if now <= valid_until:
            return requester
        if now <= self._unknown.get(digest, 0.0):
            return None
        if not (lookup := self._lookups.get(digest)):
            lookup = self._lookups[digest] = asyncio.create_task(self._look_up(secret, digest, requester))
            lookup.add_done_callback(partial(self._end_lookup, digest))
        # The query continues for the other requests if one request is cancelled.
        return await asyncio.shield(lookup)

    def _end_lookup(self, digest: bytes, lookup: asyncio.Task[Requester | None]) -> None:
        del self._lookups[digest]
        if not lookup.cancelled():
            lookup.exception()  # marks the exception as retrieved, because every request may be cancelled

    async def _look_up(self, secret: str, digest: bytes, requester: Requester | None) -> Requester | None:
        """Find a key in the database, and put the result into the cache. `requester` is the last result."""
        now = time.monotonic()
        find = self._find_operator if secret.startswith(operators.PREFIX) else self._find_caller
        async with nullcontext() if requester else self._unknown_lookups:
            requester = await find({"secret_hash": digest})
        # Expiry counts from before the query, because the query may have read the row at its start.
        if requester:
            _put(self._known, digest, (now + CACHE_SECONDS, requester))
        else:
            self._known.pop(digest, None)
            _put(self._unknown, digest, now + CACHE_SECONDS)
        return requester

    def has_seen(self, secret: str) -> bool:
        """Return whether the last look-up of a secret in this process returned a key."""
        return secret_hash(secret) in self._known

    def note_use(self, requester: Requester) -> None:
        """Remember that a key was used now, until the next flush."""
        self._last_uses[requester.key_id] = datetime.now(UTC)

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
                for statement in STORE_LAST_USES:
                    await connection.execute(statement, values)
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("key_last_uses_not_stored", reason=error_kind(error))
            self._last_uses = last_uses | self._last_uses

    async def _find_operator(self, values: dict[str, bytes]) -> Operator | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND_OPERATOR_KEY, values)).mappings().one_or_none()
        return None if row is None else Operator(**row)

    async def _find_caller(self, values: dict[str, bytes]) -> Caller | None:
        keyring = await self._seals.keyring()
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND_KEY, values)).mappings().one_or_none()
        if row is None:
            return None
        columns = dict(row, scopes=frozenset(row["scopes"]), seal=keyring.of(row["environment_id"]))
        limits = {category: columns.pop(f"limit_{category}") for category in ("reads", "writes", "batch")}
        return Caller(**columns, limits=limits)


async def authenticate(request: AnyRequest) -> None:
    """Find the requester by the `Authorization` header; `requester_of` returns the requester afterwards.

    Raises:
        Problem: 401.
    """
    secret = secret_of(request)
    if secret.startswith("pk_"):
        code, message = ErrorCode.SECRET_KEY_REQUIRED, f"A publishable key opens nothing here: {SEND_SECRET_KEY}"
        raise Problem(HTTPStatus.UNAUTHORIZED, "Secret key required", code=code, message=message, headers=CHALLENGE)
    api_keys: Keys = request.app.state.api_keys
    is_possible = any(may_exist(secret, prefix) for prefix in PREFIXES)
    requester = await api_keys.find(secret) if is_possible else None
    if requester is not None:
        # The log line names a refused key, too.
        request.scope["state"]["key_id"] = requester.key_id
    if requester is None or not requester.is_valid():
        message = _why_unauthorized(request, secret)
        raise Problem(HTTPStatus.UNAUTHORIZED, "Authentication required", message=message, headers=CHALLENGE)
    api_keys.note_use(requester)
    request.scope["auth"] = requester


def secret_of(request: AnyRequest) -> str:
    """Return the secret in the `Authorization` header; an empty text without one."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _why_unauthorized(request: AnyRequest, secret: str) -> str:
    """Return the fault of a key, or of its absence, with advice."""
    if secret:
        is_operator_key = secret.startswith(operators.PREFIX)
        return UNKNOWN_OPERATOR_KEY if is_operator_key else f"{UNKNOWN_KEY}: {SEND_SECRET_KEY}"
    sent = request.headers.get("authorization", "").strip()
    if not sent:
        fault = "The key is in another header" if "x-api-key" in request.headers else "The request has no key"
    elif sent.lower().startswith("basic "):
        fault = "Basic authentication is not supported"
    else:
        fault = "The Authorization header has no key after the word Bearer"
    return f"{fault}: {SEND_SECRET_KEY}"


def requester_of(request: AnyRequest) -> Requester:
    """Return the requester of an authenticated request."""
    requester: Requester = request.scope["auth"]
    return requester


def caller_of(request: AnyRequest) -> Caller:
    """Return the caller of a request to a merchant's route, as `api/scopes.py` has checked."""
    requester = requester_of(request)
    assert isinstance(requester, Caller), "an operator's key does not open a merchant's route"
    return requester


def _put(cache: dict[bytes, T], digest: bytes, value: T) -> None:
    """Add an entry to a cache. A full cache is emptied first."""
    if len(cache) >= CACHE_KEYS:
        cache.clear()
    cache[digest] = value
