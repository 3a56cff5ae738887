"""The store of exports as a folder."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import LocalStore

from infra.exports.store import PART_BYTES, ExportStore

BYTES = 5 * PART_BYTES + 1


async def read(store: ExportStore, after_first_part: Callable[[], None]) -> bytes:
    content = b""
    async for part in await store.open("exp_1", 1, "file", 0, BYTES):
        content += part
        if len(content) == len(part):
            after_first_part()
    return content


def test_download_ends_although_the_files_are_deleted_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = ExportStore(LocalStore(tmp_path / "store"), "installation", tmp_path / "store")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(BYTES))
    store.put("exp_1", 1, file)
    content = asyncio.run(read(store, lambda: store.delete("exp_1")))
    assert content == file.read_bytes()
    assert store.exports() == set()
    with pytest.raises(FileNotFoundError):
        asyncio.run(read(store, lambda: None))
