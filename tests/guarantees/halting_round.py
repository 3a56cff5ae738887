"""A round of the drain in this process that halts after each of its steps, as if its worker were frozen there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from greenlet import getcurrent, greenlet
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims
from indexer.drain import round as drain
from indexer.drain.bulk import IndexUnavailable
from indexer.drain.round import drain_round
from tests.indexer.conftest import Pipeline

STEPS = {
    "claim": (claims, "claim"),
    "read": (drain, "read_documents"),
    "write": (drain, "write_documents"),
    "refresh": (drain, "refresh"),
    "forget": (drain, "forget"),
}


class Killed(Exception):  # noqa: N818 (what happened, not what is wrong)
    """The round's worker is gone."""


class HaltingRound:
    """One round. Its connection's locks stay while it halts."""

    def __init__(self, pipeline: Pipeline, lane: str = "live", rows: int = claims.ROWS) -> None:
        self._pipeline, self._lane, self._rows = pipeline, lane, rows
        self._greenlet = greenlet(self._run)
        self.over = False

    def go_on(self) -> str | None:
        """Until after the next step, whose name is given; None if that was the round's end."""
        step: str | None = self._greenlet.switch()
        return step

    def finish(self) -> None:
        while not self.over:
            self.go_on()

    def kill(self) -> None:
        """As the server sees a worker's death: its transaction is rolled back."""
        if self._greenlet:  # it has begun, and not ended
            self._greenlet.throw(Killed)
        self.over = True

    def _run(self) -> None:
        try:
            with self._pipeline.database.engine.connect() as connection:
                with connection.begin():
                    # Whoever halts while another waits for its locks would wait for ever.
                    connection.execute(sa.text("SET lock_timeout = '1s'"))
                drain_round(connection, self._pipeline.writer, self._lane, self._rows)
        except (Killed, IndexUnavailable, OpenSearchException):
            pass
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == "55P03":
                raise AssertionError("a step of the drain waits for another drain's lock") from error
            # Halted for so long that the server has ended its session.
        finally:
            self.over = True


@contextmanager
def halting() -> Iterator[None]:
    """Let rounds halt; those that are no `HaltingRound` go on as ever."""
    kept = {name: getattr(place, function) for name, (place, function) in STEPS.items()}
    for name, (place, function) in STEPS.items():
        setattr(place, function, _halting_after(name, kept[name]))
    try:
        yield
    finally:
        for name, (place, function) in STEPS.items():
            setattr(place, function, kept[name])


def _halting_after(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    def halts(*given: Any, **named: Any) -> Any:
        result = step(*given, **named)
        if (parent := getcurrent().parent) is not None:
            parent.switch(name)
        return result

    return halts
