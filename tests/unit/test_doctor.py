"""The checks of `consumers doctor` on what the servers answer: each fault, and none without a fault."""

import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import sqlalchemy as sa
import trustme
from opensearchpy.exceptions import ConnectionTimeout, OpenSearchException

from infra import settings
from infra.doctor import checks, clocks, cluster, encryption, postgresql, redis_policy, roles, versions
from infra.doctor.checks import Finding, Servers

GIB = 1 << 30
FAULT, WARNING = False, True
ADDRESSES = {
    "DATABASE_URL": "postgresql://u:p@127.0.0.1/d",
    "REDIS_URL": "redis://localhost:6379/0",
    "OPENSEARCH_URL": "http://127.0.0.1:9200",
}


def kinds(findings: Iterable[Finding], text: str = "") -> list[bool]:
    """Whether each finding is a warning. Each names the problem by this text, and says what to do."""
    found = list(findings)
    assert all(text in finding.problem and finding.advice for finding in found), found
    return [finding.is_warning for finding in found]


def failing(error: Exception) -> checks.Check:
    def check(_: checks.Servers) -> Iterable[Finding]:
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "text", "advice"),
    [
        (OpenSearchException("N/A", "no"), "OpenSearch did not answer", "correct OPENSEARCH_URL"),
        (redis.ConnectionError("no"), "Redis did not answer", "correct REDIS_URL"),
        (
            sa.exc.OperationalError("", {}, psycopg.OperationalError("no")),
            "The database did not answer",
            "DATABASE_URL",
        ),
        (sa.exc.ProgrammingError("", {}, psycopg.errors.UndefinedTable("no")), "lacks a table", "`consumers migrate`"),
        (settings.SettingsError("REDIS_URL is invalid: use a server"), "REDIS_URL is invalid", "Use a server"),
        (FileNotFoundError(2, "No such file", "ca.pem"), "cannot be read (ca.pem)", "Correct the file"),
    ],
)
def test_check_without_an_answer_says_what_to_do(error: Exception, text: str, advice: str) -> None:
    [result] = checks.run([failing(error)], settings.load(ADDRESSES))
    [finding] = result.findings
    assert not result.ok
    assert text in finding.problem
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("search", ConnectionTimeout("TIMEOUT", "no", None)),
        ("redis", redis.TimeoutError("no")),
        ("engine", sa.exc.OperationalError("", {}, psycopg.OperationalError("no"))),
    ],
)
def test_server_without_an_answer_is_not_asked_again(name: str, error: Exception) -> None:
    """Otherwise each of many checks would wait for a server that hangs."""
    servers = checks.Servers(settings.load(ADDRESSES))
    assert getattr(servers, name)
    servers.note(psycopg.DataError("an answer"))
    assert getattr(servers, name)
    servers.note(error)
    with pytest.raises(type(error)):
        getattr(servers, name)
    assert [each for each in ("engine", "redis", "search") if each != name and getattr(servers, each)]
    servers.close()


@pytest.mark.parametrize(("major", "expected"), [(17, [FAULT]), (18, []), (19, [WARNING])])
def test_version_of_postgresql(major: int, expected: list[bool]) -> None:
    assert kinds(versions.of_postgresql(major), f"version {major}") == expected


@pytest.mark.parametrize(
    ("nodes", "text", "expected"),
    [
        ([("a", "3.8.0", True), ("b", "3.8.0", True)], "", []),
        ([("a", "3.12.1", True)], "", []),
        ([("a", "3.7.9", True)], "Node a has OpenSearch 3.7.9", [FAULT]),
        ([("a", "2.19.1", True)], "Node a has OpenSearch 2.19.1", [FAULT]),
        ([("a", "4.0.0", True)], "not tested", [WARNING]),
        ([("a", "3.8.0", True), ("b", "3.8.0", False)], "Node b lacks the plugin analysis-icu", [FAULT]),
        ([("a", "3.8.0", True), ("b", "3.9.0", True)], "different versions: 3.8.0, 3.9.0", [WARNING]),
    ],
)
def test_versions_of_opensearch(nodes: list[tuple[str, str, bool]], text: str, expected: list[bool]) -> None:
    answer = [
        {"name": name, "version": version, **({"plugins": [{"name": "analysis-icu"}]} if has_plugin else {})}
        for name, version, has_plugin in nodes
    ]
    assert kinds(versions.of_opensearch(answer), text) == expected


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, []),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.9"}, [WARNING]),
        ({"redis_version": "8.0.1"}, []),
        ({"redis_version": "6.2.14"}, [WARNING]),
    ],
)
def test_version_of_redis(info: dict[str, str], expected: list[bool]) -> None:
    assert kinds(versions.of_redis(info)) == expected


DATABASE = {"encoding": "UTF8", "provider": "b", "locale": "C.UTF-8", "version": "1", "actual_version": "1"}


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ({}, "", []),
        ({"encoding": "SQL_ASCII"}, "SQL_ASCII", [FAULT]),
        ({"actual_version": "2"}, "was 1 and is now 2", [FAULT]),
        ({"provider": "c", "locale": "en_US.utf8"}, "en_US.utf8", [WARNING]),
        ({"provider": "i", "locale": "en-US", "version": None, "actual_version": None}, "en-US", [WARNING]),
    ],
)
def test_encoding_and_collation(change: dict[str, Any], text: str, expected: list[bool]) -> None:
    assert kinds(postgresql.of_encoding(DATABASE | change), text) == expected


RIGHT = {setting.name: setting.values[0] for setting in postgresql.EXPECTED}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fsync", "off", [FAULT]),
        ("full_page_writes", "off", [FAULT]),
        ("synchronous_commit", "off", [FAULT]),
        ("synchronous_commit", "remote_apply", []),
        ("default_transaction_read_only", "on", [FAULT]),
        ("autovacuum", "off", [FAULT]),
        ("track_counts", "off", [FAULT]),
        ("track_activities", "off", [FAULT]),
        ("log_error_verbosity", "default", [WARNING]),
        ("log_min_error_statement", "error", [WARNING]),
        ("log_parameter_max_length", "-1", [WARNING]),
        ("log_parameter_max_length_on_error", "64", [WARNING]),
        ("log_statement", "ddl", []),
        ("log_statement", "all", [WARNING]),
        ("log_min_duration_statement", "1000", [WARNING]),
        ("log_min_duration_sample", "0", [WARNING]),
    ],
)
def test_settings_of_postgresql(name: str, value: str, expected: list[bool]) -> None:
    assert kinds(postgresql.of_settings(RIGHT)) == []
    assert kinds(postgresql.of_settings(RIGHT | {name: value}), f"{name} is {value}") == expected


@pytest.mark.parametrize(
    ("names", "commit", "states", "expected"),
    [
        ("", "on", [], []),
        ("", "on", [None, None], [WARNING]),
        ("", "on", ["async"], [WARNING]),
        ("ANY 1 (b, c)", "on", ["quorum", "async"], []),
        ("b", "on", ["sync"], []),
        ("b", "on", [None], []),
        ("b", "on", ["async"], [FAULT]),
        ("b", "on", [], [FAULT]),
        ("b", "local", ["sync"], [FAULT]),
        ("b", "off", ["sync"], [FAULT]),
    ],
)
def test_replication(names: str, commit: str, states: list[str | None], expected: list[bool]) -> None:
    assert kinds(postgresql.of_standbys(names, commit, states)) == expected


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        ({}, []),
        ({"is_active": False, "retained_gib": 9}, []),
        ({"is_active": False, "retained_gib": 10}, [FAULT]),
        ({"is_active": True, "retained_gib": 500}, []),
        ({"is_active": False, "retained_gib": None}, []),
        ({"is_lost": True, "retained_gib": None}, [FAULT]),
    ],
)
def test_replication_slots(slot: dict[str, Any], expected: list[bool]) -> None:
    row = {"name": "standby", "is_active": True, "is_lost": False, "retained_gib": 0} | slot
    assert kinds(postgresql.of_slots([row]), "slot standby") == expected


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ({}, "", []),
        ({"used": 160}, "160 of 197 connections", [FAULT]),
        ({"usable": 47}, "may use 52 connections", [FAULT]),
        ({"of_database": 40, "used": 1}, "limit of the database", [FAULT]),
        ({"of_role": 12}, "limit of the role", [FAULT]),
    ],
)
def test_limits_of_connections(change: dict[str, int], text: str, expected: list[bool]) -> None:
    row = {"usable": 197, "used": 10, "of_database": -1, "of_role": -1} | change
    assert kinds(postgresql.of_connections(row, api=14), text) == expected


ROLE = {"role": "plain", "lacking": None, "is_owner": False, "has_temporary": True, "is_superuser": False}


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ({}, "", []),
        ({"lacking": ["consumers"]}, "lacks rights on 1 tables or sequences (consumers)", [FAULT]),
        ({"lacking": ["a", "b", "c", "d"]}, "4 tables or sequences (a, b, c, …)", [FAULT]),
        ({"has_temporary": False}, "temporary tables", [FAULT]),
        ({"is_owner": True}, "owns the tables", [WARNING]),
        ({"is_owner": True, "is_superuser": True}, "is a superuser", [WARNING]),
    ],
)
def test_rights_of_the_role(change: dict[str, Any], text: str, expected: list[bool]) -> None:
    assert kinds(roles.of_rights(ROLE | change), text) == expected


@pytest.mark.parametrize(
    ("info", "text", "expected"),
    [
        ({"maxmemory_policy": "noeviction", "role": "master", "rdb_last_bgsave_status": "ok"}, "", []),
        ({"maxmemory_policy": "allkeys-lru"}, "allkeys-lru", [FAULT]),
        ({"role": "slave"}, "replica", [FAULT]),
        ({"maxmemory": 100 << 20, "used_memory": 95 << 20}, "95 of 100 MiB", [FAULT]),
        ({"maxmemory": 100 << 20, "used_memory": 50 << 20}, "", []),
        ({"maxmemory": 0, "used_memory": 50 << 20}, "", []),
        ({"rdb_last_bgsave_status": "err", "aof_enabled": 1}, "cannot write to its disk", [FAULT]),
        ({"aof_last_write_status": "err"}, "cannot write to its disk", [FAULT]),
        ({"aof_enabled": 1}, "appendonly", [WARNING]),
    ],
)
def test_policy_of_redis(info: dict[str, Any], text: str, expected: list[bool]) -> None:
    assert kinds(redis_policy.of_info(info), text) == expected


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        ({}, "", []),
        ({"cluster.blocks.read_only": "true"}, "cluster.blocks.read_only is true", [FAULT]),
        ({"cluster.blocks.create_index": "true"}, "cluster.blocks.create_index is true", [FAULT]),
        ({"cluster.routing.allocation.enable": "primaries"}, "is primaries", [FAULT]),
        ({"cluster.routing.rebalance.enable": "none"}, "is none", [FAULT]),
        ({"action.auto_create_index": "true"}, "action.auto_create_index is true", [FAULT]),
        ({"action.auto_create_index": "-shop*,+*"}, "action.auto_create_index is -shop*,+*", [FAULT]),
        ({"action.auto_create_index": "-consumers*,+*"}, "", []),
    ],
)
def test_settings_of_the_cluster(values: dict[str, str], text: str, expected: list[bool]) -> None:
    assert kinds(cluster.of_settings({"action.auto_create_index": "false"} | values, "consumers"), text) == expected


def test_closed_and_blocked_indices() -> None:
    blocks = {
        "shut": {"4": {"description": "index closed"}},
        "full": {"12": {"description": "disk usage exceeded flood-stage watermark"}},
    }
    full, shut = cluster.of_blocks(blocks)
    assert "shut is closed" in shut.problem
    assert "full refuses writes (disk usage exceeded flood-stage watermark)" in full.problem
    assert kinds(cluster.of_blocks({})) == []


AWARENESS = "cluster.routing.allocation.awareness.attributes"


@pytest.mark.parametrize(
    ("zones", "values", "text", "expected"),
    [
        ([None, None], {}, "", []),
        (["a", "a"], {}, "", []),
        (["a", "b", "c"], {}, "3 zones (node.attr.zone)", [FAULT]),
        (["a", "b", "c"], {AWARENESS: "zone"}, "", []),
        (["a", "b", None], {AWARENESS: ["zone"]}, "1 of 3 data nodes lack node.attr.zone", [FAULT]),
    ],
)
def test_awareness_of_zones(zones: list[str | None], values: dict[str, Any], text: str, expected: list[bool]) -> None:
    nodes = [{"roles": ["data"], "attributes": {"zone": zone} if zone else {}} for zone in zones]
    assert kinds(cluster.of_awareness(nodes, values), text) == expected


@pytest.mark.parametrize(
    ("watermark", "total", "free"),
    [
        ("85%", 1000, 150),
        ("0.85", 1000, 150),
        ("1gb", 50 * GIB, GIB),
        ("500mb", GIB, 500 << 20),
        ("90.5%", 1000, 95),
        ("100GB", 500 * GIB, 100 * GIB),
        ("2g", 50 * GIB, 2 * GIB),
        ("1024B", GIB, 1024),
        ("85 %", 1000, 150),
    ],
)
def test_free_bytes_of_a_watermark(watermark: str, total: int, free: int) -> None:
    assert cluster.free_at(watermark, total) == free


@pytest.mark.parametrize(
    ("free", "shards", "roles_of_node", "expected"),
    [
        (50, 20, ["data"], []),
        (14, 0, ["data"], [FAULT]),
        (14, 0, ["cluster_manager"], []),
        (38, 20, ["data"], [WARNING]),
        (40, 20, ["data"], []),
    ],
)
def test_room_on_the_disks(free: int, shards: int, roles_of_node: list[str], expected: list[bool]) -> None:
    disk = {"total_in_bytes": 100 * GIB, "available_in_bytes": free * GIB}
    nodes = [{"name": "one", "roles": roles_of_node, "fs": {"total": disk}}]
    assert kinds(cluster.of_disks(nodes, {"one": shards * GIB}, "85%"), "Node one has") == expected


@pytest.mark.parametrize(
    ("then", "expected"), [(999.0, []), (1000.5, []), (1005.9, []), (1006.5, [WARNING]), (994.0, [WARNING])]
)
def test_clocks(then: float, expected: list[bool]) -> None:
    assert kinds(clocks.of_clock("Redis", then, 1000.0, 1001.0), "The clock of Redis is") == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "postgresql://u:p@db.example.com/d", ["db.example.com"]),
        ("DATABASE_URL", "postgresql://u:p@db.example.com/d?sslmode=require", ["db.example.com"]),
        ("DATABASE_URL", "postgresql://u:p@db.example.com/d?sslmode=verify-full&sslrootcert=system", []),
        ("DATABASE_URL", "postgresql://u:p@one,127.0.0.2/d", ["one"]),
        ("DATABASE_URL", "postgresql:///d?host=/run/postgresql", []),
        ("DATABASE_SESSION_URL", "postgresql://u:p@db.example.com/d", ["db.example.com"]),
        ("REDIS_URL", "redis://10.0.0.5", ["10.0.0.5"]),
        ("REDIS_URL", "rediss://10.0.0.5", []),
        ("REDIS_URL", "redis+sentinel://10.0.0.5,10.0.0.6/main", ["10.0.0.5", "10.0.0.6"]),
        ("OPENSEARCH_URL", "http://[::1]:9200,http://two:9200,https://three:9200", ["two"]),
    ],
)
def test_connections_without_tls(name: str, value: str, expected: list[str]) -> None:
    chosen = settings.load(ADDRESSES | {name: value})
    findings = list(encryption.of_addresses(encryption.addresses(chosen)))
    assert kinds(findings, f"{name}: ") == [WARNING] * len(expected)
    assert [finding.problem.split()[4] for finding in findings] == expected
    assert "u:p" not in str(findings)


def test_variables_of_libpq_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", "system")
    chosen = settings.load(ADDRESSES | {"DATABASE_URL": "postgresql://u:p@db.example.com/d"})
    assert kinds(encryption.of_addresses(encryption.addresses(chosen))) == []


@pytest.mark.parametrize(("days", "expected"), [(90, []), (21, []), (20, [FAULT]), (0, [FAULT]), (-3, [FAULT])])
def test_certificates_that_end_soon(days: int, expected: list[bool]) -> None:
    address = encryption.Address("REDIS_URL", "redis.example.com", 6379, None)
    seconds = days * encryption.DAY_SECONDS + 60
    assert kinds(encryption.of_certificate(address, seconds), f"redis.example.com ends in {days} days") == expected


def test_client_certificates_are_used_for_every_server(tmp_path: Path) -> None:
    """A wrong file is named; a right file is loaded with its key."""
    authority = trustme.CA()
    certificate = authority.issue_cert("client.example.com")
    file = tmp_path / "client.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(file)
    chosen = settings.load(
        ADDRESSES
        | {
            "OPENSEARCH_URL": "https://search.example.com",
            "OPENSEARCH_CERTIFICATE": str(file),
            "REDIS_URL": f"rediss://redis.example.com?ssl_certfile={file}",
            "DATABASE_URL": f"postgresql://db.example.com/d?sslmode=verify-full&sslrootcert=system&sslcert={file}&sslkey={file}",
        }
    )
    assert [address.context is not None for address in encryption.addresses(chosen)] == [True, True, True]


@pytest.mark.parametrize("root", ["", "&sslrootcert={}/.postgresql/root.crt"], ids=["home folder", "address"])
def test_certificates_of_the_home_folder_are_those_of_libpq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"postgresql://db.example.com/d?sslmode=verify-full{root.format(tmp_path)}"
    chosen = settings.load(ADDRESSES | {"DATABASE_URL": url})
    [result] = checks.run([encryption.encrypted], chosen)
    assert f"{tmp_path}/.postgresql/root.crt" in result.findings[0].problem
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "root.crt")
    context = next(iter(encryption.addresses(chosen))).context
    assert context
    assert context.get_ca_certs(binary_form=True) == [ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())]
    (folder / "postgresql.crt").write_text("no certificate")
    [result] = checks.run([encryption.encrypted], chosen)
    assert not result.ok


def test_check_that_fails_by_itself_is_a_fault_and_stops_no_other() -> None:
    def broken(_: Servers) -> Iterator[Finding]:
        raise ZeroDivisionError("an answer that no check expects")

    def fine(_: Servers) -> Iterator[Finding]:
        yield from ()

    results = list(checks.run((broken, fine), settings.load(ADDRESSES)))
    assert [result.ok for result in results] == [False, True]
    assert "ZeroDivisionError" in results[0].findings[0].problem
