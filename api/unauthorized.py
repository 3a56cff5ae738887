"""The limit for requests without a valid key: so many a minute from a client's address, then 429 (contract.md §1).

Each random key with the form of a key costs a query. After the limit, a key that this process has not seen lately is
refused without a query. Keys in use are not affected: others may share the address.
"""

from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network

from api.auth import Keys, authenticate, secret_of
from api.errors import Problem
from api.limits import Limits, Window
from api.request import AnyRequest

IPV6_NETWORK = 64
"""Bits of an IPv6 address that name a client's network: a single client has all addresses of the network."""


async def authenticate_limited(request: AnyRequest) -> None:
    """Authenticate a request, as `authenticate`.

    Raises:
        Problem: 401; 429 after too many 401s.
    """
    limits: Limits = request.app.state.limits
    api_keys: Keys = request.app.state.api_keys
    address = client_address(request)
    exceeded = limits.exceeded_unauthorized(address)
    if exceeded and not api_keys.has_seen(secret_of(request)):
        raise _too_many(exceeded)
    try:
        await authenticate(request)
    except Problem as problem:
        if problem.status == HTTPStatus.UNAUTHORIZED:
            window = await limits.count_unauthorized(address)
            if window and window.exceeded:
                raise _too_many(window) from None
        raise


def client_address(request: AnyRequest) -> str:
    """Return the address of the client: of an IPv6 address the network; of a client behind a trusted proxy, the address
    in `X-Forwarded-For`.
    """
    return _network(request.client.host) if request.client else ""


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or ip_network((int(address), IPV6_NETWORK), strict=False))


def _too_many(window: Window) -> Problem:
    return window.problem(f"More than {window.limit} requests a minute without a valid key came from this address")
