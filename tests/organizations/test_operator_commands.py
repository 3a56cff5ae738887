"""`consumers operator …`, and keys with the removed scope `admin`, on a real database."""

import hashlib
import json
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from infra.accounts.keys import SCOPES
from tests.cli import ConsumersCommand
from tests.service import Database


@pytest.fixture
def org(consumers: ConsumersCommand) -> str:
    name = f"org {uuid4()}"
    assert consumers("org", "create", name).code == 0
    return name


def key_with_admin(consumers: ConsumersCommand, database: Database, org: str, *others: str) -> Any:
    """Create a key as an earlier release did, with the scope `admin`."""
    created = json.loads(consumers("key", "create", org, "--mode", "live", "--json").out)
    with database.engine.begin() as connection:
        update = sa.text("UPDATE api_keys SET scopes = :scopes WHERE id = :id")
        connection.execute(update, {"id": created["id"], "scopes": [*others, "admin"]})
    return created


def test_operator_key_is_shown_once_and_stored_hashed(consumers: ConsumersCommand, database: Database) -> None:
    options = ("--name", "on call", "--expires", "2999-01-01T01:00:00+01:00", "--json")
    created = json.loads(consumers("operator", "create", *options).out)
    secret = created.pop("key")
    assert secret.startswith("op_")
    assert len(secret) > 40
    assert created == {"id": created["id"], "name": "on call", "expiresAt": "2999-01-01T00:00:00.000Z"}
    assert created["id"].startswith("opkey_")
    with database.engine.connect() as connection:
        select = sa.text("SELECT secret_hash, hint FROM operator_keys WHERE id = :id")
        row = connection.execute(select, {"id": created["id"]}).one()
    assert (row.secret_hash, row.hint) == (hashlib.sha256(secret.encode()).digest(), secret[:7])
    for output in ((), ("--json",)):
        listed = consumers("operator", "list", *output).out
        assert secret not in listed
        assert secret[:7] in listed


def test_operator_key_stands_alone_on_standard_output(consumers: ConsumersCommand) -> None:
    result = consumers("operator", "create")
    assert result.out.startswith("op_")
    assert result.out.count("\n") == 1
    assert "not shown again" in result.err


def test_revoked_operator_key_keeps_the_time_of_its_revocation(consumers: ConsumersCommand) -> None:
    key_id = json.loads(consumers("operator", "create", "--json").out)["id"]
    first = json.loads(consumers("operator", "revoke", key_id, "--json").out)
    assert first["revokedAt"]
    assert json.loads(consumers("operator", "revoke", key_id, "--json").out) == first
    assert consumers("operator", "revoke", key_id).out == f"Revoked {key_id} (default).\n"


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["revoke", "opkey_none"], 1, "`consumers operator list` lists them"),
        (["create", "--expires", "2020-01-01"], 1, "cannot expire in the past"),
        (["create", "--expires", "soon"], 2, "--expires"),
        (["create", "--name", " "], 1, "printable"),
    ],
)
def test_invalid_operator_command_is_refused(
    consumers: ConsumersCommand, arguments: list[str], code: int, problem: str
) -> None:
    result = consumers("operator", *arguments)
    assert result.code == code
    assert problem in result.err


def test_scope_admin_is_refused_and_names_the_command(consumers: ConsumersCommand, org: str) -> None:
    result = consumers("key", "create", org, "--mode", "live", "--scopes", "read:orders,admin")
    assert (result.code, result.out) == (1, "")
    assert "`consumers operator create`" in result.err


def test_list_shows_keys_with_the_scope_admin(consumers: ConsumersCommand, database: Database, org: str) -> None:
    assert "operator create" not in consumers("key", "list", org).err
    created = key_with_admin(consumers, database, org, "read:orders")
    result = consumers("key", "list", org)
    [line] = [line for line in result.out.splitlines() if created["id"] in line]
    assert line.endswith("read:orders,admin (removed)")
    assert "`consumers operator create`" in result.err
    assert json.loads(consumers("key", "list", org, "--json").out)[0]["scopes"] == ["read:orders", "admin"]


def test_rotation_leaves_the_scope_admin_out(consumers: ConsumersCommand, database: Database, org: str) -> None:
    created = key_with_admin(consumers, database, org, *SCOPES)
    rotated = json.loads(consumers("key", "rotate", created["id"], "--json").out)
    assert rotated["scopes"] == list(SCOPES)
    only_admin = key_with_admin(consumers, database, org)
    result = consumers("key", "rotate", only_admin["id"])
    assert result.code == 1
    assert "`consumers operator create`" in result.err
    [stored] = [key for key in json.loads(consumers("key", "list", org, "--json").out) if key["id"] == only_admin["id"]]
    assert stored["revokedAt"] is None


def test_migrating_again_keeps_keys_with_the_scope_admin(
    consumers: ConsumersCommand, database: Database, org: str
) -> None:
    key_with_admin(consumers, database, org, "read:orders")
    assert consumers("migrate").code == 0
    assert json.loads(consumers("key", "list", org, "--json").out)[0]["scopes"] == ["read:orders", "admin"]
