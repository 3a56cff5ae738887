"""The service's processes with halts: a process halts at a step on request, so that a test can kill or freeze it there.

Started as `celery -A tests.guarantees.halting_service` and `python -m tests.guarantees.halting_service`. The processes
and the test communicate by files in the folder HALTING:

1. The test creates a file with the name of a step: a request for one halt at this step.
2. The first process that reaches the step removes the file, creates `there`, and halts.
3. The test creates `go`: the halted process continues.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestar.types import ASGIApp

import api.app
from api.server.__main__ import serve
from api.wake_ups import WakeUpSender
from indexer import worker
from indexer.drain import claims, loop
from indexer.drain import round as drain
from tests.indexer.stopping_drain import STEPS

FOLDER = Path(os.environ["HALTING"])
BEFORE = {
    "unclaimed": (claims, "claim"),
    "writing": (drain, "write_documents"),
    "unwoken": (WakeUpSender, "send"),
}
AFTER = STEPS | {"committed": (loop, "drain_round")}


def halt(step: str) -> None:
    try:
        (FOLDER / step).unlink()  # only a single process succeeds
    except FileNotFoundError:
        return
    (FOLDER / "there").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)


def halting(function: Callable[..., Any], step: str, *, after: bool) -> Callable[..., Any]:
    def halts(*arguments: Any, **options: Any) -> Any:
        if not after:
            halt(step)
        result = function(*arguments, **options)
        # A round without rows does not count.
        if after and getattr(result, "rows", True):
            halt(step)
        return result

    return halts


for steps, after in ((BEFORE, False), (AFTER, True)):
    for step, (owner, name) in steps.items():
        setattr(owner, name, halting(getattr(owner, name), step, after=after))
app = worker.app


def create_app() -> ASGIApp:
    return api.app.create_app()


if __name__ == "__main__":
    serve("tests.guarantees.halting_service:create_app")
