# /// script
# requires-python = ">=3.11"
# dependencies = ["altair>=6", "marimo", "opensearch-py>=3", "pandas>=2.2"]
# ///

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Live questions")

with app.setup:
    import os

    import altair as alt
    import marimo as mo
    import pandas as pd
    from opensearchpy import OpenSearch


@app.cell
def _():
    mo.md("""
    # Live questions

    The consumers as they are now, asked with the client of OpenSearch. The variables `URL` and `KEY` have the address
    of the API and a key with the scope `read:analytics` (docs/analysts.md). Counts and sums are exact, percentiles are
    not.
    """)


@app.cell
def _():
    client = OpenSearch(
        f"{os.environ.get('URL', 'http://127.0.0.1:8000')}/api/v1/analytics",
        headers={"Authorization": f"Bearer {os.environ['KEY']}"},
    )

    def ask(aggregations, **body):
        """Return the aggregations of the consumers that a query selects."""
        answer = client.search(index="consumers", body={"size": 0, "aggs": aggregations} | body)
        return answer["aggregations"]

    bought = {"range": {"totalOrders": {"gte": 1}}}
    return bought, ask, client


@app.cell
def _(bought, ask, client):
    answer = ask(
        {
            "value": {"sum": {"field": "totalOrderValue"}},
            "buyers": {"filter": bought},
            "returning": {"filter": {"range": {"totalOrders": {"gte": 2}}}},
        }
    )
    consumers = client.count(index="consumers")["count"]
    repeat_rate = answer["returning"]["doc_count"] / answer["buyers"]["doc_count"]
    mo.md(f"""
    {consumers:,} consumers have bought for {answer["value"]["value"]:,.2f}.
    **Repeat rate: {repeat_rate:.1%}** of the {answer["buyers"]["doc_count"]:,} buyers have at least two orders.
    """)
    return answer, consumers, repeat_rate


@app.cell
def _(bought, ask):
    _months = {
        "date_histogram": {"field": "createdAt", "calendar_interval": "month"},
        "aggs": {"b": {"filter": bought}},
    }
    months = pd.DataFrame(
        {"month": bucket["key_as_string"][:10], "orders": orders, "consumers": number}
        for bucket in ask({"months": _months})["months"]["buckets"]
        for orders, number in (
            ("at least one", bucket["b"]["doc_count"]),
            ("none", bucket["doc_count"] - bucket["b"]["doc_count"]),
        )
    )
    alt.Chart(months, title="Consumers by month of creation, with and without an order").mark_bar().encode(
        x="month:T", y="consumers:Q", color="orders:N"
    )
    return (months,)


@app.cell
def _(ask):
    _terms = {"terms": {"field": "phoneCountry", "size": 260}, "aggs": {"v": {"sum": {"field": "totalOrderValue"}}}}
    countries = pd.DataFrame(
        {"country": bucket["key"], "consumers": bucket["doc_count"], "value": bucket["v"]["value"]}
        for bucket in ask({"countries": _terms})["countries"]["buckets"]
    )
    alt.Chart(countries, title="Value by country of the phone number").mark_bar().encode(
        x="value:Q", y=alt.Y("country:N", sort="-x"), tooltip=["country", "consumers", "value"]
    )
    return (countries,)


@app.cell
def _(bought, ask):
    _histogram = {"field": "totalOrderValue", "interval": 100, "hard_bounds": {"min": 0, "max": 2000}}
    bands = pd.DataFrame(
        {"value": bucket["key"], "buyers": bucket["doc_count"]}
        for bucket in ask({"bands": {"histogram": _histogram}}, query=bought)["bands"]["buckets"]
    )
    alt.Chart(bands, title="Buyers by their value, to 2,000").mark_bar().encode(x="value:O", y="buyers:Q")
    return (bands,)


@app.cell
def _(bought, ask):
    _percentiles = {"field": "totalOrderValue", "percents": [1, 5, 10, 25, 50, 75, 90, 95, 99]}
    percentiles = pd.DataFrame(
        {"percent": float(percent), "value": value}
        for percent, value in ask({"p": {"percentiles": _percentiles}}, query=bought)["p"]["values"].items()
    )
    alt.Chart(percentiles, title="Percentiles of a buyer's value").mark_line(point=True).encode(
        x="percent:Q", y=alt.Y("value:Q").scale(type="log")
    )
    return (percentiles,)


@app.cell
def _():
    mo.md("""
    A point in time holds the index as it is: a walk with `search_after` meets every buyer once, while others write.
    """)


@app.cell
def _(bought, client):
    pit = client.create_pit(index="consumers", params={"keep_alive": "1m"})["pit_id"]
    walk = {"pit": {"id": pit}, "query": bought, "sort": ["id"], "size": 1000}
    rows = []
    while hits := client.search(body=walk)["hits"]["hits"]:
        rows += [hit["_source"] for hit in hits]
        walk["search_after"] = hits[-1]["sort"]
    client.delete_pit(body={"pit_id": [pit]})
    buyers = pd.DataFrame(rows)
    alt.Chart(
        buyers.groupby("totalOrders", as_index=False).agg(buyers=("id", "size"), value=("totalOrderValue", "mean")),
        title="Mean value by number of orders",
    ).mark_bar().encode(x="totalOrders:O", y="value:Q", tooltip=["totalOrders", "buyers", "value"])
    return (buyers,)


if __name__ == "__main__":
    app.run()
