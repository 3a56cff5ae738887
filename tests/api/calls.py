"""What the tests of the write path say over HTTP, and how they look at what is stored."""

from typing import Any

import httpx
import sqlalchemy as sa

from tests.service import Account, Database

TABLES = ("consumers", "orders", "audiences", "audience_members", "idempotency_keys", "outbox")


def create(client: httpx.Client, path: str = "/consumers", **fields: Any) -> dict[str, Any]:
    answer = client.post(path, json=fields)
    assert answer.status_code == 201, answer.text
    content: dict[str, Any] = answer.json()
    return content


def faults(answer: httpx.Response, status: int = 400) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    return {fault["field"]: fault["message"] for fault in answer.json()["details"]}


def join(client: httpx.Client, consumer: str, name: str = "Friends") -> str:
    """Put a consumer into a new audience, and give the audience's id."""
    audience = str(create(client, "/audiences", name=name, type="STATIC")["id"])
    client.post(f"/audiences/{audience}/members", json={"consumerIds": [consumer]}).raise_for_status()
    return audience


def stored(database: Database, environment_id: int, *tables: str) -> dict[str, list[str]]:
    """The rows of an environment, as text. Without names: of every table whose rows stay as they are."""
    names = tables or tuple(name for name in TABLES if name != "outbox")
    with database.engine.connect() as connection:
        return {
            name: sorted(
                connection.execute(
                    sa.text(f"SELECT t::text FROM {name} t WHERE environment_id = :id"), {"id": environment_id}
                ).scalars()
            )
            for name in names
        }


def count(account: Account, table: str = "consumers") -> int:
    """How many rows the live environment has."""
    return len(stored(account.database, account.live_environment, table)[table])
