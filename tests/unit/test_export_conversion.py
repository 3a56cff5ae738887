"""The conversion of temporary files: rows of every length need the same memory."""

from contextlib import closing
from pathlib import Path

import pytest

from indexer.exports import spool
from indexer.exports.conversion import Converter
from indexer.exports.spool import Spool, Writer
from infra.exports.requests import Format
from infra.exports.tables import AUDIENCES

LONG_BYTES, LONG_ROWS = 64 * 1024, 2_500


def written(folder: Path, lengths: list[int]) -> Spool:
    """Write a row of each length as an audience with a long name."""
    writer = Writer(folder, "audiences", lambda _: None)
    name = b"name " * (max(lengths) // 5 + 1)
    writer.write_all(b"aud_%d,%s,STATIC,2025-01-01 00:00:00+00\n" % (n, name[:size]) for n, size in enumerate(lengths))
    return Spool(AUDIENCES.columns, writer.parts, writer.rows)


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_long_rows_are_converted_with_little_memory(tmp_path: Path, file_format: Format) -> None:
    written_rows = written(tmp_path, [LONG_BYTES] * LONG_ROWS)
    with closing(Converter(tmp_path, file_format, personal=True)) as converter:
        files = converter.convert("audiences", written_rows, lambda: None)
        assert converter.check("audiences", AUDIENCES.columns, files, {"rows": LONG_ROWS}) == [LONG_ROWS]


def test_spool_has_a_file_for_a_part_of_short_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PART_ROWS", 16_000)
    parts = written(tmp_path, [100] * 40_000).parts
    assert [len(part) for part in parts] == [1, 1, 1]


def test_spool_begins_a_file_after_long_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "VECTOR_BYTES", 1000)
    [part] = written(tmp_path, [5, 1000, 5, 5, 400, 400, 400, 5]).parts
    assert [len(file.read_bytes().splitlines()) for file in part] == [2, 5, 1]


def test_file_that_began_within_a_chunk_is_not_split_without_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "VECTOR_ROWS", 128)
    monkeypatch.setattr(spool, "VECTOR_BYTES", 64 * 128)
    [part] = written(tmp_path, [10_000, *[5] * 1_000]).parts
    assert [len(file.read_bytes().splitlines()) for file in part] == [1, 1_000]
