"""Idempotency keys: the answer of a POST, PUT or DELETE is stored in the transaction of the write, and replayed for 24
hours.

The transaction claims the key before the write, and stores the answer after the write. A concurrent request with the
same key therefore waits at the claim. If the first transaction commits, the second request replays the answer; if the
first rolls back, the second does the write.

A stored answer can lack the body, and a replay is then an error, so that no retry repeats the write:

- A consumer in the answer was deleted: a trigger (`erase_replays`) empties the answer and hashes the key, because
  clients put personal data into keys. A replay is a 410.
- The answers of the environment exceed the bytes allowed for a day: only the key is stored. A replay is a 409.

The deletion of a consumer stores its own answer without the data of the consumer (`Answer.stored_body`), and under the
digest of the key. A replay is the 200 of the deletion: the client learns that the consumer is deleted.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from api import consistency
from api.answers import Answer
from api.auth import Caller, Requester
from api.error_codes import ErrorCode
from api.errors import Fault, Problem, refuse
from api.freshness import TransactionId
from api.request import AnyRequest

HEADERS = {"idempotency-key": "Idempotency-Key", "x-idempotency-key": "X-Idempotency-Key"}
"""If a request has both headers, the first counts."""
METHODS = frozenset({"POST", "PUT", "DELETE"})
MAX_LENGTH = 255
REPLAYED = "Idempotent-Replayed"
CLAIMED = 0
"""The status of a key whose request is running. Only the transaction of this request sees the row."""
LOCK_NOT_AVAILABLE = "55P03"
ENCODING, GZIP = "Content-Encoding", "gzip"
"""A compressed body is stored with this header, as the release before this one answers with both unchanged."""
COMPRESSED_BYTES = 2 * 1024
"""Shorter bodies are stored as they are."""
SESSIONS, ANSWERS_OF_A_ROW = 64, 32
"""An environment's bytes of a day are counted in a row for each session, and in a new row after so many answers."""
THREAD_BYTES = 64 * 1024
"""Longer bodies are compressed, and hashed, in a thread, because the event loop serves all clients."""

NOT_STORED = (
    "The request with this Idempotency-Key took effect, but its response was not stored, because the stored responses "
    "of this environment have reached their limit for the day: read the written objects instead"
)
ERASED_KEY = r"E'\n' || encode(sha256(convert_to(:key, 'UTF8')), 'hex')"
"""The key of an emptied answer, as the trigger sets it. No header can contain a line break."""


class Statements(NamedTuple):
    """The statements for the keys of an owner: an environment, or an operator's key."""

    claim: sa.TextClause
    stored: sa.TextClause
    store: sa.TextClause
    free_digest: sa.TextClause
    hide_key: sa.TextClause


def _statements(table: str, owner: str, store: str, emptied: str) -> Statements:
    is_erased = f"key = {ERASED_KEY} AND created_at >= now() - interval '24 hours'"
    erased = f"SELECT FROM {table} WHERE {owner} = :owner AND {is_erased}"
    return Statements(
        claim=sa.text(f"""
            INSERT INTO {table} AS k ({owner}, key, fingerprint, status, headers, body)
            SELECT :owner, :key, :fingerprint, {CLAIMED}, '{{}}', '' WHERE NOT EXISTS ({erased})
            ON CONFLICT ({owner}, key)
                DO UPDATE SET fingerprint = excluded.fingerprint, status = {CLAIMED}, created_at = present(),
                    {emptied}
                WHERE k.created_at < now() - interval '24 hours'
            RETURNING true"""),
        # The key of an emptied answer sorts before all keys of clients.
        stored=sa.text(f"""
            SELECT fingerprint, status, headers::text, body, epoch::text, lsn::text FROM {table}
            WHERE {owner} = :owner AND (key = :key OR {is_erased}) ORDER BY key LIMIT 1"""),
        # The answer may have been emptied while the claim waited for a concurrent request with the same key.
        store=sa.text(f"{store} WHERE {owner} = :owner AND key = :key AND NOT EXISTS ({erased})"),
        # An emptied answer older than 24 hours, which the upkeep has not deleted yet.
        free_digest=sa.text(f"DELETE FROM {table} WHERE {owner} = :owner AND key = {ERASED_KEY}"),
        hide_key=sa.text(f"UPDATE {table} SET key = {ERASED_KEY} WHERE {owner} = :owner AND key = :key"),
    )


# Each session counts in rows of its own, so that the requests of an environment do not wait for each other. A row
# counts `ANSWERS_OF_A_ROW` answers, and the next row begins with the sum, so only the last row of a session is read. A
# held snapshot keeps all versions of a row, and each request would walk through them.
STORE_OF_ENVIRONMENT = f"""
    WITH today AS (SELECT CAST(now() AT TIME ZONE 'UTC' AS date) AS day, pg_backend_pid() % {SESSIONS} AS session),
    last AS (
        SELECT c.part, c.answers >= {ANSWERS_OF_A_ROW} AS is_full, c.bytes_before + c.bytes AS bytes
        FROM today t JOIN idempotency_counts c ON (c.environment_id, c.day, c.session) = (:owner, t.day, t.session)
        ORDER BY c.part DESC LIMIT 1 FOR UPDATE OF c),
    counted AS (
        INSERT INTO idempotency_counts AS c (environment_id, day, session, part, bytes_before, bytes, answers)
        SELECT :owner, day, session, coalesce(part + CAST(is_full AS int), 0),
            CASE WHEN is_full THEN bytes ELSE 0 END, octet_length(:body), 1
        FROM today LEFT JOIN last ON true
        WHERE CAST(:max_bytes AS bigint) = 0 OR CAST(:max_bytes AS bigint) >= octet_length(:body) + (
            SELECT coalesce(sum(l.bytes), 0)
            FROM generate_series(0, {SESSIONS - 1}) AS s (session) CROSS JOIN LATERAL (
                SELECT bytes_before + bytes AS bytes FROM idempotency_counts c
                WHERE (c.environment_id, c.day, c.session) = (:owner, today.day, s.session)
                ORDER BY part DESC LIMIT 1) l)
        ON CONFLICT (environment_id, day, session, part)
            DO UPDATE SET bytes = c.bytes + excluded.bytes, answers = c.answers + 1
        RETURNING true)
    UPDATE idempotency_keys SET epoch = :epoch, lsn = :lsn, (status, headers, body, consumer_ids) = (
        SELECT :status, CAST(:headers AS jsonb), CAST(:body AS bytea), CAST(:consumer_ids AS text[]) FROM counted
        UNION ALL SELECT {HTTPStatus.CONFLICT}, '{{}}', '', NULL WHERE NOT EXISTS (SELECT FROM counted))"""
STORE_OF_OPERATOR = """
    UPDATE operator_idempotency_keys SET status = :status, headers = CAST(:headers AS jsonb), body = :body"""
EMPTIED = "headers = '{}', body = ''"
OF_ENVIRONMENT = _statements(
    "idempotency_keys", "environment_id", STORE_OF_ENVIRONMENT, f"{EMPTIED}, consumer_ids = NULL"
)
OF_OPERATOR = _statements("operator_idempotency_keys", "operator_key_id", STORE_OF_OPERATOR, EMPTIED)


class Claim(NamedTuple):
    """A key of an owner, with a digest of the request sent with the key."""

    statements: Statements
    owner: int | str
    """The id of the environment, or of the operator's key."""
    key: str
    fingerprint: bytes
    is_delete: bool = False

    @property
    def values(self) -> dict[str, Any]:
        return {"owner": self.owner, "key": self.key, "fingerprint": self.fingerprint}


async def claim_of(request: AnyRequest, requester: Requester) -> Claim | None:
    """Return the claim of a write with a key; None for all further requests.

    Raises:
        Problem: 400 if a key is empty or too long; names the header.
    """
    if request.method not in METHODS:
        return None
    keys = {name: request.headers[header] for header, name in HEADERS.items() if header in request.headers}
    if not keys:
        return None
    refuse(
        [
            Fault(name, f"Must be 1 to {MAX_LENGTH} characters: use a new UUID", ErrorCode.INVALID_LENGTH)
            for name, key in keys.items()
            if not 1 <= len(key) <= MAX_LENGTH
        ]
    )
    key = next(iter(keys.values()))
    parts = [request.method.encode(), request.scope["path"].encode(), await request.body()]
    if query := request.scope["query_string"]:
        parts.append(query)  # such as `matchBy`; the release before has no POST with a query
    content = b"\0".join(parts)
    fingerprint = await _in_thread_if_long(_digest, content)
    is_delete = request.method == "DELETE"
    if isinstance(requester, Caller):
        return Claim(OF_ENVIRONMENT, requester.environment_id, key, fingerprint, is_delete)
    return Claim(OF_OPERATOR, requester.key_id, key, fingerprint, is_delete)


async def take(connection: AsyncConnection, claim: Claim) -> Answer | None:
    """Claim the key for this transaction; return the answer stored under the key, if any.

    Raises:
        Problem: 409 if the key was used for another request, a request with the key is still running after 5 s, or the
            answer was not stored; 410 if a consumer in the answer was deleted.
    """
    stored = None
    while stored is None:
        is_claimed = await _claimed(connection, claim)
        if is_claimed and not claim.is_delete:
            return None
        # Without a row, the key of an emptied answer has reached its 24 hours since the claim, and was deleted.
        stored = (await connection.execute(claim.statements.stored, claim.values)).one_or_none()
        # A claim that waited for the deletion of a consumer succeeds, because the deletion has hidden its key.
        if is_claimed and stored and stored.status == CLAIMED:
            return None
    if stored.fingerprint != claim.fingerprint:
        message = "This Idempotency-Key was used for another request: send a new key with each new request"
        raise _conflict(ErrorCode.IDEMPOTENCY_KEY_REUSED, message)
    if stored.status == HTTPStatus.GONE:
        raise _deleted()
    if stored.status == HTTPStatus.CONFLICT:
        raise _conflict(ErrorCode.IDEMPOTENCY_KEY_REUSED, NOT_STORED)
    headers = msgspec.json.decode(stored.headers, type=dict[str, str])
    xid = consistency.unsealed_xid(headers.pop(consistency.TOKEN, ""))
    transaction = TransactionId(xid, stored.epoch, stored.lsn) if xid else None
    is_compressed = headers.pop(ENCODING, None) == GZIP
    body = await _in_thread_if_long(gzip.decompress, stored.body) if is_compressed else stored.body
    return Answer(stored.status, body, headers | {REPLAYED: "true"}, transaction)


async def _claimed(connection: AsyncConnection, claim: Claim) -> bool:
    """Claim the key; return False if an answer is stored under the key.

    Raises:
        Problem: 409 if a request with the key is still running after 5 s.
    """
    try:
        return (await connection.execute(claim.statements.claim, claim.values)).one_or_none() is not None
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise _conflict(
            ErrorCode.IDEMPOTENCY_KEY_IN_USE,
            "A request with this Idempotency-Key is still running: retry later",
            headers={"Retry-After": "5"},
        ) from None


async def store(connection: AsyncConnection, claim: Claim, answer: Answer, max_bytes: int) -> None:
    """Store the answer under the key claimed by this transaction.

    The token is stored unsealed, so that a replay has a valid token even after the loss of the sealing key.

    Args:
        connection: in the transaction of the claim.
        claim: of the request.
        answer: of the write.
        max_bytes: of an environment's answers in a day, as stored; 0: unlimited. Beyond, only the key is stored.

    Raises:
        Problem: 410 if the key has an emptied answer. The caller must roll back.
    """
    transaction = answer.transaction
    headers = answer.headers | ({consistency.TOKEN: f"1-{transaction.xid}"} if transaction else {})
    body = answer.body if answer.stored_body is None else answer.stored_body
    if len(body) > COMPRESSED_BYTES:
        body, headers = await _in_thread_if_long(_compress, body), headers | {ENCODING: GZIP}
    values = {
        "status": answer.status,
        "headers": msgspec.json.encode(headers).decode(),
        "body": body,
        "consumer_ids": list(answer.consumer_ids) or None,
        "max_bytes": max_bytes,
        "epoch": transaction.epoch if transaction else None,
        "lsn": transaction.lsn if transaction else None,
    }
    if not (await connection.execute(claim.statements.store, claim.values | values)).rowcount:
        raise _deleted()
    if answer.stored_body is not None:
        await connection.execute(claim.statements.free_digest, claim.values)
        await connection.execute(claim.statements.hide_key, claim.values)


def _compress(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


async def _in_thread_if_long(convert: Callable[[bytes], bytes], body: bytes) -> bytes:
    return await asyncio.to_thread(convert, body) if len(body) > THREAD_BYTES else convert(body)


def _deleted() -> Problem:
    return Problem(
        HTTPStatus.GONE,
        "Consumer deleted",
        message="The response of this Idempotency-Key contained a consumer that was deleted since: send a new write "
        "with another key",
    )


def _conflict(code: ErrorCode, message: str, headers: dict[str, str] | None = None) -> Problem:
    return Problem(HTTPStatus.CONFLICT, "Conflict", code=code, message=message, headers=headers)
