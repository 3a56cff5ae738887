"""Errors at the start of servers: reported in one line, without remains."""

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
    """Serve every file with this content and any Content-Length."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield {"broken": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


def failure_of_fetching(cache: Path, repositories: dict[str, str]) -> str:
    with pytest.raises(LocalError) as failure:
        opensearch_home(cache, repositories=repositories)
    message = str(failure.value)
    # jgo does not close a broken connection; the garbage collector would warn in a later test.
    del failure
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
def test_failed_download_leaves_no_file(
    tmp_path: Path, status: int, announced: int, content: bytes, problem: str
) -> None:
    with repository(status, announced, content) as broken:
        message = failure_of_fetching(tmp_path, broken)
    assert problem in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_corrupt_download_cache_is_named_and_removed(tmp_path: Path) -> None:
    cached = tmp_path / SERVER.filename
    cached.write_bytes(b"damaged")
    with pytest.raises(LocalError, match="start again") as failure:
        opensearch_home(tmp_path)
    assert str(cached) in str(failure.value)
    assert not cached.exists()


def test_remains_of_a_killed_download_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".unpacking-remains").mkdir()
    with repository(404, 0, b"") as broken:
        failure_of_fetching(tmp_path, broken)
    assert not (tmp_path / ".unpacking-remains").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_full_disk_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="is full: free some space"), disk_full_errors(tmp_path):
        Path("/dev/full").write_text("one byte too many")


def test_missing_disk_space_is_reported_before_any_write(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=" MB are free, "):
        require_space(tmp_path, shutil.disk_usage(tmp_path).total)
    assert not list(tmp_path.iterdir())


def runtime(folder: Path, release: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").symlink_to(sys.executable)
    (folder / "release").write_text(release)
    return folder


def test_java_named_for_opensearch_must_be_usable(tmp_path: Path) -> None:
    old = runtime(tmp_path / "old", 'JAVA_VERSION="17.0.15"\n')
    with pytest.raises(LocalError, match="OPENSEARCH_JAVA_HOME: no Java 21 or later at"):
        java.find({"OPENSEARCH_JAVA_HOME": str(old)})


def test_java_of_the_system_is_skipped_if_too_old(tmp_path: Path) -> None:
    old = runtime(tmp_path / "old", 'JAVA_VERSION="17.0.15"\n')
    new = runtime(tmp_path / "new", 'JAVA_VERSION="21"\nMODULES="java.base jdk.incubator.vector"\n')
    java_ = java.find({"JAVA_HOME": str(old), "PATH": str(new / "bin")})
    assert java_.version >= 21
    assert java.find({"JAVA_HOME": str(new)}) == java.Java(new, 21, frozenset({"java.base", "jdk.incubator.vector"}))


def test_missing_java_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "find_spec", lambda _: None)  # as on platforms without a build of the package
    with pytest.raises(LocalError, match="no Java 21 or later found: install a JDK"):
        java.find({"PATH": str(tmp_path)})


def test_data_of_another_postgresql_is_refused_and_kept(tmp_path: Path) -> None:
    written = tmp_path / "postgresql" / "PG_VERSION"
    written.parent.mkdir()
    written.write_text("17\n")
    with pytest.raises(LocalError, match=f"was written by PostgreSQL 17, and this is version {MAJOR}: set LOCAL_DIR"):
        Postgres(tmp_path, durable=False).spawn()
    assert written.read_text() == "17\n"


def test_failed_start_is_reported_with_the_log(tmp_path: Path) -> None:
    server = Postgres(tmp_path, durable=False)
    server.prepare()
    (server.data / "global" / "pg_control").unlink()
    with pytest.raises(LocalError) as failure:
        server.start()
    assert "PostgreSQL ended while starting, exit code" in str(failure.value)
    assert "pg_control" in str(failure.value)
    assert str(server.log) in str(failure.value)


def test_port_in_use_is_replaced_by_a_free_port(tmp_path: Path) -> None:
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
    environ = {"DATABASE_URL": "postgresql://there", "REDIS_URL": "redis://there", "OPENSEARCH_URL": "http://there"}
    with LocalServers(tmp_path, environ=environ) as servers:
        assert servers.addresses == {name.lower(): address for name, address in environ.items()}
        assert not servers.running
        assert [path.name for path in tmp_path.iterdir()] == ["servers.json"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("port", "problem"),
    [("taken", "port {port} is in use: choose another, such as `PORT={other} make up`"), ("http", "PORT is invalid:")],
)
def test_unusable_port_is_reported_before_any_start(tmp_path: Path, port: str, problem: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        environ = os.environ | {"LOCAL_DIR": str(tmp_path / "data"), "PORT": port.replace("taken", str(taken))}
        command = [str(Path(sys.executable).with_name("consumers")), "up"]
        result = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert problem.format(port=taken, other=taken + 1) in result.stderr
    assert {path.name for path in tmp_path.glob("data/*")} <= {"lock", "lock.servers"}
