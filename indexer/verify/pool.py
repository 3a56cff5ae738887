"""The pool that compares ranges: threads of this process or, for many consumers, processes of its own.

Making the expected documents is most of the work, and Python runs one thread at a time. The processes are fed through
a pipe and end when the pipe closes, so they end with their parent, even if it is killed. (`multiprocessing` cannot be
used: Celery's workers are daemonic processes and may not have children.)
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
from indexer.verify import compare
from indexer.verify.compare import MAX_PENDING, Comparison, Scope, Submit
from indexer.verify.ranges import IdRange
from infra import logs
from infra.database.engine import open_engine
from infra.index.client import open_writer
from infra.settings import Settings

THREADS = 2
"""While one thread waits for the database or OpenSearch, the other makes documents."""
PROCESS_THRESHOLD = 50_000
"""Consumers from which processes are used. To start them takes about a second."""
PROCESSES = min(os.cpu_count() or 1, MAX_PENDING // 2)
IDLE_SECONDS = 10.0
"""Processes are kept this long after their last use, because a run is continued by one worker after another."""
NICENESS = 5
"""Lower priority than the processes that serve requests and drain the outbox."""


class ComparisonPool:
    """Threads and processes of this process that compare ranges. Close the pool at the end."""

    def __init__(self, settings: Settings, engine: sa.Engine, client: OpenSearch) -> None:
        """Use `engine`, with room for `THREADS` connections, and `client` in the threads; processes open their own."""
        self._settings, self._engine, self._client = settings, engine, client
        self._threads = ThreadPoolExecutor(max(THREADS, PROCESSES))
        self._processes: list[_ComparisonProcess] = []
        self._idle: SimpleQueue[_ComparisonProcess] = SimpleQueue()
        self._used_at = 0.0

    def submitter(self, scope: Scope, consumers: int) -> Submit:
        """Return the function that submits a range of the scope; `consumers`, about how many there are, decides where
        the range is compared.
        """
        if consumers < PROCESS_THRESHOLD:
            return lambda id_range: self._threads.submit(
                compare.compare_range, self._engine, self._client, scope, id_range
            )
        if not self._processes:
            self._start_processes()
        self._used_at = time.monotonic()
        # The queue of these processes: abandoned ranges of an earlier call may still be using an older queue.
        idle = self._idle

        def compare_in_process(id_range: IdRange) -> Comparison:
            process = idle.get()
            try:
                return process.compare(scope, id_range)
            finally:
                idle.put(process)

        def submit(id_range: IdRange) -> Future[Comparison]:
            return self._threads.submit(compare_in_process, id_range)

        return submit

    def stop_idle_processes(self) -> None:
        """Stop the processes if they have not been used for `IDLE_SECONDS`."""
        if time.monotonic() >= self._used_at + IDLE_SECONDS:
            self.stop_processes()

    def stop_processes(self) -> None:
        """Stop the processes now. The next submitter starts new ones when it needs them."""
        for process in self._processes:
            process.end()
        self._processes = []

    def close(self) -> None:
        self.stop_processes()
        self._threads.shutdown()

    def _start_processes(self) -> None:
        self._processes, self._idle = [_ComparisonProcess(self._settings) for _ in range(PROCESSES)], SimpleQueue()
        for process in self._processes:
            self._idle.put(process)


class _ComparisonProcess:
    """The parent's side of a process that runs `main`."""

    def __init__(self, settings: Settings) -> None:
        command = [sys.executable, "-m", __name__]
        # In a session of its own, so that Ctrl-C in the terminal reaches only the parent, which stops the process.
        self._process = subprocess.Popen(  # noqa: S603 (this module)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._responses = self._process.stdin, self._process.stdout
        _send(self._requests, settings)

    def compare(self, scope: Scope, id_range: IdRange) -> Comparison:
        """Run `compare.compare_range` in the process; its errors are raised here.

        Raises:
            EOFError, OSError: the process has ended.
        """
        _send(self._requests, (scope, id_range))
        response: Comparison | Exception = pickle.load(self._responses)  # noqa: S301 (from a process started here)
        if isinstance(response, Exception):
            raise response
        return response

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._responses.close()


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _response(engine: sa.Engine, client: OpenSearch, scope: Scope, id_range: IdRange) -> bytes:
    try:
        return pickle.dumps(compare.compare_range(engine, client, scope, id_range))
    except Exception as error:  # noqa: BLE001 (the parent raises it)
        try:
            pickle.loads(pickled := pickle.dumps(error))  # noqa: S301 (some errors can be pickled but not unpickled)
        except Exception:  # noqa: BLE001
            return pickle.dumps(RuntimeError(logs.error_kind(error)))
        return pickled


def main() -> None:
    """Compare the ranges that the parent sends, until its end of the pipe closes."""
    requests, responses = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # From here on, standard output goes to standard error, so that no library can write into the responses.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.nice(NICENESS)
    settings: Settings = pickle.load(requests)  # noqa: S301 (from the parent)
    engine, client = open_engine(settings, name="verify"), open_writer(settings)
    collector.tune_gc()
    while True:
        try:
            scope, id_range = pickle.load(requests)  # noqa: S301 (from the parent)
        except EOFError:
            return
        responses.write(_response(engine, client, scope, id_range))
        responses.flush()


if __name__ == "__main__":
    main()
