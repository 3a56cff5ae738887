"""The service's own processes, which halt at a step when a test has asked for it, to be killed or frozen there.

`celery -A tests.guarantees.halting`, and `tests.guarantees.halting:create_app` for the API. The folder HALTING takes
part: a file with a step's name asks for one halt there; `there` says that it has come to it; `go` ends it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestar.types import ASGIApp

import api.app
from api.wake_ups import WakeUpSender
from indexer import worker
from indexer.drain import claims, loop
from indexer.drain import round as drain
from tests.indexer.stopping import STEPS

FOLDER = Path(os.environ["HALTING"])
BEFORE = {
    "unclaimed": (claims, "claim"),
    "writing": (drain, "write_documents"),
    "unwoken": (WakeUpSender, "send"),
}
AFTER = STEPS | {"committed": (loop, "drain_round")}


def halt(step: str) -> None:
    try:
        (FOLDER / step).unlink()  # only one process gets it
    except FileNotFoundError:
        return
    (FOLDER / "there").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)


def halting(function: Callable[..., Any], step: str, *, after: bool) -> Callable[..., Any]:
    def halts(*given: Any, **named: Any) -> Any:
        if not after:
            halt(step)
        result = function(*given, **named)
        # A round that finds nothing is no round.
        if after and getattr(result, "rows", True):
            halt(step)
        return result

    return halts


for steps, after in ((BEFORE, False), (AFTER, True)):
    for step, (place, name) in steps.items():
        setattr(place, name, halting(getattr(place, name), step, after=after))
app = worker.app


def create_app() -> ASGIApp:
    return api.app.create_app()
