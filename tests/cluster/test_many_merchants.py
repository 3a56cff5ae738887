"""A hundred thousand merchants with waiting changes: the metrics have the same series, and are still read in time."""

import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.metrics import metrics
from tests.service import Database, Service
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

MERCHANTS = 100_000
ADD_MERCHANTS = (
    sa.text("INSERT INTO organizations (name) SELECT 'Merchant ' || n FROM generate_series(1, :merchants) AS n"),
    sa.text("""
        INSERT INTO environments (organization_id, mode)
        SELECT id, mode FROM organizations, unnest(CAST(:modes AS text[])) AS mode"""),
    sa.text("""
        INSERT INTO outbox (environment_id, consumer_id, version, lane)
        SELECT id, 'cons_' || lpad(id::text, 26, '0'), 1, lane
        FROM environments, unnest(CAST(:lanes AS text[])) AS lane"""),
)
VALUES = {"merchants": MERCHANTS, "modes": ["live", "test"], "lanes": ["live", "bulk"]}


def test_metrics_do_not_grow_with_the_merchants(quiet: Database, tmp_path: Path) -> None:
    service = Service(quiet, tmp_path)
    service.start("api")
    try:
        own = ("consumers_requests_total", "GET", "/metrics", "200")
        before = wait_until(lambda: values if own in (values := metrics(service)) else {}, what="the first scrape")
        with quiet.engine.begin() as connection:
            for statement in ADD_MERCHANTS:
                connection.execute(statement, VALUES)

        seconds: list[float] = []

        def are_counted() -> dict[tuple[str, ...], float]:
            began = time.monotonic()
            values = metrics(service)
            seconds.append(time.monotonic() - began)
            return values if values.get(("consumers_outbox_waiting", "bulk")) == MERCHANTS else {}

        after = wait_until(are_counted, what="the waiting changes in the metrics")
        assert after.keys() - before.keys() == set()
        assert after["consumers_outbox_oldest_seconds", "live"] > 0
        ready = f"{service.operations_url}/health/ready"
        wait_until(lambda: httpx.get(ready).json()["indexLagMs"], what="the lag of all environments")
        print(f"{len(after)} series, read in {max(seconds):.2f} s at most")  # noqa: T201 (the figures of the test)
    finally:
        service.close()
