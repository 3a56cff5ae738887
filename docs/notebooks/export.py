# /// script
# requires-python = ">=3.11"
# dependencies = ["altair>=6", "duckdb>=1.4", "marimo", "pandas>=2.2"]
# ///

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="An export")

with app.setup:
    import json
    import os
    from pathlib import Path

    import altair as alt
    import duckdb
    import marimo as mo


@app.cell
def _():
    mo.md("""
    # An export

    Who buys, how often, and who comes back, from the files of an export: all numbers are exact, and of one moment. The
    variable `EXPORT` names the folder of the export (docs/analysts.md).

    DuckDB computes the sums, because pandas has no decimals: a plot may round, a total may not.
    """)


@app.cell
def _():
    folder = Path(os.environ.get("EXPORT", "export")).resolve()
    database = duckdb.connect()
    database.execute(f"SET file_search_path = '{folder}'")
    database.execute((folder / "analytics.sql").read_text("utf-8"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return database, manifest


@app.cell
def _(database, manifest):
    (buyers, returning, value), *_ = database.execute("""
        SELECT count(*), count(*) FILTER (WHERE total_orders > 1), sum(total_order_value)
        FROM consumers WHERE total_orders > 0
    """).fetchall()
    repeat_rate = returning / buyers
    mo.md(f"""
    As of {manifest["asOf"]}: {manifest["sums"]["consumers"]["rows"]:,} consumers, of whom {buyers:,} have bought for
    {value:,} {manifest["currency"]}. **Repeat rate: {repeat_rate:.1%}** of the buyers have at least two orders.
    """)
    return repeat_rate, value


@app.cell
def _(database, value):
    months = database.execute("""
        SELECT CAST(date_trunc('month', placed_at) AS DATE) AS month,
            CASE WHEN date_trunc('month', placed_at) = date_trunc('month', first_order_at)
                THEN 'new' ELSE 'returning' END AS buyers,
            count(*) AS orders, sum(value) AS revenue
        FROM orders JOIN consumers ON consumers.id = consumer_id WHERE counts GROUP BY ALL ORDER BY ALL
    """).df()
    assert round(months["revenue"].sum(), 4) == float(value), "the orders are those of the totals"
    alt.Chart(months, title="Revenue by month, of new and of returning buyers").mark_bar().encode(
        x="month:T", y="revenue:Q", color="buyers:N", tooltip=["month", "buyers", "orders", "revenue"]
    )
    return (months,)


@app.cell
def _(database):
    rfm = database.execute("""
        SELECT recency, frequency, count(*) AS buyers, sum(total_order_value) / count(*) AS money
        FROM (SELECT total_order_value, ntile(5) OVER (ORDER BY last_order_at) AS recency,
                  least(total_orders, 5) AS frequency
              FROM consumers WHERE total_orders > 0)
        GROUP BY ALL ORDER BY ALL
    """).df()
    _cells = alt.Chart(rfm, title="Recency, frequency, money", width=300, height=240).encode(
        x=alt.X("recency:O", title="fifth of the buyers by the last order, 5 is the newest"),
        y=alt.Y("frequency:O", sort="descending", title="orders, at most 5"),
    )
    _cells.mark_rect().encode(color=alt.Color("money:Q", title="mean value")) + _cells.mark_text().encode(
        text="buyers:Q"
    )
    return (rfm,)


@app.cell
def _(database):
    cohorts = database.execute("""
        WITH bought AS (
            SELECT DISTINCT consumer_id, date_trunc('month', first_order_at) AS cohort,
                date_diff('month', date_trunc('month', first_order_at), date_trunc('month', placed_at)) AS month
            FROM orders JOIN consumers ON consumers.id = consumer_id WHERE counts)
        SELECT strftime(cohort, '%Y-%m') AS cohort, month, count(*) AS buyers,
            count(*) / first(count(*)) OVER (PARTITION BY cohort ORDER BY month) AS share
        FROM bought GROUP BY cohort, month ORDER BY ALL
    """).df()
    alt.Chart(
        cohorts[cohorts["month"] > 0], title="Share of a cohort that buys again, by months since"
    ).mark_rect().encode(x="month:O", y="cohort:O", color="share:Q", tooltip=["cohort", "month", "buyers", "share"])
    return (cohorts,)


@app.cell
def _(database):
    second_orders = database.execute("""
        SELECT date_diff('day', first, second) AS days
        FROM (SELECT placed_at AS first, lead(placed_at) OVER w AS second, row_number() OVER w AS number
              FROM orders WHERE counts WINDOW w AS (PARTITION BY consumer_id ORDER BY placed_at, id))
        WHERE number = 1 AND second IS NOT NULL
    """).df()
    alt.Chart(second_orders, title="Days from the first to the second order").mark_bar().encode(
        x=alt.X("days:Q", bin=alt.Bin(step=30)), y="count()"
    )
    return (second_orders,)


@app.cell
def _(database):
    shares = database.execute("""
        SELECT percent, max(share) AS share
        FROM (SELECT ceil(100 * row_number() OVER w / count(*) OVER ()) AS percent,
                  sum(total_order_value) OVER w / sum(total_order_value) OVER () AS share
              FROM consumers WHERE total_orders > 0 WINDOW w AS (ORDER BY total_order_value DESC, id))
        GROUP BY percent ORDER BY percent
    """).df()
    alt.Chart(shares, title="Share of the revenue of the best buyers").mark_line().encode(
        x=alt.X("percent:Q", title="best buyers, in percent"), y=alt.Y("share:Q").axis(format="%")
    )
    return (shares,)


@app.cell
def _(database):
    products = database.execute("""
        SELECT product_id AS product, sum(quantity) AS sold, count(DISTINCT consumer_id) AS buyers
        FROM order_items WHERE counts GROUP BY product_id ORDER BY sold DESC LIMIT 20
    """).df()
    alt.Chart(products, title="Best-selling products").mark_bar().encode(
        x="sold:Q", y=alt.Y("product:N", sort="-x"), tooltip=["product", "sold", "buyers"]
    )
    return (products,)


if __name__ == "__main__":
    app.run()
