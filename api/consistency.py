"""Consistency tokens and the headers about how current a read is (contract.md §1 "Reading your own writes").

1. Every write returns `Consistency-Token`, the sealed id of the transaction (`encode_token`). With `Prefer: wait` the
   write answers as soon as the change is searchable (`wait_after_write`).
2. A read with a token waits until the index contains the write, and only then searches (`read`). The token is checked
   here (`requested_writes`); `api/freshness.py` does the waiting.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple, TypeVar
from uuid import UUID

from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import Fault, Problem, invalid
from api.freshness import Freshness, TransactionId, Write
from api.request import AnyRequest
from infra.seals import Seal, SealError
from infra.tokens import CONTENT, CONTENT_BEFORE_EPOCHS, sealed_token

Result = TypeVar("Result")

STALE = {"Index-Stale": "true"}
TOKEN = "Consistency-Token"  # noqa: S105 (a header's name)
UNSEALED_TOKEN = re.compile(r"1-([0-9]{1,19})")
"""The format before sealing; `api/idempotency.py` stores tokens in this format."""
MAX_WAIT_SECONDS = 10
MAX_TOKENS = 20
"""Tokens in a request."""
DEFAULT_WAIT_SECONDS = 2
RETRY_AFTER_SECONDS = 1
PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^",])+')
"""A part of a header between commas. A comma in quotes does not separate parts."""
PREFERENCE = re.compile(
    r'\s*+([!#$%&\'*+.^_`|~0-9A-Za-z-]++)\s*+(?:=\s*+("(?:[^"\\]|\\.)*+"|[^\s";,]*+)\s*+)?+(?:;.*)?'
)
"""A preference, matched without backtracking: thousands of spaces would block the event loop for seconds."""


class Preferences(NamedTuple):
    """The preferences of a request (RFC 7240). Unknown preferences are ignored, as the RFC demands."""

    wait: int | None = None
    """Seconds."""
    strict: bool = False
    minimal: bool = False
    """Whether a batch is answered without the objects."""

    def applied(self) -> str:
        """Return the value of the header `Preference-Applied`."""
        parts = [f"wait={self.wait}"] * (self.wait is not None) + ["handling=strict"] * self.strict
        return ", ".join(parts)


def encode_token(seal: Seal, transaction: TransactionId) -> str:
    """Return the consistency token of a write."""
    return sealed_token(seal, transaction.xid, transaction.epoch, transaction.lsn)


def decode_token(seal: Seal, token: str) -> TransactionId:
    """Return the transaction in a consistency token.

    Raises:
        ValueError: the text is not a token of this environment.
    """
    try:
        content = seal.open("token", token)
    except SealError:
        if seal.accepts_unsealed() and (xid := unsealed_xid(token)):
            return TransactionId(xid)
        raise ValueError("Invalid token: send the Consistency-Token header of a write's response, unchanged") from None
    if len(content) == CONTENT_BEFORE_EPOCHS.size:
        return TransactionId(str(*CONTENT_BEFORE_EPOCHS.unpack(content)))
    xid, lsn, epoch = CONTENT.unpack(content)
    return TransactionId(str(xid), str(UUID(bytes=epoch)), f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}")


def unsealed_xid(token: str) -> str | None:
    """Return the transaction id in a token of the format before sealing; None if the text is none."""
    match = UNSEALED_TOKEN.fullmatch(token)
    return match[1] if match and int(match[1]) < 1 << 63 else None


def parse_preferences(values: list[str], max_wait: int = MAX_WAIT_SECONDS) -> Preferences:
    """Parse the `Prefer` headers of a request. Of a repeated preference the first counts."""
    preferences: dict[str, str] = {}
    for part in (part for value in values for part in PART.findall(value)):
        if match := PREFERENCE.fullmatch(part):
            preferences.setdefault(match[1].lower(), (match[2] or "").strip('"'))
    wait = preferences.get("wait", "")
    # Three digits suffice to compare with the maximum, and int() refuses very long numbers.
    seconds = min(int(wait.lstrip("0")[:3] or 0), max_wait) if re.fullmatch("[0-9]+", wait) else None
    strict = preferences.get("handling", "").lower() == "strict"
    return Preferences(seconds, strict, preferences.get("return", "").lower() == "minimal")


def preferences_of(request: AnyRequest, max_wait: int = MAX_WAIT_SECONDS) -> Preferences:
    return parse_preferences(request.headers.getall("prefer", []), max_wait)


async def wait_after_write(
    request: AnyRequest, caller: Caller, freshness: Freshness, transaction: TransactionId
) -> dict[str, str]:
    """Wait until the request's own write is searchable, if the request prefers to wait; return headers."""
    preferences = preferences_of(request)._replace(strict=False)
    if preferences.wait is None:
        return {}
    write = Write(caller.environment_id, transaction)
    is_searchable = await freshness.wait_until_searchable(write, preferences.wait, is_new=True)
    state = "searchable" if is_searchable else "pending"
    return {"Index-State": state, "Preference-Applied": preferences.applied()}


async def read(
    request: AnyRequest, caller: Caller, freshness: Freshness, search: Callable[[], Awaitable[Result]]
) -> tuple[Result, dict[str, str]]:
    """Search as soon as the index contains the write of the request's token; return the result and headers.

    Args:
        request: may carry a `Consistency-Token`, and preferences: how long to wait, and whether to fail after that.
        caller: the environment to read.
        freshness: waits for the write, and measures the lag.
        search: starts the search; called after the wait.

    Raises:
        Problem: 400 for an invalid token; 503 if the index does not contain the write and the request is strict.
    """
    headers = await _wait_for_token(request, caller, freshness)
    if known_lag := freshness.known_lag(caller.environment_id):
        lag, result = known_lag, await search()
    else:
        lag, result = await asyncio.gather(freshness.lag(caller.environment_id), search())
    if lag.is_index_lost and STALE.keys().isdisjoint(headers):
        # An incomplete index lacks writes that were searchable before.
        headers |= _stale(request, headers)
    return result, headers | {"Index-Lag-Ms": str(lag.milliseconds)}


def requested_writes(request: AnyRequest, caller: Caller) -> list[Write]:
    """Check the tokens in `Consistency-Token`, separated by commas; return their writes.

    Raises:
        Problem: 400 for an invalid token.
    """
    if not (values := request.headers.getall(TOKEN, [])):
        return []
    tokens = [token.strip() for token in ",".join(values).split(",")]
    try:
        transactions = [decode_token(caller.seal, token) for token in tokens]
    except ValueError as error:
        raise invalid(Fault(TOKEN, str(error), ErrorCode.INVALID_TOKEN)) from None
    if len(transactions) > MAX_TOKENS:
        raise invalid(Fault(TOKEN, f"Must be at most {MAX_TOKENS} tokens", ErrorCode.INVALID_TOKEN))
    return [Write(caller.environment_id, transaction) for transaction in set(transactions)]


async def _wait_for_token(request: AnyRequest, caller: Caller, freshness: Freshness) -> dict[str, str]:
    writes = requested_writes(request, caller)
    if not writes:
        return {}
    preferences = preferences_of(request)
    headers = {"Preference-Applied": preferences.applied()} if preferences.applied() else {}
    seconds = DEFAULT_WAIT_SECONDS if preferences.wait is None else preferences.wait
    # Each write is waited for: a later write may be searchable before an earlier one whose document was refused.
    if all(await asyncio.gather(*(freshness.wait_until_searchable(write, seconds) for write in writes))):
        return headers
    return headers | _stale(request, headers)


def _stale(request: AnyRequest, headers: dict[str, str]) -> dict[str, str]:
    """Return the header of an answer that may lack writes.

    Raises:
        Problem: 503 if the request has a token and is strict.
    """
    if TOKEN in request.headers and preferences_of(request).strict:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Search unavailable",
            code=ErrorCode.SEARCH_UNAVAILABLE,
            message="The index does not contain the write of this Consistency-Token yet: repeat the request later",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)} | headers,
        )
    request.app.state.metrics.stale()
    return dict(STALE)
