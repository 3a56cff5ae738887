"""Audiences over HTTP, as a client sends and reads them."""

from collections.abc import Sequence
from typing import Any

import httpx
import sqlalchemy as sa

from tests.service import Account

RULE = {"field": "email", "operator": "EXISTS", "values": []}


def audience(account: Account, audience_type: str = "STATIC", name: str = "A", **fields: Any) -> dict[str, Any]:
    """A new audience; a dynamic one has a rule unless others are given."""
    rules = {"rules": [RULE]} if audience_type == "DYNAMIC" else {}
    answer = account.live.post("/audiences", json={"name": name, "type": audience_type} | rules | fields)
    assert answer.status_code == 201, answer.text
    content: dict[str, Any] = answer.json()
    return content


def members(account: Account, method: str, audience_id: str, ids: Sequence[Any]) -> httpx.Response:
    return account.live.request(method, f"/audiences/{audience_id}/members", json={"consumerIds": ids})


def stored_members(account: Account, audience_id: str) -> set[str]:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT consumer_id FROM audience_members WHERE audience_id = :id")
        return set(connection.execute(query, {"id": audience_id}).scalars())


def people(account: Account, number: int, environment: int | None = None) -> list[str]:
    """So many new consumers, in the live environment unless another is given."""
    query = sa.text("""
        INSERT INTO consumers (environment_id, full_name)
        SELECT :e, 'Person ' || n FROM generate_series(1, :number) AS n RETURNING id""")
    with account.database.engine.begin() as connection:
        values = {"e": environment or account.live_environment, "number": number}
        return sorted(connection.execute(query, values).scalars())


def audiences_of(account: Account, consumer_id: str) -> list[dict[str, str]]:
    answer = account.live.get(f"/consumers/{consumer_id}", params={"include": "audiences"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, str]] = answer.json()["audiences"]
    return found
