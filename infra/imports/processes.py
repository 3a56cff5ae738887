"""Checks chunks in processes of their own, a few ahead of the one being stored."""

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
    """Each chunk with what its check found, in the file's order; none is read before there is room for it.

    Args:
        chunks: what to check.
        check: a function that can be pickled.
        processes: how many; 0: here, which for a small file is sooner done than starting any.
    """
    if not processes:
        for chunk in chunks:
            yield chunk, check(chunk.records)
        return
    waiting: deque[tuple[Chunk, Future[Checked]]] = deque()
    # Not forked: a copy of this process would hold its connection, and threads do not survive a fork.
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
    # Ctrl-C reaches the whole group: the parent decides, and ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes wait for work for ever when their parent is killed."""
    parent = parent_process()
    assert parent
    connection.wait([parent.sentinel])
    os._exit(1)
