"""Only one service on this machine may have the port of its API."""

import http.client
import os
import subprocess
import sys
from pathlib import Path

from infra.local import ports
from infra.settings import ROOT
from tests.waiting import wait_until

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
"""


def status(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
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


def test_api_listens_on_the_reserved_port(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    port = ports.pick()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
    with ports.reserved(port) as is_ours:
        assert is_ours
        for _ in range(2):  # once more after a restart, with connections of the first in TIME_WAIT
            api = subprocess.Popen([*command, "application:app"], cwd=tmp_path)
            try:
                wait_until(lambda: status(port) == 204, what="the API")
                assert {status(port) for _ in range(50)} == {204}
            finally:
                api.terminate()
                api.wait(30)
    with ports.reserved(port) as is_ours:
        assert is_ours
