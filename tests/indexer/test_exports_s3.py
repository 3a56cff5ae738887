"""Exports in an S3-compatible store: uploaded, listed, downloaded in parts, deleted; refused or away for a while."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.accounts import keys
from infra.exports.store import STORE_ERRORS, open_store
from tests.indexer.exports import CONSUMERS, LOSE_CLAIMS, Exports
from tests.indexer.s3_server import S3Server
from tests.service import NO_CERTIFICATES, Database, Service

LARGE_BYTES = 12 * 2**20 + 1
"""More than two parts of an upload."""


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


def test_download_is_503_while_the_store_is_away(s3: S3Server, exports: Exports, tmp_path: Path) -> None:
    with exports.engine.begin() as connection:
        key = keys.create(connection, "shop", "live", scopes=["read:analytics"]).key
    api = Service(exports.database, tmp_path, s3.environ)
    headers = {"Authorization": f"Bearer {key}"}
    with s3.running():
        done = exports.finish(exports.request())
        path = f"{api.url}/api/v1/exports/{done.id}/files/{done.files[0].name}"
        api.start("api")
        try:
            with httpx.Client(headers=headers, timeout=60, verify=NO_CERTIFICATES) as client:
                whole = client.get(path)
                assert hashlib.sha256(whole.content).hexdigest() == done.files[0].sha256
                part = client.get(path, headers={"Range": "bytes=5-9"})
                assert (part.status_code, part.content) == (206, whole.content[5:10])
                with s3.away():
                    for method in ("GET", "HEAD"):
                        refused = client.request(method, path)
                        assert refused.status_code == 503
                        assert int(refused.headers["Retry-After"]) > 0
                assert client.get(path).content == whole.content
                exports.store.delete(done.id)
                assert [client.request(method, path).status_code for method in ("GET", "HEAD")] == [404, 404]
        finally:
            api.close()
