"""The process of an export that halts at a step, so that a test can kill it there.

HALT_BEFORE names the step. The process creates the file HALT_FILE when it has come there, and continues on SIGUSR1.
"""

import os
import signal
from pathlib import Path
from typing import Any

from indexer.exports import claims, conversion, process, run, snapshot
from infra.exports.store import ExportStore

STEPS: dict[str, tuple[Any, str]] = {
    "copy": (snapshot, "take"),
    "convert": (conversion.Converter, "convert"),
    "store": (run, "_store"),
    "finish": (claims, "finish"),
    "last file": (ExportStore, "put"),
}


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    owner, name = STEPS[os.environ["HALT_BEFORE"]]
    function = getattr(owner, name)

    def halting(*arguments: Any, **options: Any) -> Any:
        # The manifest is stored last.
        if name != "put" or arguments[-1].name == "manifest.json":
            Path(os.environ["HALT_FILE"]).touch()
            signal.pause()
        return function(*arguments, **options)

    setattr(owner, name, halting)
    process.main()


if __name__ == "__main__":
    main()
