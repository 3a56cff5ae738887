"""The archive of OpenSearch's classes: made from a running server, and used by the next start."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import java
from infra.local.artifacts import opensearch_home
from infra.local.class_archive import ClassArchive
from infra.local.opensearch import OpenSearch
from infra.local.servers import THROWAWAY
from tests.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenSearch]:
    # As an unpacked server without an archive.
    home = tmp_path / "home"
    home.mkdir()
    for path in opensearch_home().iterdir():
        if path.suffix != ".jsa":
            (home / path.name).symlink_to(path)
    server = OpenSearch(
        tmp_path,
        home,
        heap=THROWAWAY.heap,
        java_options=THROWAWAY.java_options,
        settings_of_profile=THROWAWAY.opensearch_settings,
        records_classes=True,
    )
    yield server
    server.stop()


def uses_archive(server: OpenSearch) -> bool:
    return ".jsa" in Path(f"/proc/{server.pid}/maps").read_text()


def test_archive_is_made_beside_the_server_and_used_by_the_next_start(
    server: OpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An option for other programs, which Java would refuse beside the collector of the server.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseParallelGC")
    server.start()
    assert not uses_archive(server)
    (archiving,) = server.archiving()
    # The processes of other tests would leave no processor time.
    archiving.niceness = 0
    archiving.spawn()
    wait_until(lambda: not archiving.running(), 300, "the archive")
    archiving.stop()
    (archive,) = (tmp_path / "home").glob("classes*")
    server.stop()
    server.start()
    assert uses_archive(server)
    assert server.archiving() == []
    server.stop()
    archive.write_bytes(archive.read_bytes()[:100_000])
    server.start()
    assert not uses_archive(server)


def test_archive_is_made_anew_after_a_copy_of_the_jars(tmp_path: Path) -> None:
    """Java refuses an archive of jars with other times."""
    jar = tmp_path / "lib" / "opensearch.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"classes")

    def file() -> Path:
        return ClassArchive(tmp_path, java.find(), tmp_path / "classes").file

    before = file()
    assert file() == before
    os.utime(jar, (1, 1))
    assert file() != before
