"""Who compares ranges of ids: threads of this process, or, where there are many consumers, processes of their own.

Making documents to compare is most of the work, and Python does it one thread at a time. The processes are told by a
pipe, so they end with the one they work for, however that ends. (Celery's may start none by `multiprocessing`.)
"""

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer import collector
from indexer.verify import compare as verify
from indexer.verify.compare import AHEAD, THREADS, Range, Scope, Step, Submit
from infra import logs
from infra.database.engine import open_engine
from infra.index.client import open_writer
from infra.settings import Settings

MANY = 50_000
"""From so many consumers on processes are started, which takes them about a second."""
PROCESSES = min(os.cpu_count() or 1, AHEAD // 2)
IDLE_SECONDS = 10.0
"""After their last use they are ended: a run goes from worker to worker, a moment at a time."""
NICENESS = 5
"""Whoever is waited for goes first."""


class Comparers:
    """Of one process, which closes them at its end."""

    def __init__(self, settings: Settings, engine: sa.Engine, client: OpenSearch) -> None:
        """Engine, with room for the threads, and client are theirs."""
        self._settings, self._engine, self._client = settings, engine, client
        self._threads = ThreadPoolExecutor(max(THREADS, PROCESSES))
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._used = 0.0

    def submit(self, scope: Scope, consumers: int) -> Submit:
        """What has ranges of about so many consumers compared."""
        if consumers < MANY:
            return lambda part: self._threads.submit(verify.compare, self._engine, self._client, scope, part)
        if not self._processes:
            self._processes, self._idle = [_Process(self._settings) for _ in range(PROCESSES)], SimpleQueue()
            for process in self._processes:
                self._idle.put(process)
        self._used = time.monotonic()
        # Of ranges that nobody waits for any more some may be under way still.
        idle = self._idle

        def compare(part: Range) -> Step:
            process = idle.get()
            try:
                return process.compare(scope, part)
            finally:
                idle.put(process)

        def submitted(part: Range) -> Future[Step]:
            return self._threads.submit(compare, part)

        return submitted

    def rest(self, *, at_once: bool = False) -> None:
        """End the processes, until there is work for some again: if there was none for a while, or at once."""
        if not at_once and time.monotonic() < self._used + IDLE_SECONDS:
            return
        for process in self._processes:
            process.end()
        self._processes = []

    def close(self) -> None:
        self.rest(at_once=True)
        self._threads.shutdown()


class _Process:
    """One that compares, as its starter sees it."""

    def __init__(self, settings: Settings) -> None:
        command = [sys.executable, "-m", __name__]
        # In a session of its own, for Ctrl-C is for its starter.
        self._process = subprocess.Popen(  # noqa: S603 (this very file)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._questions, self._answers = self._process.stdin, self._process.stdout
        _say(self._questions, settings)

    def compare(self, scope: Scope, part: Range) -> Step:
        """As `verify.compare`; what that raises there is raised here.

        Raises:
            EOFError, OSError: the process has ended.
        """
        _say(self._questions, (scope, part))
        answer: Step | Exception = pickle.load(self._answers)  # noqa: S301 (of a process that was started here)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._questions.close()
        self._answers.close()


def _say(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _answer(engine: sa.Engine, client: OpenSearch, scope: Scope, part: Range) -> bytes:
    try:
        return pickle.dumps(verify.compare(engine, client, scope, part))
    except Exception as error:  # noqa: BLE001 (it is raised where it was asked for)
        try:
            pickle.loads(whole := pickle.dumps(error))  # noqa: S301 (some errors can be written, and not read)
        except Exception:  # noqa: BLE001
            return pickle.dumps(RuntimeError(logs.error_kind(error)))
        return whole


def main() -> None:
    """Answer the one who started this, until it is gone."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever writes to standard output is no answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.nice(NICENESS)
    settings: Settings = pickle.load(questions)  # noqa: S301 (of the starter)
    engine, client = open_engine(settings, name="verify"), open_writer(settings)
    collector.tune_gc()
    while True:
        try:
            scope, part = pickle.load(questions)  # noqa: S301 (of the starter)
        except EOFError:
            return
        answers.write(_answer(engine, client, scope, part))
        answers.flush()


if __name__ == "__main__":
    main()
