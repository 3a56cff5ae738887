"""Tools of analysts on the sample data: answers from an export and live answers equal those of PostgreSQL."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch

from tests.analysts import answers, jdbc, pages
from tests.analysts.answers import Row, comparable
from tests.analysts.notebooks import fields_of, run
from tests.api.exports import opened
from tests.cli import consumers_command
from tests.service import Account, Service

QUESTIONS = pages.questions()
COMPARED_ELSEWHERE = {"Recency, frequency, money", "Percentiles of the order value", "Countries of phone numbers"}
"""The groups of `ntile` among equal values are free, percentiles are a list, and PostgreSQL has no countries."""


@pytest.fixture
def stored(shop: Account) -> Callable[..., list[Row]]:
    """Return a function that runs a query of `answers` in PostgreSQL."""

    def rows(query: str, **values: Any) -> list[Row]:
        with shop.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query), {"e": shop.live_environment} | values)]

    return rows


@pytest.fixture
def client(service: Service, key: str) -> Iterator[OpenSearch]:
    """OpenSearch's own client, on live questions."""
    client = OpenSearch(f"{service.url}/api/v1/analytics", headers={"Authorization": f"Bearer {key}"})
    yield client
    client.close()


def asked(folder: Path, question: str) -> list[Row]:
    with opened(folder) as database:
        # Without a package for time zones, Python gets times of a zone only as text.
        database.execute(f"CREATE TEMP TABLE answer AS {question}")
        names = database.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'answer'")
        columns = [
            f'CAST("{name}" AS TIMESTAMP)' if "TIME ZONE" in kind else f'"{name}"' for name, kind in names.fetchall()
        ]
        rows: list[Row] = database.execute(f"SELECT {', '.join(columns)} FROM answer").fetchall()
        return rows


def test_page_has_fifteen_questions_and_each_is_compared() -> None:
    assert len(QUESTIONS) == 15
    assert set(QUESTIONS) == answers.STORED.keys() | COMPARED_ELSEWHERE
    live = {title for title, question in QUESTIONS.items() if question.live}
    assert live == answers.LIVE.keys() | {"Percentiles of the order value"}


@pytest.mark.parametrize("title", answers.STORED)
def test_answer_equals_that_of_the_database(stored: Callable[..., list[Row]], export: Path, title: str) -> None:
    expected = comparable(stored(answers.STORED[title]))
    assert expected
    assert comparable(asked(export, QUESTIONS[title].sql)) == expected


def test_countries_percentiles_and_ranks_equal_those_of_the_database(
    stored: Callable[..., list[Row]], export: Path
) -> None:
    countries = answers.countries(stored(answers.COUNTRIES))
    assert len(countries) > 10
    assert comparable(asked(export, QUESTIONS["Countries of phone numbers"].sql)) == comparable(countries)
    [(percentiles,)] = asked(export, QUESTIONS["Percentiles of the order value"].sql)
    [(expected,)] = stored(answers.PERCENTILES)
    assert [float(each) for each in percentiles] == pytest.approx(expected, abs=1e-4)
    ranked = asked(export, QUESTIONS["Recency, frequency, money"].sql)
    assert comparable((row[0], row[2], row[3]) for row in ranked) == comparable(stored(answers.RFM))
    assert {rank for row in ranked for rank in row[4:]} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("title", [title for title, question in QUESTIONS.items() if question.result])
def test_answer_shown_on_the_page_is_that_of_the_sample_data(export: Path, title: str) -> None:
    row = asked(export, QUESTIONS[title].sql)[0]
    values = [each for value in row for each in (value if isinstance(value, list) else [value])]
    shown = str(QUESTIONS[title].result).split(", ")
    decimals = [len(number.partition(".")[2]) for number in shown]
    assert shown == [f"{value:.{places}f}" for value, places in zip(values, decimals, strict=True)]


@pytest.mark.parametrize("title", answers.LIVE)
def test_live_answer_equals_that_of_the_database(
    stored: Callable[..., list[Row]], client: OpenSearch, title: str
) -> None:
    body = QUESTIONS[title].live
    assert body
    match title:
        case "Recency, frequency, money":
            expected = stored(answers.RFM)
        case "Lapsed buyers: at least two orders, none for 180 days":
            before = body["query"]["bool"]["filter"][1]["range"]["lastOrderAt"]["lt"]
            expected = stored(answers.LAPSED.format("CAST(:before AS timestamptz)"), before=before)
        case "Countries of phone numbers":
            expected = answers.countries(stored(answers.COUNTRIES))
        case "Overlap of audiences":
            expected = [row for row in stored(answers.STORED[title]) if "Gold members" not in row]
        case _:
            # Without the consumers that have no address: they are in no group of domains.
            expected = [row for row in stored(answers.STORED[title]) if row[0] is not None]
    text = json.dumps(body)
    for (audience,) in stored("SELECT id FROM audiences WHERE environment_id = :e AND type = 'STATIC' ORDER BY id"):
        text = text.replace("aud_\\u2026", audience, 1)
    rows = answers.LIVE[title](client.search(index="consumers", body=json.loads(text)))
    assert rows
    assert comparable(rows) == comparable(expected)


def test_live_percentile_is_within_a_tenth_of_a_percentage_point(
    stored: Callable[..., list[Row]], client: OpenSearch
) -> None:
    body = QUESTIONS["Percentiles of the order value"].live
    values = client.search(index="consumers", body=body)["aggregations"]["percentiles"]["values"]
    ranks = [float(percent) / 100 for percent in values]
    [(low,)] = stored(answers.PERCENTILES_OF_BUYERS, ranks=[rank - 0.001 for rank in ranks])
    [(high,)] = stored(answers.PERCENTILES_OF_BUYERS, ranks=[rank + 0.001 for rank in ranks])
    assert len(ranks) == 3
    assert all(low <= value <= high for low, value, high in zip(low, values.values(), high, strict=True))


def test_pandas_gets_the_frame_of_the_page(
    desk: Path, stored: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    names: dict[str, Any] = {}
    exec(pages.block_with("analysts.md", "python", "file_search_path"), names)
    rows = [(month.to_pydatetime(), value) for month, value in names["months"].itertuples(index=False)]
    expected = stored(answers.STORED["Revenue by month"])
    assert comparable(rows) == comparable((month, value) for month, _, value in expected)


def test_jdbc_driver_reads_an_export_by_the_url_of_the_page(export: Path) -> None:
    [template] = [text for text in pages.blocks("analysts-tools.md", "text") if "jdbc:" in text]
    months = QUESTIONS["Revenue by month"].sql
    totals = "SELECT count(*) AS orders, sum(value) AS revenue FROM orders WHERE counts"
    [total], rows, described = jdbc.ask(
        jdbc.url_for(template, export), totals, months, "SELECT count(*) FROM fields WHERE table_name = 'orders'"
    )
    assert total == [str(value) for value in asked(export, totals)[0]]
    assert [row[1:] for row in rows] == [[str(value) for value in row[1:]] for row in asked(export, months)]
    assert int(described[0][0]) > 10


def test_file_for_bi_tools_has_every_row(export: Path, tmp_path: Path) -> None:
    block = pages.block_with("analysts-tools.md", "sh", "ATTACH")
    statements = block.partition('-c "')[2].partition('"')[0]
    assert statements.count("../shop.duckdb.new") == 1
    with opened(export) as database:
        database.execute(statements.replace("../shop.duckdb.new", str(tmp_path / "shop.duckdb")))
        for table in ("consumers", "orders", "order_items", "audiences", "members"):
            query = f"SELECT count(*) FROM (FROM {table} EXCEPT ALL FROM shop.{table})"
            assert database.execute(query).fetchone() == (0,)
            assert database.execute(f"SELECT count(*) > 0 FROM shop.{table}").fetchone() == (True,)


def test_own_index_filled_from_an_export_has_exact_sums(
    shop: Account, desk: Path, stored: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    code = pages.block_with("analysts-tools.md", "python", "helpers.bulk")
    address, name = shop.database.settings.opensearch_url, f"own-{os.getpid()}"
    chosen = f"EXPORT, CLUSTER, NAME = 'export', {address!r}, {name!r}"
    code, replaced = re.subn("^EXPORT, CLUSTER, NAME = .+$", lambda _: chosen, code, flags=re.MULTILINE)
    assert replaced == 1
    search = shop.database.search
    try:
        search.indices.create(index=f"{name}-orders-1", body={"aliases": {f"{name}-orders": {}}})  # of a former export
        exec(code, {})
        aggregations = {"countries": {"terms": {"field": "currency_code"}, "aggs": {"v": {"sum": {"field": "value"}}}}}
        answer = search.search(index=f"{name}-orders", body={"size": 0, "aggs": aggregations})
        rows = [
            (b["key"], b["doc_count"], round(b["v"]["value"], 4))
            for b in answer["aggregations"]["countries"]["buckets"]
        ]
        assert comparable(rows) == comparable(
            stored(f"SELECT currency_code, count(*), sum(value) {answers.O} GROUP BY 1")
        )
        [(consumers, value)] = stored(f"SELECT count(*), sum(total_order_value) {answers.C}")
        total = {"v": {"sum": {"field": "total_order_value"}}}
        answer = search.search(index=f"{name}-consumers", body={"size": 0, "aggs": total, "track_total_hits": True})
        assert answer["hits"]["total"]["value"] == consumers
        assert round(answer["aggregations"]["v"]["value"], 4) == float(value)
        assert len(search.indices.get(index=f"{name}-*")) == 2
    finally:
        search.indices.delete(index=f"{name}-*")


def test_command_keeps_the_files_in_the_folder_only(
    service: Service, shop: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    consumers = consumers_command(shop.database, monkeypatch, capsys)
    monkeypatch.setenv("EXPORTS_URL", service.exports_url)
    (tmp_path / "file").touch()
    before = shop.live.get("/exports").json()["data"]
    refused = consumers("export", "--org", shop.name, "--out", str(tmp_path / "file/out"))
    assert (refused.code, refused.err.count("give another folder in --out")) == (1, 1)
    assert shop.live.get("/exports").json()["data"] == before
    out = tmp_path / "new/out"
    done = consumers("export", "--org", shop.name, "--out", str(out), "--table", "audiences", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads((out / "manifest.json").read_text("utf-8"))
    newest = shop.live.get("/exports").json()["data"][0]
    assert (newest["state"], newest["files"], newest["sums"]) == ("expired", [], {"audiences": {"rows": 3}})


@pytest.mark.parametrize("notebook", pages.notebooks(), ids=lambda path: path.stem)
def test_notebook_draws_each_plot_from_data(
    service: Service,
    key: str,
    export: Path,
    stored: Callable[..., list[Row]],
    monkeypatch: pytest.MonkeyPatch,
    notebook: Path,
) -> None:
    for name, value in {"EXPORT": str(export), "URL": service.url, "KEY": key}.items():
        monkeypatch.setenv(name, value)
    charts, defined = run(notebook)
    assert len(charts) == notebook.read_text("utf-8").count("alt.Chart(") >= 5
    for chart in charts:
        for field, values in fields_of(chart).items():
            assert any(value not in {None, 0} for value in values), (chart.title, field)
    [(repeat_rate,)] = stored(answers.STORED["Repeat rate"])
    assert defined["repeat_rate"] == pytest.approx(float(repeat_rate), abs=1e-12)


def test_notebooks_are_plain_code_without_output() -> None:
    assert {path.name for path in pages.NOTEBOOKS.iterdir()} - {"__pycache__"} == {"README.md", "export.py", "live.py"}
    for notebook in pages.notebooks():
        text = notebook.read_text("utf-8")
        assert "\n@app.cell\n" in text
        assert max(map(len, text.splitlines())) <= 120
        assert "data:" not in text
