"""Every kind of write and of indexed read, and the consistency headers of their responses."""

import json
from functools import cache
from string import Template
from typing import Any, NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from api.consistency import encode_token
from api.freshness import TransactionId
from infra.database import epochs
from tests.api.resources import create
from tests.seals import stored_seal
from tests.service import Account

TOKEN = "Consistency-Token"
FUTURE = str(2**63 - 1)
"""A transaction that no database has reached."""

WRITES: dict[str, tuple[str, str, Any]] = {
    "consumer": ("POST", "/consumers", {"fullName": "New"}),
    "change": ("PUT", "/consumers/$consumer", {"fullName": "Changed"}),
    "delete": ("DELETE", "/consumers/$consumer", None),
    "batch": ("POST", "/consumers/batch", [{"fullName": "One"}, {"fullName": "Other"}]),
    "change of a batch": ("PUT", "/consumers/batch", [{"id": "$consumer", "fullName": "Changed"}]),
    "order": ("POST", "/orders", {"consumerId": "$consumer", "amount": 5}),
    "orders": ("POST", "/orders/batch", [{"consumerId": "$consumer", "amount": 5}]),
    "change of an order": ("PUT", "/orders/$order", {"amount": 7}),
    "delete of an order": ("DELETE", "/orders/$order", None),
    "audience": ("POST", "/audiences", {"name": "New", "type": "STATIC"}),
    "change of an audience": ("PUT", "/audiences/$audience", {"name": "Changed"}),
    "delete of an audience": ("DELETE", "/audiences/$audience", None),
    "members": ("POST", "/audiences/$audience/members", {"consumerIds": ["$consumer"]}),
    "other members": ("PUT", "/audiences/$audience/members", {"consumerIds": ["$consumer"]}),
    "fewer members": ("DELETE", "/audiences/$audience/members", {"consumerIds": ["$member"]}),
}
READS = {
    "list": ("/consumers", {}),
    "search": ("/consumers/search", {"q": "nobody"}),
    "members": ("/audiences/$everybody/members", {}),
    "count": ("/audiences/$everybody/count", {}),
}


class Resources(NamedTuple):
    """An account with a resource of each kind, and all kinds of writes."""

    account: Account
    ids: dict[str, str]

    def write(self, kind: str, **headers: str) -> httpx.Response:
        method, path, body = WRITES[kind]
        content = None if body is None else Template(json.dumps(body)).substitute(self.ids)
        response = self.account.live.request(
            method,
            Template(path).substitute(self.ids),
            content=content,
            headers={"Content-Type": "application/json"} | headers,
        )
        assert response.is_success, response.text
        return response


@pytest.fixture
def resources(account: Account) -> Resources:
    consumer, member = (str(create(account.live)["id"]) for _ in range(2))
    order = str(create(account.live, "/orders", consumerId=consumer, amount=1)["id"])
    audience = str(create(account.live, "/audiences", name="Old", type="SYNCED_LIST")["id"])
    account.live.post(f"/audiences/{audience}/members", json={"consumerIds": [member]}).raise_for_status()
    return Resources(account, {"consumer": consumer, "member": member, "order": order, "audience": audience})


@cache
def everyone_audience(client: httpx.Client) -> str:
    """Create a DYNAMIC audience of all consumers, once per client; DYNAMIC audiences are not stored in the index."""
    return str(create(client, "/audiences", name="Everybody", type="DYNAMIC", filter="createdAt:*")["id"])


def read_path(client: httpx.Client, kind: str) -> str:
    path, _ = READS[kind]
    return path.replace("$everybody", everyone_audience(client)) if "$" in path else path


def is_empty(response: httpx.Response) -> bool:
    """Return whether a page or a count has no consumers."""
    content = response.json()
    return not content["count"] if "count" in content else not content["data"]


def read(
    client: httpx.Client, token: str | None, prefer: str | None = None, kind: str = "list", **parameters: Any
) -> httpx.Response:
    """Read a page or a count with a consistency token."""
    _, defaults = READS[kind]
    headers = {name: value for name, value in ((TOKEN, token), ("Prefer", prefer)) if value is not None}
    return client.get(read_path(client, kind), params=defaults | parameters, headers=headers)


def current_ids(response: httpx.Response) -> list[str]:
    """Return the ids of a page, and assert that the page is not stale."""
    assert response.status_code == 200, response.text
    assert "Index-Stale" not in response.headers
    return [row["id"] for row in response.json()["data"]]


def is_stale(client: httpx.Client, token: str) -> bool:
    response = read(client, token, "wait=0")
    assert response.status_code == 200, response.text
    return "Index-Stale" in response.headers


def index_lag_ms(client: httpx.Client, kind: str = "list") -> int:
    return int(read(client, None, kind=kind).headers["Index-Lag-Ms"])


def run_sql(account: Account, statement: str, lane: str = "live", **values: Any) -> str:
    """Run a statement in its own transaction, and return the transaction's consistency token."""
    with account.database.engine.begin() as connection:
        connection.execute(sa.text("SELECT set_config('consumers.lane', :lane, true)"), {"lane": lane})
        connection.execute(sa.text(statement), {"e": account.live_environment} | values)
        xid = connection.execute(sa.text("SELECT pg_current_xact_id()::text")).scalar_one()
    return token_of(account, xid)


def token_of(account: Account, xid: str) -> str:
    """Return the consistency token of a transaction in the live environment, as the API makes it."""
    with account.database.engine.begin() as connection:
        epoch = epochs.check(connection)
    assert epoch
    seal = stored_seal(account.database.engine, account.live_environment)
    return encode_token(seal, TransactionId(xid, epoch.id, "0/1"))
