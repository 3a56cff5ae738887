"""`Idempotency-Key`: the first outcome of a POST is stored in its own transaction, and replayed for a day.

The key is claimed before the work and its outcome stored after it, so a concurrent twin waits at the claim until the
first has committed (and then replays it) or failed (and then does the work itself).
"""

import hashlib
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.auth import Caller
from api.errors import Fault, Problem, invalid
from api.request import AnyRequest

HEADERS = {"idempotency-key": "Idempotency-Key", "x-idempotency-key": "X-Idempotency-Key"}
"""The first counts."""
MAX_LENGTH = 255
REPLAYED = "Idempotent-Replayed"
LOCK_NOT_AVAILABLE = "55P03"

CLAIM = sa.text("""
    INSERT INTO idempotency_keys AS k (environment_id, key, fingerprint, status, headers, body)
    VALUES (:environment_id, :key, :fingerprint, 0, '{}', '')
    ON CONFLICT (environment_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, created_at = present()
        WHERE k.created_at < now() - interval '24 hours'
    RETURNING true""")
STORED = sa.text("""
    SELECT fingerprint, status, headers::text, body FROM idempotency_keys
    WHERE environment_id = :environment_id AND key = :key""")
STORE = sa.text("""
    UPDATE idempotency_keys SET status = :status, headers = CAST(:headers AS jsonb), body = :body
    WHERE environment_id = :environment_id AND key = :key""")


class Claim(NamedTuple):
    """A key of one environment, and what it was sent with."""

    environment_id: int
    key: str
    fingerprint: bytes


async def claim_of(request: AnyRequest, caller: Caller) -> Claim | None:
    """The key of a POST, if it has one.

    Raises:
        Problem: 400 if it is empty or too long, by whichever of its names.
    """
    if request.method != "POST":
        return None
    given = {name: request.headers[header] for header, name in HEADERS.items() if header in request.headers}
    if not given:
        return None
    wrong = [name for name, key in given.items() if not 1 <= len(key) <= MAX_LENGTH]
    if wrong:
        raise invalid(*(Fault(name, f"Must be 1 to {MAX_LENGTH} characters") for name in wrong))
    key = next(iter(given.values()))
    said = b"\0".join([request.method.encode(), request.url.path.encode(), await request.body()])
    return Claim(caller.environment_id, key, hashlib.sha256(said).digest())


async def take(connection: AsyncConnection, claim: Claim) -> Answer | None:
    """Claim the key for this transaction, or answer what it led to before.

    Raises:
        Problem: 409 if the key was used for something else, or its twin is still at work after 5 s.
    """
    values = claim._asdict()
    try:
        if (await connection.execute(CLAIM, values)).one_or_none():
            return None
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise _conflict("A request with this key is being worked on", headers={"Retry-After": "5"}) from None
    stored = (await connection.execute(STORED, values)).one()
    if stored.fingerprint != claim.fingerprint:
        raise _conflict("This Idempotency-Key was used for another request")
    headers = msgspec.json.decode(stored.headers, type=dict[str, str])
    return Answer(stored.status, stored.body, headers | {REPLAYED: "true"})


async def store(connection: AsyncConnection, claim: Claim, answer: Answer) -> None:
    values = {"status": answer.status, "headers": msgspec.json.encode(answer.headers).decode(), "body": answer.body}
    await connection.execute(STORE, claim._asdict() | values)


def _conflict(message: str, headers: dict[str, str] | None = None) -> Problem:
    return Problem(HTTPStatus.CONFLICT, "Conflict", message=message, headers=headers)
