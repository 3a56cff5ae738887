"""Check chunks in worker processes, a few chunks ahead of the one being stored."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from threading import Thread

from infra.imports.rows import Chunk, Record
from infra.imports.rules import Checked

Check = Callable[[list[Record]], Checked]


def checked(chunks: Iterable[Chunk], check: Check, processes: int) -> Generator[tuple[Chunk, Checked], None, None]:
    """Yield each chunk with the result of its check, in file order. A chunk is read once a process is free for it.

    Args:
        chunks: the chunks to check.
        check: a function that can be pickled.
        processes: number of processes; 0 checks in this process, which is faster for a small file.
    """
    if not processes:
        for chunk in chunks:
            yield chunk, check(chunk.records)
        return
    waiting: deque[tuple[Chunk, Future[Checked]]] = deque()
    # Spawned: a forked process would share the database connection, and threads do not survive a fork.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start)
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(check, chunk.records)))
            if len(waiting) > processes:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    # Ctrl-C reaches the whole process group; only the parent handles it and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End with the parent process: workers of a pool whose parent was killed would wait for work forever."""
    parent = parent_process()
    assert parent
    connection.wait([parent.sentinel])
    os._exit(1)
