"""Run the command `consumers` in the test process."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from infra.cli.main import main
from tests.service import Database


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str


ConsumersCommand = Callable[..., CommandResult]


def consumers_command(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ConsumersCommand:
    """Return a function that runs `consumers` with arguments, connected to a database."""
    for name, value in database.environ.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["consumers", *arguments])
        capsys.readouterr()  # discard earlier output
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        code = exit_.value.code
        return CommandResult(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
