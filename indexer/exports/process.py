"""The process of an export: started by a worker for a single export, and ended with the worker.

A separate process gives its memory back, and ends with a stopped or killed worker. (Celery's workers are daemonic
processes and may not use `multiprocessing`.)
"""

import os
import pickle
import sys
import threading
from pathlib import Path

from indexer.exports.claims import ClaimedExport
from indexer.exports.heartbeat import Heartbeat
from indexer.exports.run import run
from infra import logs
from infra.database.engine import open_engine
from infra.settings import Settings

PRIVATE = 0o077
"""Files are readable by this user alone."""


def main() -> None:
    """Make the export sent by the parent, in the folder sent by the parent."""
    settings: Settings
    export: ClaimedExport
    folder: Path
    settings, export, folder = pickle.load(sys.stdin.buffer)  # noqa: S301 (from the parent)
    threading.Thread(target=_end_with_parent, args=[sys.stdin.fileno()], daemon=True).start()
    logs.configure(settings.log_level)
    os.umask(PRIVATE)
    # A connection for the heartbeat, and two for the export.
    engine = open_engine(settings, name="export", pool_size=3)
    heartbeat = Heartbeat(engine, export)
    try:
        run(settings, engine, folder, export, heartbeat)
    finally:
        heartbeat.stop()


def _end_with_parent(pipe: int) -> None:
    """End when the pipe closes. A buffered reader would hold its lock when the interpreter ends."""
    while os.read(pipe, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
