"""The file of rejected rows holds personal data: only its owner may read the file."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.imports.errors_file import ErrorsFile
from infra.imports.rows import Record


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def write_errors(source: Path, *, appears_later: bool) -> int:
    with ErrorsFile(source.with_suffix(".errors.csv"), ["email"]) as errors:
        if appears_later:
            errors.path.touch(mode=0o666)
        errors.add(Record(2, ["no address"]), "email: is invalid")
    assert "no address" in errors.path.read_text()
    return stat.S_IMODE(errors.path.stat().st_mode)


@pytest.mark.parametrize("appears_later", [False, True])
@pytest.mark.parametrize("from_earlier_run", [False, True])
def test_only_the_owner_may_read_the_errors_file(
    tmp_path: Path,
    from_earlier_run: bool,  # noqa: FBT001 (a case)
    appears_later: bool,  # noqa: FBT001 (a case)
) -> None:
    source = tmp_path / "rows.csv"
    if from_earlier_run:
        source.with_suffix(".errors.csv").touch(mode=0o666)
    assert write_errors(source, appears_later=appears_later) == 0o600
