"""Create consumers, orders and audiences over HTTP, read the faults of a refused request, and count stored rows."""

from typing import Any

import httpx
import sqlalchemy as sa

from tests.service import Account, Database

TABLES = ("consumers", "orders", "audiences", "audience_members", "idempotency_keys", "outbox")


def create(client: httpx.Client, path: str = "/consumers", **fields: Any) -> dict[str, Any]:
    """Create a resource, by default a consumer, and return the response."""
    response = client.post(path, json=fields)
    assert response.status_code == 201, response.text
    content: dict[str, Any] = response.json()
    return content


def faults(response: httpx.Response, status: int = 400) -> dict[str, str]:
    """Assert the status of a refused request, and return the faults: message by field."""
    assert response.status_code == status, response.text
    return {fault["field"]: fault["message"] for fault in response.json()["details"]}


def fault_fields(response: httpx.Response) -> list[str]:
    """Assert status 400, and return the field of each fault in the order of the response, duplicates included."""
    assert response.status_code == 400, response.text
    return [fault["field"] for fault in response.json()["details"]]


def add_to_new_audience(client: httpx.Client, consumer: str, name: str = "Friends") -> str:
    """Create a STATIC audience with one consumer, and return the audience's id."""
    audience = str(create(client, "/audiences", name=name, type="STATIC")["id"])
    client.post(f"/audiences/{audience}/members", json={"consumerIds": [consumer]}).raise_for_status()
    return audience


def stored_rows(database: Database, environment_id: int, *tables: str) -> dict[str, list[str]]:
    """Read the rows of an environment as text, by table; without names, of every table but the outbox."""
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


def stored_version(account: Account, consumer: str) -> int:
    """Read the version of a consumer, which clients see only as a sealed ETag."""
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT version FROM consumers WHERE id = :id")
        return int(connection.execute(query, {"id": consumer}).scalar_one())


def count_rows(account: Account, table: str = "consumers", environment: int | None = None) -> int:
    """Count the rows of a table in an environment, the live environment by default."""
    with account.database.engine.connect() as connection:
        query = sa.text(f"SELECT count(*) FROM {table} WHERE environment_id = :id")
        return int(connection.execute(query, {"id": environment or account.live_environment}).scalar_one())
