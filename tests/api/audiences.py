"""Create audiences, change their members, and insert consumers to put into them."""

from collections.abc import Sequence
from typing import Any

import httpx
import sqlalchemy as sa

from tests.api.resources import create
from tests.service import Account

RULE = {"field": "email", "operator": "EXISTS", "values": []}


def create_audience(account: Account, audience_type: str = "STATIC", name: str = "A", **fields: Any) -> dict[str, Any]:
    """Create an audience; a DYNAMIC audience gets `RULE` unless `fields` has rules."""
    rules = {"rules": [RULE]} if audience_type == "DYNAMIC" else {}
    return create(account.live, "/audiences", **({"name": name, "type": audience_type} | rules | fields))


def send_members(account: Account, method: str, audience_id: str, ids: Sequence[Any]) -> httpx.Response:
    """Add (POST), replace (PUT) or remove (DELETE) members."""
    return account.live.request(method, f"/audiences/{audience_id}/members", json={"consumerIds": ids})


def stored_members(account: Account, audience_id: str) -> set[str]:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT consumer_id FROM audience_members WHERE audience_id = :id")
        return set(connection.execute(query, {"id": audience_id}).scalars())


def insert_consumers(account: Account, number: int, environment: int | None = None) -> list[str]:
    """Insert `number` consumers into an environment, the live environment by default, and return their sorted ids."""
    query = sa.text("""
        INSERT INTO consumers (environment_id, full_name)
        SELECT :e, 'Person ' || n FROM generate_series(1, :number) AS n RETURNING id""")
    with account.database.engine.begin() as connection:
        values = {"e": environment or account.live_environment, "number": number}
        return sorted(connection.execute(query, values).scalars())


def included_audiences(account: Account, consumer_id: str) -> list[dict[str, str]]:
    """Read the audiences of a consumer with `include=audiences`."""
    response = account.live.get(f"/consumers/{consumer_id}", params={"include": "audiences"})
    assert response.status_code == 200, response.text
    audiences: list[dict[str, str]] = response.json()["audiences"]
    return audiences
