"""The figures of a large service: `make bench ONLY=large SIZE=10000000`.

This part needs no second copy of the rows, unlike `reads`, so 10,000,000 consumers fit a usual disk.
"""

import shutil

from tests.bench import freshness, sizes
from tests.bench.bench import Bench
from tests.bench.cases import cases
from tests.bench.reads import ask_by_turns
from tests.bench.report import progress
from tests.bench.timing import spread
from tests.bench.wire import Connection

DISK_BYTES = 5_000
"""Disk space for a consumer with orders: tables, their log, and the index with the space for its merges."""
TURNS, IN_A_ROW = 5, 5


def measure(bench: Bench) -> None:
    """Fill the service, and measure the first build, the sizes, every read, and freshness.

    Raises:
        OSError: the disk has too little space.
    """
    needed, free = bench.size * DISK_BYTES, shutil.disk_usage(bench.folder).free
    if free < needed:
        raise OSError(
            f"{bench.size:,} consumers need {needed / 1e9:.0f} GB of disk, and {free / 1e9:.0f} GB are free: "
            f"use SIZE={free // DISK_BYTES} or less, or set TMPDIR to a folder of a larger disk"
        )
    shop = bench.shop
    filling, verifying = shop.built.filling, shop.built.verifying
    rows = [
        ["rows, by COPY", f"{shop.filled:,.0f}", f"{shop.consumers / shop.filled:,.0f}"],
        ["index, filling", f"{filling:,.0f}", f"{shop.consumers / filling:,.0f}"],
        ["verification", f"{verifying:,.0f}", f"{shop.consumers / verifying:,.0f}"],
    ]
    bench.report.say(f"{shop.consumers:,} consumers with their orders, by {shop.processes} processes.")
    bench.report.table(["", "seconds", "consumers per second"], rows)
    sizes.measure(bench)
    _read(bench)
    freshness.measure(bench)


def _read(bench: Bench) -> None:
    shop = bench.shop
    rows = []
    with Connection(shop.database.settings.opensearch_url) as raw, Connection(shop.service.url) as api:
        for case in cases(shop):
            progress(case.name)
            times = ask_by_turns(case, raw, api, None, TURNS, IN_A_ROW)
            before, after = spread(times["raw"]), spread(times["api"])
            rows.append([case.name, f"{before:.1f}", f"{after:.1f}", f"{after.median - before.median:.1f}"])
    bench.report.say(f"One client, milliseconds: median (p10–p90) of {TURNS} turns of {IN_A_ROW} in a row.")
    bench.report.table(["", "raw `_search`", "API", "added"], rows)
