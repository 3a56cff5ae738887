"""Giving the command `consumers`, in the test's own process."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from infra.cli.main import main
from tests.service import Database


class Said(NamedTuple):
    code: int
    out: str
    err: str


Consumers = Callable[..., Said]


def commands(database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Consumers:
    """What runs the command on a database, and gives what it said."""
    for name, value in database.environ.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr("sys.argv", ["consumers", *arguments])
        capsys.readouterr()  # what was said before is not its
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
