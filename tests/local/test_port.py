"""Only one service on this machine may have the port of its API."""

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import ports
from infra.settings import ROOT
from tests.service import NO_STOP_DELAY
from tests.waiting import wait_until

NO_SERVERS = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "OPENSEARCH_URL": "http://127.0.0.1:9",
}


def status(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_second_start_on_a_port_is_refused_before_the_first_listens(tmp_path: Path) -> None:
    port = ports.pick()
    with ports.reserved(port) as is_ours:
        assert is_ours
        assert not ports.is_free(port)
        with ports.reserved(port) as again:
            assert not again
        environ = os.environ | {"LOCAL_DIR": str(tmp_path / "data"), "PORT": str(port)}
        command = [str(Path(sys.executable).with_name("consumers")), "up"]
        result = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"port {port} is in use: choose another" in result.stderr
    assert {path.name for path in tmp_path.glob("data/*")} <= {"lock", "lock.servers"}
    with ports.reserved(port) as is_ours:
        assert is_ours


def test_api_listens_on_the_reserved_ports() -> None:
    port, operations_port = ports.pick(), ports.pick()
    environ = os.environ | NO_SERVERS | NO_STOP_DELAY | {"PORT": str(port), "METRICS_PORT": str(operations_port)}
    with ports.reserved(port) as is_ours, ports.reserved(operations_port) as is_ours_too:
        assert is_ours
        assert is_ours_too
        for _ in range(2):  # once more after a restart, with connections of the first in TIME_WAIT
            api = subprocess.Popen([sys.executable, "-m", "api.server"], cwd=ROOT, env=environ)
            try:
                wait_until(lambda: status(port) == 200, what="the API")
                assert {status(each) for each in (port, operations_port) for _ in range(50)} == {200}
            finally:
                api.terminate()
                api.wait(30)
    with ports.reserved(port) as is_ours:
        assert is_ours


@pytest.mark.parametrize("name", ["PORT", "METRICS_PORT"])
def test_start_without_a_free_port_names_the_port(name: str) -> None:
    taken = {each: str(ports.pick()) for each in ("PORT", "METRICS_PORT")}
    with socket.create_server(("127.0.0.1", int(taken[name]))):
        command = [sys.executable, "-m", "api.server"]
        environ = os.environ | NO_SERVERS | taken
        result = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    line = json.loads(result.stderr)
    assert line["event"] == "start_failed"
    assert line["reason"] == f"port {taken[name]} is in use: choose another with {name}"
