"""Request exports over HTTP, download their files, and read them with DuckDB as an analyst does."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx

from tests.waiting import wait_until

Fields = dict[str, Any]


def begin_export(client: httpx.Client, **fields: Any) -> Fields:
    """Request an export, and return it as it is then."""
    response = client.post("/exports", json=fields)
    assert response.status_code == 202, response.text
    export: Fields = response.json()
    assert response.headers["Location"] == f"/api/v1/exports/{export['id']}"
    return export


def await_export(client: httpx.Client, export: Fields) -> Fields:
    """Wait for the end of an export, and return it."""

    def ended() -> Fields | None:
        current: Fields = client.get(f"/exports/{export['id']}").raise_for_status().json()
        return current if current["state"] in {"done", "failed", "expired"} else None

    done = wait_until(ended, timeout=180, what="the export", interval=0.1)
    assert done
    assert done["state"] == "done", done
    return done


def request_export(client: httpx.Client, **fields: Any) -> Fields:
    """Request an export, and return it when it is done."""
    return await_export(client, begin_export(client, **fields))


def download(client: httpx.Client, export: Fields, folder: Path) -> None:
    """Download all files, and compare their sizes and sums with the list."""
    folder.mkdir()
    for file in export["files"]:
        response = client.get(file["href"].removeprefix("/api/v1")).raise_for_status()
        assert len(response.content) == file["bytes"]
        assert hashlib.sha256(response.content).hexdigest() == file["sha256"]
        assert response.headers["ETag"] == f'"{file["sha256"]}"'
        (folder / file["name"]).write_bytes(response.content)


@contextmanager
def opened(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an export in DuckDB by its script, in the folder of the files."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with duckdb.connect() as database:
            database.execute((folder / "analytics.sql").read_text("utf-8"))
            yield database
    finally:
        os.chdir(before)
