"""`consumers doctor`: faults of the deployment, each with its correction."""

import json

import pytest

from tests.cli import ConsumersCommand, consumers_command
from tests.indexer.proxy import Proxy
from tests.service import Database


@pytest.fixture
def consumers(quiet: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ConsumersCommand:
    return consumers_command(quiet, monkeypatch, capsys)


def test_doctor_finds_nothing_in_a_healthy_deployment(consumers: ConsumersCommand) -> None:
    result = consumers("doctor", "--json")
    checks = json.loads(result.out)
    assert [check for check in checks if not check["ok"]] == []
    assert result.code == 0
    assert "nodes.unreachable_addresses" in [check["check"] for check in checks]


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


def test_doctor_refuses_an_unknown_check(consumers: ConsumersCommand) -> None:
    assert consumers("doctor", "--only", "weather").code == 2
