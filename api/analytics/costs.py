"""The costs of a body with aggregations, from the body alone (docs/decisions/0045-live-questions.md).

The maxima of an aggregation are multiplied by those of the aggregations around. Four sums are limited:

- buckets: memory of OpenSearch, and the size of the answer;
- numbers: the size of the answer, which this process converts;
- sketches: metrics that need 16 KB (`cardinality`) to 250 KB (`percentiles`) in each bucket;
- work: processor time of OpenSearch for each consumer. A unit is 20 to 40 ns of a free core, so with a million
  consumers, the maximum takes 2 to 4 seconds.
"""

from api.analytics.fields import Refused
from api.analytics.values import Checked, Place

MAX_BUCKETS, MAX_NUMBERS, MAX_SKETCHES, MAX_WORK = 10_000, 50_000, 100, 100
FEWER = "give hard_bounds, a smaller size, or fewer ranges or filters; or use an export"


class Costs:
    """The costs of the aggregations of a body so far."""

    def __init__(self) -> None:
        self._buckets = self._numbers = self._sketches = self._work = 0

    def add(self, checked: Checked, place: Place) -> None:
        """Add the costs of an aggregation.

        Raises:
            Refused: a limit is exceeded.
        """
        buckets = place.buckets * checked.buckets
        self._buckets += buckets
        self._numbers += (buckets or place.buckets) * checked.numbers
        self._sketches += place.buckets * checked.sketches
        self._work += place.overlap * checked.work
        if self._buckets > MAX_BUCKETS:
            message = f"A body has at most {MAX_BUCKETS:,} buckets, and this one may have {self._buckets:,}: {FEWER}"
            raise Refused(place.path, message)
        if self._numbers > MAX_NUMBERS:
            message = f"An answer has at most {MAX_NUMBERS:,} numbers, and this one may have {self._numbers:,}: {FEWER}"
            raise Refused(place.path, message)
        if self._sketches > MAX_SKETCHES:
            raise Refused(
                place.path,
                f"A body has at most {MAX_SKETCHES} cardinalities and percentiles, each counted in every bucket, and "
                f"this one may have {self._sketches:,}: {FEWER}",
            )
        if self._work > MAX_WORK:
            raise Refused(
                place.path,
                f"The body needs too much time for each consumer ({self._work} units of {MAX_WORK}): use fewer "
                "aggregations, and fewer filters and ranges around them; or use an export",
            )
