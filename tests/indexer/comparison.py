"""Compare a pipeline's index with the database by the indexer's functions, and collect the results."""

from typing import NamedTuple

from indexer.verify.compare import Scope, compare_ranges, index_of
from indexer.verify.pool import ComparisonPool
from indexer.verify.ranges import RANGE_ROWS, id_ranges
from indexer.verify.suspects import ConfirmedDifference
from tests.indexer.conftest import Pipeline


class Report(NamedTuple):
    compared: int
    in_flight: int
    differences: list[ConfirmedDifference]

    @property
    def causes(self) -> dict[str, str]:
        """The cause of each difference by document id, which must be unique."""
        causes: dict[str, str] = {difference.id: difference.cause for difference in self.differences}
        assert len(causes) == len(self.differences)
        return causes


def compare_index(pipeline: Pipeline, *, rows: int = RANGE_ROWS, consumers: int = 0) -> Report:
    """Compare all documents.

    Args:
        pipeline: its index and its database.
        rows: consumers of a range.
        consumers: tells the pool how many there are, and so whether to use processes.
    """
    engine = pipeline.database.engine
    pool = ComparisonPool(pipeline.database.settings, engine, pipeline.writer)
    scope = Scope(index_of(engine, pipeline.index_name), None)
    try:
        results = list(compare_ranges(id_ranges(engine, None, rows=rows), pool.submitter(scope, consumers)))
    finally:
        pool.close()
    return Report(
        sum(result.compared for result in results),
        sum(result.in_flight for result in results),
        [difference for result in results for difference in result.differences],
    )
