"""Idempotency keys: the answer of a POST is stored in the transaction of the write, and replayed for 24 hours.

The transaction claims the key before the write, and stores the answer after the write. A concurrent request with the
same key therefore waits at the claim. If the first transaction commits, the second request replays the answer; if the
first rolls back, the second does the write.
"""

import hashlib
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from api import consistency
from api.answers import Answer
from api.auth import Caller, Requester
from api.errors import Fault, Problem, refuse
from api.request import AnyRequest

HEADERS = {"idempotency-key": "Idempotency-Key", "x-idempotency-key": "X-Idempotency-Key"}
"""If a request has both headers, the first counts."""
MAX_LENGTH = 255
REPLAYED = "Idempotent-Replayed"
LOCK_NOT_AVAILABLE = "55P03"


class Statements(NamedTuple):
    """The statements for the keys of an owner: an environment, or an operator's key."""

    claim: sa.TextClause
    stored: sa.TextClause
    store: sa.TextClause


def _statements(table: str, owner: str) -> Statements:
    return Statements(
        claim=sa.text(f"""
            INSERT INTO {table} AS k ({owner}, key, fingerprint, status, headers, body)
            VALUES (:owner, :key, :fingerprint, 0, '{{}}', '')
            ON CONFLICT ({owner}, key) DO UPDATE SET fingerprint = excluded.fingerprint, created_at = present()
                WHERE k.created_at < now() - interval '24 hours'
            RETURNING true"""),
        stored=sa.text(f"""
            SELECT fingerprint, status, headers::text, body FROM {table} WHERE {owner} = :owner AND key = :key"""),
        store=sa.text(f"""
            UPDATE {table} SET status = :status, headers = CAST(:headers AS jsonb), body = :body
            WHERE {owner} = :owner AND key = :key"""),
    )


OF_ENVIRONMENT = _statements("idempotency_keys", "environment_id")
OF_OPERATOR = _statements("operator_idempotency_keys", "operator_key_id")


class Claim(NamedTuple):
    """A key of an owner, with a digest of the request sent with the key."""

    statements: Statements
    owner: int | str
    """The id of the environment, or of the operator's key."""
    key: str
    fingerprint: bytes

    @property
    def values(self) -> dict[str, Any]:
        return {"owner": self.owner, "key": self.key, "fingerprint": self.fingerprint}


async def claim_of(request: AnyRequest, requester: Requester) -> Claim | None:
    """Return the claim of a POST with a key; None for all further requests.

    Raises:
        Problem: 400 if a key is empty or too long; names the header.
    """
    if request.method != "POST":
        return None
    keys = {name: request.headers[header] for header, name in HEADERS.items() if header in request.headers}
    if not keys:
        return None
    refuse(
        [
            Fault(name, f"Must be 1 to {MAX_LENGTH} characters")
            for name, key in keys.items()
            if not 1 <= len(key) <= MAX_LENGTH
        ]
    )
    key = next(iter(keys.values()))
    content = b"\0".join([request.method.encode(), request.scope["path"].encode(), await request.body()])
    fingerprint = hashlib.sha256(content).digest()
    if isinstance(requester, Caller):
        return Claim(OF_ENVIRONMENT, requester.environment_id, key, fingerprint)
    return Claim(OF_OPERATOR, requester.key_id, key, fingerprint)


async def take(connection: AsyncConnection, claim: Claim) -> Answer | None:
    """Claim the key for this transaction; return the answer stored under the key, if any.

    Raises:
        Problem: 409 if the key was used for another request, or a request with the key is still running after 5 s.
    """
    values = claim.values
    try:
        if (await connection.execute(claim.statements.claim, values)).one_or_none():
            return None
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise _conflict(
            "A request with this Idempotency-Key is still running: retry later", headers={"Retry-After": "5"}
        ) from None
    stored = (await connection.execute(claim.statements.stored, values)).one()
    if stored.fingerprint != claim.fingerprint:
        raise _conflict("This Idempotency-Key was used for another request")
    headers = msgspec.json.decode(stored.headers, type=dict[str, str])
    xid = consistency.unsealed_xid(headers.pop(consistency.TOKEN, ""))
    return Answer(stored.status, stored.body, headers | {REPLAYED: "true"}, xid)


async def store(connection: AsyncConnection, claim: Claim, answer: Answer) -> None:
    """Store the answer under the key claimed by this transaction.

    The token is stored unsealed, so that a replay has a valid token even after the loss of the sealing key.
    """
    token = {consistency.TOKEN: f"1-{answer.xid}"} if answer.xid else {}
    headers = msgspec.json.encode(answer.headers | token).decode()
    values = {"status": answer.status, "headers": headers, "body": answer.body}
    await connection.execute(claim.statements.store, claim.values | values)


def _conflict(message: str, headers: dict[str, str] | None = None) -> Problem:
    return Problem(HTTPStatus.CONFLICT, "Conflict", message=message, headers=headers)
