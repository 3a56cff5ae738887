"""Who compares ranges of ids: threads of this process, or, where there are many consumers, processes of their own.

Making documents to compare is most of the work, and Python does it one thread at a time.
"""

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer import collector, verify
from indexer.verify import AHEAD, THREADS, Range, Scope, Step, Submit
from infra import db, opensearch
from infra.settings import Settings

MANY = 50_000
"""From so many consumers on processes are started, which takes them about a second."""
PROCESSES = min(os.cpu_count() or 1, AHEAD // 2)
NICENESS = 5
"""Whoever is waited for goes first."""


class Comparers:
    """Of one process, which closes them at its end."""

    def __init__(self, settings: Settings, engine: sa.Engine, client: OpenSearch) -> None:
        """Engine, with room for the threads, and client are theirs."""
        self._settings, self._engine, self._client = settings, engine, client
        self._threads = ThreadPoolExecutor(THREADS)
        self._processes: ProcessPoolExecutor | None = None

    def submit(self, scope: Scope, consumers: int) -> Submit:
        """What has ranges of about so many consumers compared."""
        if consumers < MANY:
            return lambda part: self._threads.submit(verify.compare, self._engine, self._client, scope, part)
        if self._processes is None:
            context = get_context("spawn")
            self._processes = ProcessPoolExecutor(PROCESSES, context, initializer=_begin, initargs=(self._settings,))
        processes = self._processes
        return lambda part: processes.submit(_compare, scope, part)

    def rest(self) -> None:
        """End the processes, until there is work for some again."""
        if self._processes is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)
            self._processes = None

    def close(self) -> None:
        self.rest()
        self._threads.shutdown()


class _Own:
    """What a process of its own compares with."""

    engine: sa.Engine
    client: OpenSearch


def _begin(settings: Settings) -> None:
    # Ctrl-C is for the parent, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    _Own.engine, _Own.client = db.engine(settings, name="verify"), opensearch.writer(settings)
    collector.spare()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(0)


def _compare(scope: Scope, part: Range) -> Step:
    return verify.compare(_Own.engine, _Own.client, scope, part)
