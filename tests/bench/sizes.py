"""Bytes per consumer in the index and in each table."""

import sqlalchemy as sa

from tests.bench.bench import Bench
from tests.bench.shop import Shop

TABLES = ("consumers", "orders", "audience_members")
SIZES = sa.text("""
    SELECT pg_table_size(c.oid) AS rows, pg_indexes_size(c.oid) AS indexes
    FROM pg_class c WHERE c.oid = CAST(:name AS regclass)""")


def measure(bench: Bench) -> None:
    shop = bench.shop
    rows = [["index", f"{index_bytes(shop):,.0f}", "", ""]]
    with shop.database.engine.connect() as connection:
        for name in TABLES:
            sizes = connection.execute(SIZES, {"name": name}).one()
            number = connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one()
            figures = [size / shop.consumers for size in (sizes.rows + sizes.indexes, sizes.rows, sizes.indexes)]
            rows.append([f"{name}, {number / shop.consumers:.2f} rows", *(f"{figure:,.0f}" for figure in figures)])
    bench.report.say(f"Bytes per consumer, with {shop.consumers:,} consumers; index size after a rebuild.")
    bench.report.table(["", "bytes", "rows with TOAST", "indexes"], rows)


def index_bytes(shop: Shop) -> float:
    """Return the index bytes per consumer."""
    stats = shop.database.search.indices.stats(index=shop.index_name, metric="store")["_all"]["primaries"]
    return float(stats["store"]["size_in_bytes"]) / shop.consumers
