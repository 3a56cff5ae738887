"""Processes that compare: to make a million documents takes longer than to read them."""

import os
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.verify import Range, Scope, Step, Submit, compare
from infra import db, opensearch
from infra.imports.processes import follow_parent
from infra.settings import Settings

MOST = 4

_sides: list[tuple[sa.Engine, OpenSearch]] = []
"""Of this process, where it is one of these."""


class Comparers:
    """They start with the first range, and stay until their parent ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: ProcessPoolExecutor | None = None

    def of(self, scope: Scope) -> Submit:
        """What has a range compared."""

        def submit(part: Range) -> Future[Step]:
            try:
                return self._started().submit(_compare, scope, part)
            except BrokenExecutor:
                self.close()
                raise

        return submit

    def close(self) -> None:
        """End them, whatever they are at; the next range starts others."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Not forked: a copy of this process would hold its connections.
            self._pool = ProcessPoolExecutor(
                max(1, min(MOST, os.cpu_count() or 1)),
                mp_context=get_context("spawn"),
                initializer=_start,
                initargs=(self._settings,),
            )
        return self._pool


def _start(settings: Settings) -> None:
    follow_parent()
    _sides.append((db.engine(settings, name="verify"), opensearch.writer(settings)))


def _compare(scope: Scope, part: Range) -> Step:
    [(engine, client)] = _sides
    return compare(engine, client, scope, part)
