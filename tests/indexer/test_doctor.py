"""`consumers doctor`: faults of the deployment, each with its correction."""

import json

import pytest
import redis
import sqlalchemy as sa
from sqlalchemy import make_url

from indexer.floors import Floors
from infra.doctor import floors as doctor_floors
from tests.cli import ConsumersCommand, consumers_command
from tests.indexer.proxy import Proxy
from tests.service import Database


@pytest.fixture
def consumers(quiet: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ConsumersCommand:
    return consumers_command(quiet, monkeypatch, capsys)


NOT_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
"""Settings of the servers of tests: a crash of the machine may lose their data."""


def test_doctor_finds_what_is_wrong_with_the_servers_of_tests_only(consumers: ConsumersCommand) -> None:
    """The role is that of `make up`, which owns the tables: a warning."""
    result = consumers("doctor", "--json")
    checks = json.loads(result.out)
    findings = {check["check"]: check["findings"] for check in checks}
    faults = [check["check"] for check in checks if not check["ok"]]
    assert faults == ["postgresql.settings"]
    assert [finding["problem"].split()[0] for finding in findings.pop("postgresql.settings")] == list(NOT_DURABLE)
    [warning] = findings.pop("roles.rights")
    assert warning["isWarning"]
    assert [finding for each in findings.values() for finding in each] == []
    assert result.code == 1
    assert {"nodes.unreachable_addresses", "clocks.agree", "encryption.certificates"} <= findings.keys()


def test_warning_leaves_the_exit_status_0(consumers: ConsumersCommand) -> None:
    result = consumers("doctor", "--only", "roles.rights")
    assert (result.code, result.out.splitlines()[0]) == (0, "warn   roles.rights")
    assert "is a superuser" in result.out


def test_doctor_finds_settings_of_redis_and_opensearch(consumers: ConsumersCommand, quiet: Database) -> None:
    enable = "cluster.routing.allocation.enable"
    index = f"{quiet.settings.index_prefix}-000001"
    with redis.Redis.from_url(quiet.settings.redis_url) as server:
        server.config_set("maxmemory-policy", "allkeys-lru")
        quiet.search.cluster.put_settings(body={"transient": {enable: "primaries"}})
        quiet.search.indices.close(index=index)
        try:
            policy, settings, blocks = (
                problems(consumers, check) for check in ("redis_policy", "cluster.settings", "cluster.blocks")
            )
        finally:
            server.config_set("maxmemory-policy", "noeviction")
            quiet.search.cluster.put_settings(body={"transient": {enable: None}})
            quiet.search.indices.open(index=index)
    assert len(policy) == len(settings) == 1
    assert "allkeys-lru" in policy[0]
    assert f"{enable} is primaries" in settings[0]
    assert blocks == [f"The index {index} is closed"]


def test_doctor_finds_a_role_without_rights(
    consumers: ConsumersCommand, quiet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"doctor_{quiet.engine.url.database}"
    url = make_url(quiet.settings.database_url).set(username=role, password="p")
    with quiet.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        [problem] = problems(consumers, "roles.rights")
    finally:
        with quiet.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {role}")
    assert problem.startswith(f"The role {role} lacks rights on ")


def test_doctor_names_each_unreachable_server_without_password(
    consumers: ConsumersCommand, quiet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(quiet.settings.opensearch_url) as away:
        away.close()
        monkeypatch.setenv("OPENSEARCH_URL", f"{quiet.settings.opensearch_url},{away.address}")
        result = consumers("doctor", "--only", "nodes.unreachable")
    assert result.code == 1
    assert result.out.startswith("fault  nodes.unreachable_addresses")
    assert f"127.0.0.1:{away.port} does not answer" in result.out
    assert "correct OPENSEARCH_URL" in result.out
    assert "@" not in result.out


def test_doctor_finds_copies_without_a_node(consumers: ConsumersCommand, quiet: Database) -> None:
    name = f"{quiet.settings.index_prefix}-000001"
    replicas = {"index.auto_expand_replicas": False, "index.number_of_replicas": 1}
    quiet.search.indices.put_settings(index=name, body=replicas)
    [check] = json.loads(consumers("doctor", "--only", "nodes.copies", "--json").out)
    assert [finding["problem"] for finding in check["findings"]] == [
        f"1 of 2 shard copies of {name} are not assigned to a node (REPLICA_ADDED)"
    ]


def problems(consumers: ConsumersCommand, check: str) -> list[str]:
    [result] = json.loads(consumers("doctor", "--only", check, "--json").out)
    return [finding["problem"] for finding in result["findings"]]


def test_doctor_finds_the_schema_of_another_release(consumers: ConsumersCommand, quiet: Database) -> None:
    with quiet.engine.begin() as connection:
        current = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
    for revision, problem in (
        ("0013", "Migrations after 0013 are missing"),
        ("9999", "The database has migration 9999 of a later release"),
    ):
        with quiet.engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        assert problems(consumers, "releases.schema") == [problem]
    with quiet.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": current})
    assert problems(consumers, "releases.schema") == []


@pytest.mark.parametrize(("change", "is_fault"), [(-2, True), (-1, False), (0, False), (1, True)])
def test_doctor_finds_an_index_that_this_release_cannot_write(
    consumers: ConsumersCommand, quiet: Database, change: int, *, is_fault: bool
) -> None:
    with quiet.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE generations SET document_version = document_version + :change"), {"change": change}
        )
    assert bool(problems(consumers, "releases.document_version")) == is_fault


def test_doctor_finds_an_index_of_no_generation(consumers: ConsumersCommand, quiet: Database) -> None:
    name = f"{quiet.settings.index_prefix}-000007"
    quiet.search.indices.create(index=name)
    assert problems(consumers, "releases.unused") == [f"{name} belongs to no generation of this database"]


def test_doctor_finds_another_number_of_shards(
    consumers: ConsumersCommand, quiet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problems(consumers, "shards.number") == []
    monkeypatch.setenv("INDEX_SHARDS", "5")
    name = f"{quiet.settings.index_prefix}-000001"
    assert problems(consumers, "shards.number") == [f"{name} has 1 shards, and INDEX_SHARDS is 5"]


def test_doctor_finds_a_floor_that_does_not_move(
    consumers: ConsumersCommand, quiet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_floors, "SECONDS", 0)
    assert problems(consumers, "floors") == []
    change = sa.text("DELETE FROM outbox WHERE false")
    with quiet.engine.connect() as writer:
        writer.execute(change)
        with quiet.engine.begin() as connection:
            connection.execute(sa.text("SELECT setval('outbox_seq_seq', 1000000)"))
        [live, bulk] = problems(consumers, "floors")
        pid = writer.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    for lane, problem in (("live", live), ("bulk", bulk)):
        assert problem.startswith(f"The floor of the lane {lane} is 1,000,001 numbers below its first waiting row")
        assert f"process {pid}" in problem
    [result] = json.loads(consumers("doctor", "--only", "floors", "--json").out)
    assert "Start beat" in result["findings"][0]["advice"]
    with quiet.engine.begin() as connection:
        floors = Floors()
        for _ in range(3):
            floors.move(connection)
    assert problems(consumers, "floors") == []


def test_doctor_refuses_an_unknown_check(consumers: ConsumersCommand) -> None:
    assert consumers("doctor", "--only", "weather").code == 2
