"""The process of an export that halts at a step, so that a test can kill it there.

HALT_BEFORE names the step. The process creates the file HALT_FILE when it has come there, and continues on SIGUSR1. A
process that finds the file does not halt.
"""

import os
import signal
from pathlib import Path
from typing import Any

from indexer.exports import claims, process
from indexer.exports.conversion import Converter
from indexer.exports.spool import Writer
from infra.exports.store import ExportStore

STEPS: dict[str, tuple[Any, str]] = {
    "copying": (Writer, "write_all"),
    "convert": (Converter, "convert"),
    "last file": (ExportStore, "put"),
    "finish": (claims, "finish"),
}
"""Halts before these functions: with an open snapshot, after it, with stored files, and with all of them stored."""


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    owner, name = STEPS[os.environ["HALT_BEFORE"]]
    function, there = getattr(owner, name), Path(os.environ["HALT_FILE"])

    def halting(*arguments: Any, **options: Any) -> Any:
        # The manifest is stored last.
        if name != "put" or arguments[-1].name == "manifest.json":
            setattr(owner, name, function)
            there.touch()
            signal.pause()
        return function(*arguments, **options)

    if not there.exists():
        setattr(owner, name, halting)
    process.main()


if __name__ == "__main__":
    main()
