"""`consumers org …` and `consumers key …` on a real database."""

import hashlib
import io
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


def rows(database: Database, query: str, **values: object) -> list[dict[str, Any]]:
    with database.engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(query), values).mappings()]


def test_new_organization_has_both_environments(consumers: ConsumersCommand, database: Database) -> None:
    result = consumers("org", "create", "Zoë’s shop", "--currency", "GBP", "--region", "GB", "--json")
    created = json.loads(result.out)
    assert result.code == 0
    assert (created["name"], created["currency"], created["region"]) == ("Zoë’s shop", "GBP", "GB")
    query = "SELECT mode FROM environments WHERE organization_id = :id ORDER BY mode"
    assert rows(database, query, id=created["id"]) == [{"mode": "live"}, {"mode": "test"}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["org", "create", "twin"], "there is an organization 'twin' already"),
        (["org", "create", "a", "--currency", "QQQ"], "ISO 4217"),
        (["org", "create", "a", "--currency", "gbp"], "ISO 4217"),
        (["org", "create", "a", "--region", "QQ"], "'QQ'"),
        (["org", "create", " "], "printable"),
        (["org", "create", "a\nb"], "printable"),
        (["org", "create", "a\udcff"], "printable"),
        (["org", "create", "a" * 256], "1 to 255"),
        (["org", "limits", "nobody", "--reads", "1"], "no organization 'nobody'"),
        (["org", "attributes", "nobody", "metadata.tier:text"], "no organization 'nobody'"),
        (["org", "attributes", "twin", "metadata.tier"], "metadata.KEY:TYPE"),
        (["key", "create", "nobody", "--mode", "live"], "no organization 'nobody'"),
        (["key", "create", "twin", "--mode", "live", "--scopes", "read:all"], "unknown scopes: read:all"),
        (["key", "create", "twin", "--mode", "live", "--scopes", ","], "needs a scope"),
        (["key", "create", "twin", "--mode", "live", "--expires", "2020-01-01"], "in the past"),
        (["key", "list", "nobody"], "no organization 'nobody'"),
        (["key", "revoke", "key_0"], "no key 'key_0'"),
        (["key", "revoke", "\udcff"], "not UTF-8"),
        (["key", "rotate", "key_0"], "no key 'key_0'"),
    ],
)
def test_refused_command_prints_one_line(consumers: ConsumersCommand, arguments: list[str], problem: str) -> None:
    consumers("org", "create", "twin")
    result = consumers(*arguments)
    assert (result.code, result.out) == (1, "")
    assert problem in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["org", "limits", "a", "--reads", "-1"],
        ["org", "limits", "a", "--reads", "2147483648"],
        ["key", "create", "a", "--mode", "staging"],
        ["key", "create", "a", "--mode", "live", "--expires", "soon"],
        ["key", "create", "a"],
    ],
)
def test_invalid_options_are_refused_with_exit_code_2(consumers: ConsumersCommand, arguments: list[str]) -> None:
    assert consumers(*arguments).code == 2


def test_omitted_limits_are_kept(consumers: ConsumersCommand, org: str) -> None:
    consumers("org", "limits", org, "--reads", "5", "--batch", "7")
    changed = json.loads(consumers("org", "limits", org, "--reads", "0", "--json").out)
    assert [changed[name] for name in ("limitReads", "limitWrites", "limitBatch")] == [0, None, 7]
    assert changed == json.loads(consumers("org", "limits", org, "--json").out)


def test_organizations_are_listed_by_name(consumers: ConsumersCommand, org: str) -> None:
    names = [organization["name"] for organization in json.loads(consumers("org", "list", "--json").out)]
    assert names == sorted(names)
    assert org in consumers("org", "list").out


def test_secret_is_shown_once_and_only_its_hash_is_stored(
    consumers: ConsumersCommand, database: Database, org: str
) -> None:
    created = json.loads(consumers("key", "create", org, "--mode", "test", "--name", "ci", "--json").out)
    secret = created.pop("key")
    assert secret.startswith("sk_test_")
    assert created == {
        "id": created["id"],
        "organization": org,
        "mode": "test",
        "name": "ci",
        "scopes": list(SCOPES),
        "expiresAt": None,
    }
    (row,) = rows(database, "SELECT * FROM api_keys WHERE id = :id", id=created["id"])
    assert (row["secret_hash"], row["hint"]) == (hashlib.sha256(secret.encode()).digest(), secret[:12])
    assert secret not in consumers("key", "list", org, "--json").out
    assert secret[:12] in consumers("key", "list", org).out


def test_standard_output_has_only_the_key(consumers: ConsumersCommand, org: str) -> None:
    result = consumers("key", "create", org, "--mode", "live")
    assert result.out.startswith("sk_live_")
    assert result.out.count("\n") == 1
    assert "not shown again" in result.err


def test_key_has_the_requested_scopes_and_expiry(consumers: ConsumersCommand, org: str) -> None:
    options = ("--scopes", "write:orders, read:orders,write:orders", "--expires", "2999-01-01T01:00:00+01:00")
    created = json.loads(consumers("key", "create", org, "--mode", "live", *options, "--json").out)
    assert created["scopes"] == ["read:orders", "write:orders"]
    assert created["expiresAt"] == "2999-01-01T00:00:00.000Z"


def test_revoked_key_keeps_its_first_revocation_time(consumers: ConsumersCommand, org: str) -> None:
    key_id = json.loads(consumers("key", "create", org, "--mode", "live", "--json").out)["id"]
    first = json.loads(consumers("key", "revoke", key_id, "--json").out)
    again = json.loads(consumers("key", "revoke", key_id, "--json").out)
    assert first["revokedAt"]
    assert first == again


def test_rotated_key_has_the_same_scopes_name_and_expiry(consumers: ConsumersCommand, org: str) -> None:
    options = ("--scopes", ",".join(SCOPES), "--name", "app", "--expires", "2999-01-01")
    old = json.loads(consumers("key", "create", org, "--mode", "test", *options, "--json").out)
    new = json.loads(consumers("key", "rotate", old["id"], "--json").out)
    assert (new["id"], new["key"]) != (old["id"], old["key"])
    assert new | {"id": old["id"], "key": old["key"]} == old
    listed = json.loads(consumers("key", "list", org, "--json").out)
    assert [bool(key["revokedAt"]) for key in listed] == [True, False]
    result = consumers("key", "rotate", old["id"])
    assert (result.code, result.err.count("\n")) == (1, 1)


def test_rotated_key_stays_valid_for_the_overlap(consumers: ConsumersCommand, org: str) -> None:
    for expires, overlap, is_shortened in ((None, "24h", True), ("2999-01-01", "7d", True)):
        options = () if expires is None else ("--expires", expires)
        old = json.loads(consumers("key", "create", org, "--mode", "test", *options, "--json").out)
        new = json.loads(consumers("key", "rotate", old["id"], "--overlap", overlap, "--json").out)
        keys = {key["id"]: key for key in json.loads(consumers("key", "list", org, "--json").out)}
        assert keys[old["id"]]["revokedAt"] is None
        assert (keys[old["id"]]["expiresAt"] < "2999") == is_shortened
        assert keys[new["id"]]["expiresAt"] == old["expiresAt"]
    assert consumers("key", "rotate", new["id"], "--overlap", "tomorrow").code == 2


@pytest.mark.parametrize(
    ("address", "problem"),
    [("postgresql://nobody@127.0.0.1:1/none", "cannot be used"), ("postgres", "consumers migrate")],
)
def test_unusable_database_is_reported_in_one_line(
    consumers: ConsumersCommand, database: Database, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    if "://" not in address:
        url = sa.make_url(database.settings.database_url).set(database=address)
        address = url.render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL", address)
    result = consumers("org", "list")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert problem in result.err


@pytest.mark.parametrize(
    ("typed", "options"), [("another\n", []), ("\n", []), ("", []), ("{org}\n", ["--yes", "another"])]
)
def test_deletion_is_confirmed_by_the_name(
    consumers: ConsumersCommand, org: str, monkeypatch: pytest.MonkeyPatch, typed: str, options: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed.format(org=org)))
    result = consumers("org", "delete", org, *options)
    assert (result.code, result.out) == (1, "")
    [listed] = [each for each in json.loads(consumers("org", "list", "--json").out) if each["name"] == org]
    assert listed["deletedAt"] is None


def test_organization_being_deleted_is_listed_and_refused(
    consumers: ConsumersCommand, org: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No indexer runs here, so the deletion does not end."""
    key = json.loads(consumers("key", "create", org, "--mode", "live", "--json").out)["id"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{org}\n"))
    result = consumers("org", "delete", org)
    assert (result.code, f"Deleting {org}" in result.out) == (0, True)
    assert "cannot be undone" in result.err
    [line] = [line for line in consumers("org", "list").out.splitlines() if org in line]
    assert line.split()[-1] == "deleting"
    assert rows(database, "SELECT revoked_at IS NOT NULL AS revoked FROM api_keys WHERE id = :id", id=key) == [
        {"revoked": True}
    ]
    for arguments in (
        ["org", "delete", org, "--yes", org],
        ["org", "create", org],
        ["org", "limits", org, "--reads", "1"],
        ["key", "create", org, "--mode", "live"],
    ):
        refused = consumers(*arguments)
        assert (refused.code, refused.out) == (1, "")
        assert "is being deleted" in refused.err


def test_attributes_are_replaced_shown_and_removed(consumers: ConsumersCommand, org: str) -> None:
    declared = consumers("org", "attributes", org, "metadata.address.city:text", "metadata.points:number")
    assert declared.code == 0
    assert "attr_address_city" in declared.out
    shown = consumers("org", "attributes", org, "--json")
    assert json.loads(shown.out) == [{"path": "address.city", "type": "text"}, {"path": "points", "type": "number"}]
    assert json.loads(consumers("org", "attributes", org, "metadata.vip:boolean", "--json").out)[0]["path"] == "vip"
    assert json.loads(consumers("org", "attributes", org, "--none", "--json").out) == []
    assert consumers("org", "attributes", org, "metadata.vip:boolean", "--none").code == 2
