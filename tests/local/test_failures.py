"""What keeps servers from starting is told in one line, and leaves nothing broken behind."""

import gc
import os
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from infra.local import java
from infra.local.artifacts import SERVER, opensearch_home
from infra.local.errors import LocalError
from infra.local.folder import disk_full_errors, held, require_space
from infra.local.postgres import MAJOR, Postgres
from infra.local.server import wait_ready
from infra.local.servers import LocalServers
from infra.settings import ROOT


@contextmanager
def repository(status: int, announced: int, content: bytes) -> Iterator[dict[str, str]]:
    """Serve any file with this content, and announce a length that may not be true."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield {"broken": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


def failure_of_fetching(cache: Path, repositories: dict[str, str]) -> str:
    with pytest.raises(LocalError) as told:
        opensearch_home(cache, repositories=repositories)
    message = str(told.value)
    # jgo leaves a broken connection to the garbage collector, which would warn in some later test.
    del told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return message


@pytest.mark.parametrize(
    ("status", "announced", "content", "problem"),
    [
        (200, SERVER.size, b"half of it", f"the download of {SERVER.filename} failed"),
        (200, 9, b"not a zip", f"{SERVER.filename} had the wrong SHA-256 digest"),
        (404, 0, b"", f"the Maven repository does not have {SERVER.filename}"),
    ],
    ids=["broken off", "other content", "absent"],
)
def test_download_that_fails_leaves_nothing(
    tmp_path: Path, status: int, announced: int, content: bytes, problem: str
) -> None:
    with repository(status, announced, content) as broken:
        told = failure_of_fetching(tmp_path, broken)
    assert problem in told
    assert "\n" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_download_cache_that_was_corrupted_is_named_and_removed(tmp_path: Path) -> None:
    cached = tmp_path / SERVER.filename
    cached.write_bytes(b"damaged")
    with pytest.raises(LocalError, match="start again") as told:
        opensearch_home(tmp_path)
    assert str(cached) in str(told.value)
    assert not cached.exists()


def test_remains_of_a_killed_download_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".unpacking-remains").mkdir()
    with repository(404, 0, b"") as broken:
        failure_of_fetching(tmp_path, broken)
    assert not (tmp_path / ".unpacking-remains").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_disk_that_fills_up_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="is full: free some space"), disk_full_errors(tmp_path):
        Path("/dev/full").write_text("one byte too many")


def test_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=" MB are free, "):
        require_space(tmp_path, shutil.disk_usage(tmp_path).total)
    assert not list(tmp_path.iterdir())


def runtime(folder: Path, release: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").symlink_to(sys.executable)
    (folder / "release").write_text(release)
    return folder


def test_java_named_for_opensearch_has_to_be_usable(tmp_path: Path) -> None:
    old = runtime(tmp_path / "old", 'JAVA_VERSION="17.0.15"\n')
    with pytest.raises(LocalError, match="OPENSEARCH_JAVA_HOME: no Java 21 or later at"):
        java.find({"OPENSEARCH_JAVA_HOME": str(old)})


def test_java_of_the_system_is_passed_over_when_too_old(tmp_path: Path) -> None:
    old = runtime(tmp_path / "old", 'JAVA_VERSION="17.0.15"\n')
    new = runtime(tmp_path / "new", 'JAVA_VERSION="21"\nMODULES="java.base jdk.incubator.vector"\n')
    found = java.find({"JAVA_HOME": str(old), "PATH": str(new / "bin")})
    assert found.version >= 21
    assert java.find({"JAVA_HOME": str(new)}) == java.Java(new, 21, frozenset({"java.base", "jdk.incubator.vector"}))


def test_no_java_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "find_spec", lambda _: None)  # as where the package has no build
    with pytest.raises(LocalError, match="no Java 21 or later found: install a JDK"):
        java.find({"PATH": str(tmp_path)})


def test_data_of_another_postgresql_is_refused_and_kept(tmp_path: Path) -> None:
    written = tmp_path / "postgresql" / "PG_VERSION"
    written.parent.mkdir()
    written.write_text("17\n")
    with pytest.raises(LocalError, match=f"was written by PostgreSQL 17, and this is version {MAJOR}: set LOCAL_DIR"):
        Postgres(tmp_path, durable=False).spawn()
    assert written.read_text() == "17\n"


def test_server_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    server = Postgres(tmp_path, durable=False)
    server.prepare()
    (server.data / "global" / "pg_control").unlink()
    with pytest.raises(LocalError) as told:
        server.start()
    assert "PostgreSQL ended while starting, exit code" in str(told.value)
    assert "pg_control" in str(told.value)
    assert str(server.log) in str(told.value)


def test_port_that_was_taken_meanwhile_is_changed(tmp_path: Path) -> None:
    server = Postgres(tmp_path, durable=False)
    taken = server.port
    with socket.create_server(("127.0.0.1", taken)):
        server.spawn()
        wait_ready([server], movable=True)
    assert server.port != taken
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(LocalError, match="belongs to another user"), held(tmp_path, "an address"):
        pass


def test_servers_with_a_given_address_are_not_started(tmp_path: Path) -> None:
    given = {"DATABASE_URL": "postgresql://there", "REDIS_URL": "redis://there", "OPENSEARCH_URL": "http://there"}
    with LocalServers(tmp_path, environ=given) as servers:
        assert servers.addresses == {name.lower(): address for name, address in given.items()}
        assert not servers.running
        assert [path.name for path in tmp_path.iterdir()] == ["servers.json"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("port", "problem"),
    [("taken", "port {port} is in use: choose another, such as `PORT={other} make up`"), ("http", "PORT is invalid:")],
)
def test_port_that_cannot_be_used_is_told_before_anything_starts(tmp_path: Path, port: str, problem: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        environ = os.environ | {"LOCAL_DIR": str(tmp_path / "data"), "PORT": port.replace("taken", str(taken))}
        command = [str(Path(sys.executable).with_name("consumers")), "up"]
        done = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert problem.format(port=taken, other=taken + 1) in done.stderr
    assert {path.name for path in tmp_path.glob("data/*")} <= {"lock", "lock.servers"}
