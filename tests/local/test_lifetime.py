"""Servers live as long as their parent, and come back while it lives. The tests of this file share starts."""

import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from infra.settings import ROOT
from tests.local.processes import processes_of
from tests.waiting import wait_until

Running = dict[str, dict[str, Any]]


@contextmanager
def start(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.local.parent", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()


def running(parent: subprocess.Popen[str]) -> Running:
    assert parent.stdout
    line = parent.stdout.readline()
    assert line, parent.stderr and parent.stderr.read()
    said: Running = json.loads(line)
    return said


def end(parent: subprocess.Popen[str], number: int) -> tuple[str, str]:
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
def servers_of_parent(parent: subprocess.Popen[str]) -> Running:
    return running(parent)


def index_exists(address: str) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return json.load(urllib.request.urlopen(f"{address}/kept/_count", timeout=2)) is not None
    return False


def test_killed_server_is_started_again_with_the_same_data(servers_of_parent: Running) -> None:
    database, queue, index = servers_of_parent["addresses"].values()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    urllib.request.urlopen(urllib.request.Request(f"{index}/kept", method="PUT"))

    for pid in servers_of_parent["pids"].values():
        os.kill(pid, signal.SIGKILL)

    def kept() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(database) as connection:
            return connection.execute("SELECT value FROM kept").fetchone() == (42,)
        return False

    def responses() -> bool:
        with suppress(redis.ConnectionError), redis.Redis.from_url(queue, retry=None) as client:
            return bool(client.ping())
        return False

    wait_until(kept, what="PostgreSQL's data")
    wait_until(responses, what="Valkey")
    wait_until(lambda: index_exists(index), timeout=90, what="OpenSearch's data")


def test_second_start_on_the_folder_says_that_it_runs(
    parent: subprocess.Popen[str], servers_of_parent: Running, folder: Path
) -> None:
    assert servers_of_parent
    with start(folder) as second:
        output, error = second.communicate(timeout=60)
    assert (second.returncode, output) == (1, "")
    assert error == (
        f"the service already runs on {folder}: process {parent.pid}, an address; "
        "stop it, or set LOCAL_DIR to another folder\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_no_process_outlives_a_killed_parent_and_the_next_start_has_the_data(
    parent: subprocess.Popen[str], servers_of_parent: Running, folder: Path
) -> None:
    assert servers_of_parent
    assert len(processes_of(folder)) > 3
    parent.kill()  # and not waited for: the next start must not be misled by the remains
    with start(folder) as after:
        said = running(after)
        assert not set(said["pids"].values()) & set(servers_of_parent["pids"].values())
        with psycopg.connect(said["addresses"]["database_url"]) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        assert index_exists(said["addresses"]["opensearch_url"])
    wait_until(lambda: not processes_of(folder), what="the end of all processes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_starting_stops_what_was_started(folder: Path, number: signal.Signals) -> None:
    log = folder / "log" / "opensearch.log"
    with start(folder) as parent:
        wait_until(lambda: processes_of(log), what="OpenSearch")
        output, error = end(parent, number)
    assert (parent.returncode, output, error) == (0, "Stopped.\n", "")
    assert not processes_of(folder)


def test_a_signal_stops_all_in_order_and_leaves_no_address(folder: Path) -> None:
    with start(folder) as parent:
        running(parent)
        assert (folder / "servers.json").exists()
        output, error = end(parent, signal.SIGTERM)
    assert (parent.returncode, output, error) == (0, "Stopped.\n", "")
    assert not processes_of(folder)
    assert not (folder / "servers.json").exists()
    logs = [folder / "log" / f"{name}.log" for name in ("opensearch", "valkey", "postgresql")]
    assert sorted(logs, key=lambda log: log.stat().st_mtime_ns) == logs
    assert logs[-1].read_text().endswith("database system is shut down\n")
