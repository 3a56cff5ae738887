"""Exports in an S3-compatible store: uploaded, listed, downloaded in parts, deleted; refused or away for a while."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from msgspec.json import encode

from indexer.exports.conversion import described
from infra.accounts import keys
from infra.exports.store import STORE_ERRORS, open_store
from tests.indexer.exports import CONSUMERS, LOSE_CLAIMS, Exports
from tests.indexer.s3_server import S3Server
from tests.service import NO_CERTIFICATES, Database, Service

LARGE_BYTES = 12 * 2**20 + 1
"""More than two parts of an upload."""
STREAMED_BYTES = 48 * 2**20
"""More than the buffers between the store and a client hold."""


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    server = S3Server(tmp_path)
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def exports(s3: S3Server, quiet: Database) -> Iterator[Exports]:
    environment = Exports(quiet, s3.environ["EXPORTS_URL"])
    yield environment
    environment.exporter.close()


async def read(exports: Exports, name: str, start: int, end: int) -> bytes:
    parts = await exports.store.open("exp_1", 1, name, start, end)
    return b"".join([part async for part in parts])


def test_large_file_is_stored_in_parts_and_read_in_ranges(s3: S3Server, exports: Exports, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(LARGE_BYTES))
    content = file.read_bytes()
    with s3.running():
        exports.store.put("exp_1", 1, file)
        exports.store.put("exp_1", 2, file)
        exports.store.get("exp_1", 1, "large", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content
        for start, end in ((0, LARGE_BYTES), (0, 1), (LARGE_BYTES - 1, LARGE_BYTES), (5, 2**20 + 5)):
            assert asyncio.run(read(exports, "large", start, end)) == content[start:end]
        with pytest.raises(FileNotFoundError):
            asyncio.run(read(exports, "other", 0, 1))
        assert exports.store.exports() == {"exp_1"}
        exports.store.delete("exp_1", but_claim=2)
        assert s3.objects() == ["large"]
        exports.store.delete("exp_1")
        assert exports.store.exports() == set()
    assert s3.objects() == []


def test_export_waits_for_a_store_that_refuses_or_is_away(s3: S3Server, exports: Exports) -> None:
    export_id = exports.request()
    waiting = exports.finish(export_id)
    assert (waiting.state, waiting.files) == ("queued", [])
    exports.execute(LOSE_CLAIMS)
    with s3.running():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
            assert exports.finish(export_id).state == "queued"
            with pytest.raises(STORE_ERRORS):
                open_store(exports.settings).exports()
        exports.execute(LOSE_CLAIMS)
        done = exports.finish(export_id)
        assert (done.state, done.claim, [file.rows for file in done.files]) == (
            *("done", 3),
            [CONSUMERS, CONSUMERS, 0, None, None],
        )
        assert s3.objects() == sorted(file.name for file in done.files)
        exports.execute("UPDATE exports SET expires_at = now()")
        exports.exporter.expire()
    assert s3.objects() == []


@contextmanager
def running_api(s3: S3Server, exports: Exports, folder: Path) -> Iterator[httpx.Client]:
    """Run an API with the store, and yield a client of an analyst."""
    with exports.engine.begin() as connection:
        key = keys.create(connection, "shop", "live", scopes=["read:analytics"]).key
    service = Service(exports.database, folder, s3.environ)
    service.start("api")
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(
            base_url=f"{service.url}/api/v1/exports", headers=headers, timeout=60, verify=NO_CERTIFICATES
        ) as client:
            yield client
    finally:
        service.close()


def until_cut(parts: Iterator[bytes]) -> bytes:
    """Return the parts of a download before an interruption."""
    received = b""
    with suppress(httpx.TransportError):
        for part in parts:
            received += part
    return received


def test_download_while_the_store_fails(s3: S3Server, exports: Exports, tmp_path: Path) -> None:
    file = tmp_path / "consumers-0002.parquet"
    file.write_bytes(os.urandom(STREAMED_BYTES))
    entry = described(file, "consumers", 0)
    with s3.running(), running_api(s3, exports, tmp_path) as client:
        done = exports.finish(exports.request())
        exports.store.put(done.id, done.claim, file)
        exports.execute("UPDATE exports SET files = files || CAST(:entry AS jsonb)", entry=encode(entry).decode())
        paths = [f"/{done.id}/files/{name}" for name in (done.files[0].name, entry.name)]
        assert hashlib.sha256(client.get(paths[0]).content).hexdigest() == done.files[0].sha256
        with client.stream("GET", paths[1]) as response:
            parts = response.iter_raw()
            received = next(parts)
            with s3.away():
                received += until_cut(parts)
                assert len(received) < STREAMED_BYTES
                for method in ("GET", "HEAD"):
                    refused = client.request(method, paths[0])
                    assert refused.status_code == 503
                    assert int(refused.headers["Retry-After"]) > 0
            again = {"Range": f"bytes={len(received)}-", "If-Range": response.headers["ETag"]}
        rest = client.get(paths[1], headers=again)
        assert (rest.status_code, hashlib.sha256(received + rest.content).hexdigest()) == (206, entry.sha256)
        exports.store.delete(done.id)
        assert [client.request(method, paths[0]).status_code for method in ("GET", "HEAD")] == [404, 404]
