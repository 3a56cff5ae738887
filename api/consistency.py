"""How current an answer from the index is, as the reader hears it (contract.md §1 "Reading your own writes")."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from litestar import Request

from api.auth import Caller
from api.errors import Fault, Problem, invalid
from api.freshness import Freshness, Mark, xid_of

Result = TypeVar("Result")

TOKEN = "Consistency-Token"  # noqa: S105 (a header's name)
LONGEST_WAIT = 10
DEFAULT_WAIT = 2
RETRY_AFTER_SECONDS = 1
PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^",])+')
"""Between commas; those in quotes separate nothing."""
PREFERENCE = re.compile(
    r'\s*+([!#$%&\'*+.^_`|~0-9A-Za-z-]++)\s*+(?:=\s*+("(?:[^"\\]|\\.)*+"|[^\s";,]*+)\s*+)?+(?:;.*)?'
)
"""Without backtracking: a header of thousands of spaces would hold up the event loop for seconds."""


class Preferences(NamedTuple):
    """What a request prefers (RFC 7240); what is not understood is ignored, as that says."""

    wait: int | None = None
    """Seconds."""
    strict: bool = False

    def applied(self) -> str:
        """The value of `Preference-Applied`."""
        parts = [f"wait={self.wait}"] * (self.wait is not None) + ["handling=strict"] * self.strict
        return ", ".join(parts)


def preferences(values: list[str]) -> Preferences:
    """Read the `Prefer` headers of a request; of a preference given twice the first counts."""
    given: dict[str, str] = {}
    for part in (part for value in values for part in PART.findall(value)):
        if found := PREFERENCE.fullmatch(part):
            given.setdefault(found[1].lower(), (found[2] or "").strip('"'))
    wait = given.get("wait", "")
    # Of a longer number the first digits tell enough.
    seconds = min(int(wait.lstrip("0")[:3] or 0), LONGEST_WAIT) if re.fullmatch("[0-9]+", wait) else None
    return Preferences(seconds, given.get("handling", "").lower() == "strict")


def preferences_of(request: Request[Any, Any, Any]) -> Preferences:
    return preferences(request.headers.getall("prefer", []))


async def searchable(request: Request[Any, Any, Any], caller: Caller, freshness: Freshness, xid: str) -> dict[str, str]:
    """Wait, if the request prefers that, until its write is searchable; the headers that tell."""
    prefer = preferences_of(request)._replace(strict=False)
    if prefer.wait is None:
        return {}
    reached = await freshness.reached(Mark(caller.environment_id, xid), prefer.wait)
    return {"Index-State": "searchable" if reached else "pending", "Preference-Applied": prefer.applied()}


async def read(
    request: Request[Any, Any, Any], caller: Caller, freshness: Freshness, search: Callable[[], Awaitable[Result]]
) -> tuple[Result, dict[str, str]]:
    """Read the index once it holds the write the request names, and tell how current it is.

    Args:
        request: may have a `Consistency-Token`, and prefer to wait for it so long, or to be refused.
        caller: whose environment is read.
        freshness: knows what is in the index.
        search: the reading; begun only then.

    Raises:
        Problem: 400 for a token that is none; 503 if the write is not in the index and the request is strict.
    """
    headers = await _await_token(request, caller, freshness)
    lag, result = await asyncio.gather(freshness.lag_ms(caller.environment_id), search())
    return result, headers | {"Index-Lag-Ms": str(lag)}


def mark_of(request: Request[Any, Any, Any], caller: Caller) -> Mark | None:
    """The write that the request's `Consistency-Token` names.

    Raises:
        Problem: 400 for a token that is none.
    """
    if (given := request.headers.get(TOKEN)) is None:
        return None
    try:
        return Mark(caller.environment_id, xid_of(given))
    except ValueError as error:
        raise invalid(Fault(TOKEN, str(error))) from None


async def _await_token(request: Request[Any, Any, Any], caller: Caller, freshness: Freshness) -> dict[str, str]:
    mark = mark_of(request, caller)
    if mark is None:
        return {}
    prefer = preferences_of(request)
    headers = {"Preference-Applied": prefer.applied()} if prefer.applied() else {}
    if await freshness.reached(mark, DEFAULT_WAIT if prefer.wait is None else prefer.wait):
        return headers
    if prefer.strict:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Search unavailable",
            message="The index does not hold the write of this Consistency-Token yet",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)} | headers,
        )
    return headers | {"Index-Stale": "true"}
