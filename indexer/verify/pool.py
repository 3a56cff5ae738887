"""Compare ranges in threads or, for many consumers, in processes started for the purpose.

Making the expected documents is most of the work, and Python runs a single thread at a time. The processes are fed
through pipes and end when the pipe closes, so no process outlives a killed parent. (`multiprocessing` cannot be
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
"""A thread makes documents while the second thread waits for the database or OpenSearch."""
PROCESS_THRESHOLD = 50_000
"""Processes are used from this number of consumers. Starting the processes takes about a second."""
PROCESSES = min(os.cpu_count() or 1, MAX_PENDING // 2)
IDLE_SECONDS = 10.0
"""Processes are kept this long after the last use, because a run comes back to this worker after a turn elsewhere."""
NICENESS = 5
"""Lower priority than the API and the drains."""


class ComparisonPool:
    """The threads and child processes of this process for comparisons. Close the pool at the end."""

    def __init__(self, settings: Settings, engine: sa.Engine, client: OpenSearch) -> None:
        """Use `engine`, with room for `THREADS` connections, and `client` in the threads; processes open their own."""
        self._settings, self._engine, self._client = settings, engine, client
        self._threads = ThreadPoolExecutor(max(THREADS, PROCESSES))
        self._processes: list[_ComparisonProcess] = []
        self._idle: SimpleQueue[_ComparisonProcess] = SimpleQueue()
        self._used_at = 0.0

    def submitter(self, scope: Scope, consumers: int) -> Submit:
        """Return a function to submit ranges of the scope. The approximate number of consumers decides between threads
        and processes.
        """
        if consumers < PROCESS_THRESHOLD:
            return lambda id_range: self._threads.submit(
                compare.compare_range, self._engine, self._client, scope, id_range
            )
        if not self._processes:
            self._start_processes()
        self._used_at = time.monotonic()
        # A local reference: abandoned ranges of an earlier call may still use the queue of stopped processes.
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
        """Stop the processes if unused for `IDLE_SECONDS`."""
        if time.monotonic() >= self._used_at + IDLE_SECONDS:
            self.stop_processes()

    def stop_processes(self) -> None:
        """Stop the processes now. The next submitter for many consumers starts new processes."""
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
    """The parent's side of a child process running `main`."""

    def __init__(self, settings: Settings) -> None:
        command = [sys.executable, "-m", __name__]
        # In a new session: Ctrl-C in the terminal reaches only the parent, and the parent stops the process.
        self._process = subprocess.Popen(  # noqa: S603 (this module)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._responses = self._process.stdin, self._process.stdout
        _send(self._requests, settings)

    def compare(self, scope: Scope, id_range: IdRange) -> Comparison:
        """Run `compare.compare_range` in the process; errors there are raised here.

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
    """Compare the ranges sent by the parent, until the parent closes the pipe."""
    requests, responses = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # From here on, standard output goes to standard error: no library can write into the responses.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.nice(NICENESS)
    settings: Settings = pickle.load(requests)  # noqa: S301 (from the parent)
    logs.configure(settings.log_level)
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
