"""Exports: complete, exact, of one moment, and without personal data unless asked for (contract.md §6)."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from infra.accounts import keys
from infra.exports import attributes
from tests.api.audiences import create_audience, send_members
from tests.api.exports import download, opened, request_export
from tests.api.resources import create
from tests.cli import consumers_command
from tests.service import Account, Service

PERSONAL: dict[str, Any] = {
    "email": "Ann.Secret@tiny.example",
    "phone": "+442079460111",
    "fullName": 'Ann "Q" Secretname, of Nowhere 🎉',
    "externalId": "secret-customer-17",
    "metadata": {"note": "secretnote", "tier": "gold", "points": 12.5, "vip": True, "address": {"city": "Secretville"}},
}
ORDER: dict[str, Any] = {
    "amount": "99999999999.9999",
    "baseAmount": "0.0001",
    "currencyCode": "EUR",
    "externalId": "secret-order-1",
    "items": [{"productId": 'A "1",', "quantity": 2.5, "unitAmount": "1.10"}, {"productId": "B", "quantity": 1}],
    "metadata": {"gift": "secretgift"},
}
EDGES = sa.text("""
    INSERT INTO consumers (environment_id, email, full_name, phone, external_id, metadata, created_at)
    VALUES (:e, NULL, E'\\\\N\nx', '12 34', E'a\\tb', NULL, '0001-01-02Z'),
        (:e, '', 'NULL', '+15555550000 x12', ',', '{}', '9999-12-29 23:59:59.999Z'),
        (:e, 'x@EXAMPLE.com', '''"', NULL, '""', '{"tier": 5, "points": "7", "vip": "true"}', '2024-01-01Z')""")
ORDERS = sa.text("""
    INSERT INTO orders (environment_id, consumer_id, status, amount, refunded_amount, currency_code, base_amount,
        placed_at)
    SELECT :e, :id, (ARRAY['CREATED', 'COMPLETED', 'CANCELLED', 'REFUNDED'])[n % 4 + 1], n + 0.01, n % 7 * 0.1, 'USD',
        n + 0.01, timestamptz '2024-02-29Z' + n * interval '1 day 0.001 seconds'
    FROM generate_series(1, 60) AS n
    UNION ALL SELECT :e, :id, 'COMPLETED', 999999999999999.9999, 0, 'JPY', 0.0001, '0001-01-02Z'""")
STORED = {
    "consumers": """
        SELECT id, coalesce(email_as_sent, email), phone, full_name, external_id, metadata::text, total_orders,
            total_order_value, (SELECT min(placed_at) FROM orders o WHERE o.consumer_id = c.id AND o.counts),
            last_order_at, created_at, updated_at
        FROM consumers c WHERE environment_id = :e""",
    "orders": """
        SELECT id, consumer_id, external_id, status, amount, refunded_amount, currency_code, base_amount, value, counts,
            placed_at, created_at, updated_at, metadata::text FROM orders WHERE environment_id = :e""",
    "audiences": "SELECT id, name, type, created_at FROM audiences WHERE environment_id = :e",
}
EXPORTED = {
    "consumers": """
        id, email, phone, full_name, external_id, metadata, total_orders, total_order_value, first_order_at,
        last_order_at, created_at, updated_at""",
    "orders": """
        id, consumer_id, external_id, status, amount, refunded_amount, currency_code, base_amount, value, counts,
        placed_at, created_at, updated_at, metadata""",
    "audiences": "id, name, type, created_at",
}
IS_TIME = {"first_order_at", "last_order_at", "created_at", "updated_at", "placed_at"}


class Shop:
    """An environment with edges of every type, and its rows as PostgreSQL has them."""

    def __init__(self, account: Account) -> None:
        self.account, self.environment = account, account.live_environment
        self.ann = create(account.live, **PERSONAL)
        for number in range(5):
            create(account.live, email=f"n{number}@common.example", metadata={"tier": "silver"})
        self.order = create(account.live, "/orders", consumerId=self.ann["id"], **ORDER)
        with account.database.engine.begin() as connection:
            connection.execute(EDGES, {"e": self.environment})
            connection.execute(ORDERS, {"e": self.environment, "id": self.ann["id"]})
            attributes.declare(
                connection,
                account.name,
                attributes.parse(["metadata.tier:text", "metadata.points:number", "metadata.vip:boolean"]),
            )
        self.static = create_audience(account, "STATIC", "Friends")["id"]
        send_members(account, "POST", self.static, [self.ann["id"]]).raise_for_status()
        rules = [{"field": "metadata.tier", "operator": "EQUALS", "values": ["silver"]}]
        self.dynamic = create_audience(account, "DYNAMIC", "Silver", rules=rules)["id"]

    def stored(self, table: str) -> set[tuple[Any, ...]]:
        """Return the rows of a table, times as milliseconds."""
        with self.account.database.engine.connect() as connection:
            rows = connection.execute(sa.text(STORED[table]), {"e": self.environment})
            return {tuple(_milliseconds(value) for value in row) for row in rows}


def _milliseconds(value: Any) -> Any:
    return round(value.timestamp() * 1000) if hasattr(value, "timestamp") else value


def exported(database: Any, table: str) -> set[tuple[Any, ...]]:
    columns = [name.strip() for name in EXPORTED[table].split(",")]
    chosen = ", ".join(f"epoch_ms({name})" if name in IS_TIME else name for name in columns)
    return set(database.execute(f"SELECT {chosen} FROM {table}").fetchall())


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_export_equals_the_tables_in_both_directions(account: Account, tmp_path: Path, file_format: str) -> None:
    shop = Shop(account)
    export = request_export(account.live, format=file_format, personal=True)
    download(account.live, export, tmp_path / "export")
    with opened(tmp_path / "export") as database:
        for table in STORED:
            assert exported(database, table) == shop.stored(table)
        members = database.execute("SELECT audience_id, consumer_id, added_at IS NULL FROM members").fetchall()
        silver = database.execute("SELECT id FROM consumers WHERE attr_tier = 'silver'").fetchall()
        lines = database.execute(
            "SELECT product_id, quantity::VARCHAR, unit_amount::VARCHAR FROM order_items"
        ).fetchall()
        typed = database.execute(
            "SELECT attr_tier, attr_points, attr_vip FROM consumers WHERE metadata IS NOT NULL ORDER BY created_at"
        ).fetchall()
        wrong = database.execute("""
            SELECT count(*) FROM consumers c LEFT JOIN (
                SELECT consumer_id, count(*) AS n, sum(value) AS total FROM orders WHERE counts GROUP BY 1) o
                ON o.consumer_id = c.id
            WHERE (total_orders, total_order_value) IS DISTINCT FROM (coalesce(n, 0), coalesce(total, 0))""").fetchone()
        countries = database.execute("SELECT phone, phone_country FROM consumers WHERE phone IS NOT NULL").fetchall()
        described = database.execute("SELECT count(*) FROM fields WHERE description = ''").fetchone()
    assert sorted(members) == sorted(
        [(shop.static, shop.ann["id"], False), *((shop.dynamic, consumer, True) for (consumer,) in silver)]
    )
    assert len(silver) == 5
    assert lines == [('A "1",', "2.500", "1.1000"), ("B", "1.000", None)]
    assert ("gold", 12.5, True) in typed
    assert ("5", None, None) in typed
    assert wrong == (0,)
    assert dict(countries) == {"+442079460111": "GB", "12 34": None, "+15555550000 x12": "US"}
    assert described == (0,)
    assert export["sums"]["orders"]["rows"] == 62
    listed = account.live.get("/consumers", headers={"Consistency-Token": export["consistencyToken"]})
    assert (listed.status_code, listed.headers.get("Index-Stale")) == (200, None)
    manifest = json.loads((tmp_path / "export/manifest.json").read_text("utf-8"))
    assert manifest["asOf"] == export["asOf"]
    assert manifest["consistencyToken"] == export["consistencyToken"]
    assert {file["name"] for file in manifest["files"]} | {"manifest.json"} == {f["name"] for f in export["files"]}


def test_masked_export_has_no_personal_value_in_any_file(account: Account, tmp_path: Path) -> None:
    Shop(account)
    export = request_export(account.live)
    assert not export["personal"]
    folder = tmp_path / "export"
    download(account.live, export, folder)
    with opened(folder) as database:
        tables = [name for (name,) in database.execute("SELECT DISTINCT table_name FROM fields").fetchall()]
        texts = [str(row) for table in (*tables, "order_items") for row in database.execute(f"FROM {table}").fetchall()]
        domains = database.execute("SELECT email_domain, count(*) FROM consumers GROUP BY 1").fetchall()
        shown = database.execute("SELECT count(attr_tier), count(*) FILTER (WHERE has_email) FROM consumers").fetchone()
    everything = "\n".join(texts).lower().encode() + b"".join(file.read_bytes().lower() for file in folder.iterdir())
    with account.database.engine.connect() as connection:
        personal = connection.execute(
            sa.text("""
                SELECT unnest(ARRAY[nullif(email, ''), phone, full_name, external_id, metadata ->> 'note',
                    metadata -> 'address' ->> 'city']) FROM consumers WHERE environment_id = :e
                UNION SELECT unnest(ARRAY[external_id, metadata ->> 'gift']) FROM orders WHERE environment_id = :e"""),
            {"e": account.live_environment},
        ).scalars()
        values = [value.lower().encode() for value in personal if value and len(value) > 4]
    assert len(values) > 10
    assert [value for value in values if value in everything] == []
    assert b"tiny.example" not in everything
    assert set(domains) == {("common.example", 5), ("(other)", 2), (None, 2)}
    assert shown == (7, 8)


def test_download_continues_after_an_interruption(account: Account) -> None:
    create(account.live)
    export = request_export(account.live, tables=["consumers"])
    file = export["files"][0]
    path, size = file["href"].removeprefix("/api/v1"), file["bytes"]
    whole = account.live.get(path, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in whole.headers
    etag = whole.headers["ETag"]
    for header, expected in (
        ("bytes=0-9", whole.content[:10]),
        (f"bytes={size - 5}-", whole.content[-5:]),
        ("bytes=-7", whole.content[-7:]),
        (f"bytes=3-{size + 100}", whole.content[3:]),
    ):
        part = account.live.get(path, headers={"Range": header, "If-Range": etag})
        assert (part.status_code, part.content) == (206, expected), header
        assert part.headers["Content-Range"].endswith(f"/{size}")
    for header in ("bytes=9-3", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert account.live.get(path, headers={"Range": header}).content == whole.content, header
    assert account.live.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    behind = account.live.get(path, headers={"Range": f"bytes={size}-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert account.live.get(path, headers={"If-None-Match": etag}).status_code == 304
    head = account.live.head(path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(size), b"")


def test_exports_of_other_environments_do_not_exist(account: Account) -> None:
    export = request_export(account.live, tables=["audiences"])
    path = f"/exports/{export['id']}"
    file = f"{path}/files/{export['files'][0]['name']}"
    assert account.live.get(file).status_code == 200
    for foreign in (path, file):
        assert account.test.get(foreign).status_code == 404
    assert account.test.delete(path).status_code == 404
    assert account.test.get("/exports").json()["data"] == []
    for unknown in ("/exports/exp_1", f"{path}/files/x.parquet", f"{path}/files/..%2F..", "/exports/exp_" + "0" * 26):
        response = account.live.get(unknown)
        assert response.status_code == 404, unknown
    assert [each["id"] for each in account.live.get("/exports").json()["data"]] == [export["id"]]
    deleted = account.live.delete(path).json()
    assert (deleted["state"], deleted["files"]) == ("expired", [])
    assert account.live.get(file).status_code == 404
    assert account.live.get(path).json() == deleted


def test_personal_data_needs_its_scope_for_the_request_and_the_download(service: Service, account: Account) -> None:
    with account.database.engine.begin() as connection:
        key = keys.create(connection, account.name, "live", scopes=["read:analytics"])
    with ExitStack() as stack:
        headers = {"Authorization": f"Bearer {key.key}"}
        analyst = stack.enter_context(httpx.Client(base_url=f"{service.url}/api/v1", headers=headers, timeout=30))
        refused = analyst.post("/exports", json={"personal": True})
        assert refused.status_code == 403
        assert "read:consumers" in refused.json()["message"]
        assert analyst.post("/exports", json={"personal": False, "tables": ["audiences"]}).status_code == 202
        export = request_export(account.live, tables=["audiences"], personal=True)
        file = export["files"][0]["href"].removeprefix("/api/v1")
        assert analyst.get(file).status_code == 403
        assert account.live.get(file).status_code == 200
        assert analyst.get(f"/exports/{export['id']}").json()["keyId"] == export["keyId"] != key.id


def test_command_writes_the_same_files_into_a_new_folder(
    service: Service,
    account: Account,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create(account.live, email="ann@example.com")
    consumers = consumers_command(account.database, monkeypatch, capsys)
    monkeypatch.setenv("EXPORTS_URL", service.exports_url)
    out = tmp_path / "out"
    result = consumers("export", "--org", account.name, "--out", str(out), "--format", "csv")
    assert result.code == 0, result.err
    with opened(out) as database:
        assert database.execute("SELECT has_email FROM consumers").fetchall() == [(True,)]
    assert consumers("export", "--org", account.name, "--out", str(out)).code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
