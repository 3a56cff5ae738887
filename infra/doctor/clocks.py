"""Check of the clocks of the servers against the clock of this machine."""

import time
from collections.abc import Iterator

import sqlalchemy as sa

from infra.doctor.checks import Check, Finding, Servers

SECONDS = 5.0
NOW = sa.text("SELECT extract(epoch FROM clock_timestamp())::float8")


def agree(servers: Servers) -> Iterator[Finding]:
    """Find differences from the clock of this machine."""
    with servers.engine.connect() as connection:
        connection.execute(NOW)  # opens the connection
        before = time.time()
        yield from of_clock("PostgreSQL", connection.execute(NOW).scalar_one(), before, time.time())
    before = time.time()
    seconds, microseconds = servers.redis.time()
    yield from of_clock("Redis", seconds + microseconds / 1e6, before, time.time())
    before = time.time()
    fields = {"filter_path": "nodes.*.name,nodes.*.process.timestamp"}
    answer = servers.search.nodes.stats(metric="process", params=fields)
    after = time.time()
    for node in answer.get("nodes", {}).values():
        yield from of_clock(f"Node {node['name']}", node["process"]["timestamp"] / 1000, before, after)


def of_clock(server: str, then: float, before: float, after: float) -> Iterator[Finding]:
    """Yield the finding of a clock with the time `then`, read between `before` and `after`, in Unix seconds."""
    difference = max(before - then, then - after)
    if difference > SECONDS:
        direction = "behind" if then < before else "ahead of"
        yield Finding(
            f"The clock of {server} is {difference:.0f} seconds {direction} the clock of this machine",
            "Run an NTP client on both machines. No guarantee needs this, but minutes of rate limits, times in answers "
            "and the ends of certificates do",
            is_warning=True,
        )


CHECKS: tuple[Check, ...] = (agree,)
