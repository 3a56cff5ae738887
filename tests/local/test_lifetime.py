"""Servers end with their parent, and are restarted while the parent lives. Tests of this file share a start."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis

from infra.settings import ROOT
from tests.local.processes import processes_of
from tests.waiting import wait_until

Servers = dict[str, dict[str, Any]]


@contextmanager
def start(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.local.parent", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()


def read_servers(parent: subprocess.Popen[str]) -> Servers:
    assert parent.stdout
    line = parent.stdout.readline()
    assert line, parent.stderr and parent.stderr.read()
    addresses_and_pids: Servers = json.loads(line)
    return addresses_and_pids


def stop(parent: subprocess.Popen[str], number: int) -> tuple[str, str]:
    parent.send_signal(number)
    return parent.communicate(timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lifetime")


@pytest.fixture(scope="module")
def parent(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with start(folder) as started:
        yield started


@pytest.fixture(scope="module")
def servers_of_parent(parent: subprocess.Popen[str]) -> Servers:
    return read_servers(parent)


def index_exists(address: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{address}/kept/_count", timeout=2).is_success
    return False


def test_killed_server_is_restarted_with_its_data(servers_of_parent: Servers) -> None:
    database, queue, index = servers_of_parent["addresses"].values()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    httpx.put(f"{index}/kept").raise_for_status()

    for pid in servers_of_parent["pids"].values():
        os.kill(pid, signal.SIGKILL)

    def has_data() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(database) as connection:
            return connection.execute("SELECT value FROM kept").fetchone() == (42,)
        return False

    def is_ready() -> bool:
        with suppress(redis.ConnectionError), redis.Redis.from_url(queue, retry=None) as client:
            return bool(client.ping())
        return False

    wait_until(has_data, what="PostgreSQL's data")
    wait_until(is_ready, what="Valkey")
    wait_until(lambda: index_exists(index), timeout=90, what="OpenSearch's data")


def test_second_start_on_a_folder_is_refused(
    parent: subprocess.Popen[str], servers_of_parent: Servers, folder: Path
) -> None:
    assert servers_of_parent
    with start(folder) as second:
        output, error = second.communicate(timeout=60)
    assert (second.returncode, output) == (1, "")
    assert error == (
        f"the service already runs on {folder}: process {parent.pid}, an address; "
        "stop it, or set LOCAL_DIR to another folder\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_servers_end_with_a_killed_parent_and_keep_their_data(
    parent: subprocess.Popen[str], servers_of_parent: Servers, folder: Path
) -> None:
    assert servers_of_parent
    processes = set(processes_of(folder))
    assert len(processes) > 3
    parent.kill()  # without waiting, because the next start must cope with the remains
    with start(folder) as after:
        addresses_and_pids = read_servers(after)
        assert not processes & set(processes_of(folder))
        with psycopg.connect(addresses_and_pids["addresses"]["database_url"]) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        assert index_exists(addresses_and_pids["addresses"]["opensearch_url"])
        assert_stops_in_order(after, folder)


def assert_stops_in_order(parent: subprocess.Popen[str], folder: Path) -> None:
    """Assert that SIGTERM stops the servers in reverse order of their start, and removes the addresses."""
    assert (folder / "servers.json").exists()
    output, error = stop(parent, signal.SIGTERM)
    assert (parent.returncode, output, error) == (0, "Stopped.\n", "")
    assert not processes_of(folder)
    assert not (folder / "servers.json").exists()
    logs = [folder / "log" / f"{name}.log" for name in ("opensearch", "valkey", "postgresql")]
    assert sorted(logs, key=lambda log: log.stat().st_mtime_ns) == logs
    assert logs[-1].read_text().endswith("database system is shut down\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_start_stops_started_servers(folder: Path, number: signal.Signals) -> None:
    log = folder / "log" / "opensearch.log"
    with start(folder) as parent:
        wait_until(lambda: processes_of(log), what="OpenSearch")
        output, error = stop(parent, number)
    assert (parent.returncode, output, error) == (0, "Stopped.\n", "")
    assert not processes_of(folder)
