"""Exports: complete, exact, of one moment, and without personal data unless asked for (contract.md §6).

Three exports of one environment serve all tests: one with personal data as Parquet, one without, requested by a key for
analysts, and one as CSV by the command.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from infra.accounts import keys
from infra.exports import attributes
from tests.api.audiences import create_audience, send_members
from tests.api.exports import Fields, await_export, begin_export, download, opened
from tests.api.resources import create
from tests.cli import consumers_command
from tests.service import NO_CERTIFICATES, Account, Service, new_account

PERSONAL: dict[str, Any] = {
    "email": "Ann.Secret@tiny.example",
    "phone": "+442079460111",
    "fullName": 'Ann "Q" Secretname, of Nowhere 🎉',
    "externalId": "secret-customer-17",
    "metadata": {
        "note": "secretnote",
        "tier": "gold",
        "points": 12.5,
        "vip": True,
        "address": {"city": "Secretville", "floors": [1, 2.50, -3e10, None, False, {"deep": "secret👩‍👩‍👧"}]},
        "none": None,
        "exact": 12345678901234567890.123456789,
    },
}
ORDER: dict[str, Any] = {
    "amount": "99999999999.9999",
    "baseAmount": "0.0001",
    "currencyCode": "EUR",
    "externalId": "secret-order-1",
    "items": [{"productId": 'A "1",', "quantity": 2.5, "unitAmount": "1.10"}, {"productId": "B", "quantity": 1}],
    "metadata": {"gift": "secretgift"},
}
EDGES = sa.text(r"""
    INSERT INTO consumers (environment_id, email, full_name, phone, external_id, metadata, created_at)
    VALUES (:e, NULL, E'\\N\nx', '12 34', E'a\tb', NULL, '0001-01-02Z'),
        (:e, '', 'NULL', '+15555550000 x12', ',', '{}', '9999-12-29 23:59:59.999Z'),
        (:e, 'x@EXAMPLE.com', '"', NULL, '""', '{"tier": 5, "points": "7", "vip": "true"}', '2024-01-01Z'),
        (:e, 'y@EXAMPLE.com', E' \r\n a\rb ', '', E'\\', '{"": {"a,b": [[], {}, "\u0001\n\r\""]}}', '2024-01-01Z'),
        (:e, 'z@EXAMPLE.com', U&'\FEFF\+10FFFF\FFFD', NULL, '''', '{"points": 1e400, "tier": -0.000}', '2024-01-01Z')
    """)
ORDERS = sa.text("""
    INSERT INTO orders (environment_id, consumer_id, status, amount, refunded_amount, currency_code, base_amount,
        placed_at, external_id)
    SELECT :e, :id, (ARRAY['CREATED', 'COMPLETED', 'CANCELLED', 'REFUNDED'])[n % 4 + 1], n + 0.01, n % 7 * 0.1, 'USD',
        n + 0.01, timestamptz '2024-02-29Z' + n * interval '1 day 0.001 seconds', 'secret-order-of-' || md5('o' || n)
    FROM generate_series(2, 60) AS n
    UNION ALL SELECT :e, :id, 'COMPLETED', 999999999999999.9999, 0, 'JPY', 0.0001, '0001-01-02Z', NULL
    UNION ALL SELECT :e, :id, 'COMPLETED', 0, 0, 'USD', 0, '9999-12-29 23:59:59.999Z', NULL""")
# Four consumers share a domain, and four a second one below it.
CROWD = sa.text("""
    INSERT INTO consumers (environment_id, email, phone, full_name, external_id, metadata)
    SELECT :e, md5('local' || n) || '@' || CASE n % 2 WHEN 0 THEN 'shop.' ELSE '' END || 'family'
            || md5('domain' || n / 8) || '.example',
        '+4420' || 79000000 + n * 7919, md5('given' || n) || ' ' || md5('family' || n), md5('own id' || n),
        jsonb_build_object('note', md5('note' || n))
    FROM generate_series(0, 999) AS n""")
STORED = {
    "consumers": """
        SELECT id, coalesce(email_as_sent, email), phone, full_name, external_id, metadata::text, total_orders,
            total_order_value, (SELECT min(placed_at) FROM orders o WHERE o.consumer_id = c.id AND o.counts),
            last_order_at, created_at, updated_at, email IS NOT NULL, phone IS NOT NULL, full_name IS NOT NULL,
            external_id IS NOT NULL, nullif(lower(split_part(email, '@', 2)), '')
        FROM consumers c WHERE environment_id = :e""",
    "orders": """
        SELECT id, consumer_id, external_id, status, amount, refunded_amount, currency_code, base_amount, value, counts,
            placed_at, created_at, updated_at, metadata::text FROM orders WHERE environment_id = :e""",
    "audiences": "SELECT id, name, type, created_at FROM audiences WHERE environment_id = :e",
}
EXPORTED = {
    "consumers": """
        id, email, phone, full_name, external_id, metadata, total_orders, total_order_value, first_order_at,
        last_order_at, created_at, updated_at, has_email, has_phone, has_name, has_external_id, email_domain""",
    "orders": """
        id, consumer_id, external_id, status, amount, refunded_amount, currency_code, base_amount, value, counts,
        placed_at, created_at, updated_at, metadata""",
    "audiences": "id, name, type, created_at",
}
IS_TIME = {"first_order_at", "last_order_at", "created_at", "updated_at", "placed_at"}
PERSONAL_VALUES = sa.text("""
    SELECT unnest(ARRAY[email, email_as_sent, split_part(email, '@', 1), phone, full_name, external_id,
        metadata ->> 'note', metadata -> 'address' ->> 'city']) FROM consumers WHERE environment_id = :e
    UNION SELECT unnest(ARRAY[external_id, metadata ->> 'gift']) FROM orders WHERE environment_id = :e
    UNION SELECT split_part(email, '@', 2) FROM consumers WHERE environment_id = :e GROUP BY 1 HAVING count(*) < 5""")
MEDIA_TYPES = {
    "consumers-0001.parquet": "application/vnd.apache.parquet",
    "consumers-0001.csv": "text/csv; charset=utf-8",
    "analytics.sql": "application/sql",
    "manifest.json": "application/json",
}


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
            connection.execute(CROWD, {"e": self.environment})
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

    def assert_equals(self, database: Any) -> None:
        """Compare the tables of an export with personal data with those of PostgreSQL, in both directions."""
        for table in STORED:
            exported, stored = exported_rows(database, table), self.stored(table)
            assert (exported - stored, stored - exported) == (set(), set())
        members = set(database.execute("SELECT audience_id, consumer_id, added_at IS NULL FROM members").fetchall())
        silver = database.execute("SELECT id FROM consumers WHERE attr_tier = 'silver'").fetchall()
        assert len(silver) == 5
        assert members == {
            (self.static, self.ann["id"], False),
            *((self.dynamic, consumer, True) for (consumer,) in silver),
        }


def _milliseconds(value: Any) -> Any:
    return round(value.timestamp() * 1000) if hasattr(value, "timestamp") else value


def exported_rows(database: Any, table: str) -> set[tuple[Any, ...]]:
    columns = [name.strip() for name in EXPORTED[table].split(",")]
    chosen = ", ".join(f"epoch_ms({name})" if name in IS_TIME else name for name in columns)
    return set(database.execute(f"SELECT {chosen} FROM {table}").fetchall())


class Made(NamedTuple):
    """Two exports of one environment, with their files."""

    shop: Shop
    analyst: httpx.Client
    """With a key that has no other scope than `read:analytics`."""
    key_id: str
    """Of the analyst."""
    whole: Fields
    """With personal data."""
    masked: Fields
    """Without personal data, requested by the analyst."""
    folder: Path
    """With the files, below the names of the exports."""

    @property
    def live(self) -> httpx.Client:
        return self.shop.account.live

    def path(self, number: int = 0) -> str:
        """Return the path of a file of the export without personal data."""
        return path_of(self.masked["files"][number])


def path_of(file: Fields) -> str:
    return str(file["href"]).removeprefix("/api/v1")


@pytest.fixture(scope="module")
def made(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("exports")
    with new_account(service) as account:
        shop = Shop(account)
        with account.database.engine.begin() as connection:
            key = keys.create(connection, account.name, "live", scopes=["read:analytics"])
        headers = {"Authorization": f"Bearer {key.key}"}
        with httpx.Client(
            base_url=f"{service.url}/api/v1", headers=headers, timeout=30, verify=NO_CERTIFICATES
        ) as analyst:
            requested = [begin_export(account.live, personal=True), begin_export(analyst)]
            whole, masked = (await_export(account.live, export) for export in requested)
            download(account.live, whole, folder / "whole")
            download(analyst, masked, folder / "masked")
            yield Made(shop, analyst, key.id, whole, masked, folder)


def test_export_equals_the_tables_in_both_directions(made: Made) -> None:
    with opened(made.folder / "whole") as database:
        made.shop.assert_equals(database)
        lines = database.execute(
            "SELECT product_id, quantity::VARCHAR, unit_amount::VARCHAR FROM order_items"
        ).fetchall()
        typed = database.execute(
            "SELECT attr_tier, attr_points, attr_vip FROM consumers WHERE metadata IS NOT NULL"
        ).fetchall()
        wrong = database.execute("""
            SELECT count(*) FROM consumers c LEFT JOIN (
                SELECT consumer_id, count(*) AS n, sum(value) AS total FROM orders WHERE counts GROUP BY 1) o
                ON o.consumer_id = c.id
            WHERE (total_orders, total_order_value) IS DISTINCT FROM (coalesce(n, 0), coalesce(total, 0))""").fetchone()
        countries = database.execute(
            "SELECT phone, phone_country FROM consumers WHERE external_id IS NULL OR length(external_id) < 32"
        ).fetchall()
        described = database.execute("SELECT count(*) FROM fields WHERE description = ''").fetchone()
    assert lines == [('A "1",', "2.500", "1.1000"), ("B", "1.000", None)]
    assert {("gold", 12.5, True), ("5", None, None), ("0.000", None, None)} <= set(typed)
    assert wrong == (0,)
    assert {"+442079460111": "GB", "12 34": None, "+15555550000 x12": "US", "": None}.items() <= dict(countries).items()
    assert described == (0,)


def test_export_describes_itself(made: Made) -> None:
    export = made.whole
    assert {name: sums["rows"] for name, sums in export["sums"].items()} == {
        "consumers": 1011,
        "orders": 62,
        "audiences": 2,
        "members": 6,
    }
    listed = made.live.get("/consumers", headers={"Consistency-Token": export["consistencyToken"]})
    assert (listed.status_code, listed.headers.get("Index-Stale")) == (200, None)
    manifest = json.loads((made.folder / "whole/manifest.json").read_text("utf-8"))
    for name in ("id", "asOf", "membersAsOf", "consistencyToken", "sums", "tables", "format", "personal"):
        assert manifest[name] == export[name], name
    described = [{name: value for name, value in file.items() if name != "href"} for file in export["files"]]
    assert manifest["files"] == [file for file in described if file["name"] != "manifest.json"]


def test_masked_export_has_no_personal_value_in_any_file(made: Made) -> None:
    assert not made.masked["personal"]
    folder = made.folder / "masked"
    with opened(folder) as database:
        tables = [name for (name,) in database.execute("SELECT DISTINCT table_name FROM fields").fetchall()]
        texts = [str(row) for table in (*tables, "order_items") for row in database.execute(f"FROM {table}").fetchall()]
        domains = database.execute("SELECT email_domain, count(*) FROM consumers GROUP BY 1").fetchall()
        shown = database.execute("SELECT count(attr_tier), count(*) FILTER (WHERE has_email) FROM consumers").fetchone()
    everything = "\n".join(texts).lower().encode() + b"".join(file.read_bytes().lower() for file in folder.iterdir())
    with made.shop.account.database.engine.connect() as connection:
        stored = connection.execute(PERSONAL_VALUES, {"e": made.shop.environment}).scalars()
        values = [value.lower().encode() for value in stored if value and len(value) > 4]
    assert len(values) > 5 * 1000
    assert [value for value in values if value in everything] == []
    assert set(domains) == {("common.example", 5), ("(other)", 1004), (None, 2)}
    assert shown == (8, 1010)


def test_requester_of_an_export_is_on_record(made: Made) -> None:
    listed = {each["id"]: each for each in made.analyst.get("/exports").json()["data"]}
    masked, whole = listed[made.masked["id"]], listed[made.whole["id"]]
    assert (masked["keyId"], masked["personal"]) == (made.key_id, False)
    assert whole["keyId"] not in {None, made.key_id}
    assert whole["personal"]


def test_personal_data_needs_its_scope_for_the_request_and_the_download(made: Made) -> None:
    refused = made.analyst.post("/exports", json={"personal": True})
    assert refused.status_code == 403
    assert "read:consumers" in refused.json()["message"]
    for file in made.whole["files"]:
        for method in ("GET", "HEAD"):
            assert made.analyst.request(method, path_of(file)).status_code == 403
            assert made.live.request(method, path_of(file)).status_code == 200


def test_download_has_the_type_of_the_file(made: Made) -> None:
    types = {}
    for file in made.masked["files"]:
        head = made.live.head(path_of(file))
        size, name = str(file["bytes"]), file["name"]
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, size, b"")
        assert head.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        types[name] = head.headers["Content-Type"]
    assert types.items() >= {item for item in MEDIA_TYPES.items() if item[0] in types}
    assert len(types) == len(made.masked["files"])


def test_download_continues_after_an_interruption(made: Made) -> None:
    file = made.masked["files"][0]
    path, size = made.path(), file["bytes"]
    whole = made.live.get(path, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in whole.headers
    etag = whole.headers["ETag"]
    for header, expected in (
        ("bytes=0-9", whole.content[:10]),
        (f"bytes={size - 5}-", whole.content[-5:]),
        ("bytes=-7", whole.content[-7:]),
        (f"bytes=3-{size + 100}", whole.content[3:]),
    ):
        part = made.live.get(path, headers={"Range": header, "If-Range": etag})
        assert (part.status_code, part.content) == (206, expected), header
        assert part.headers["Content-Range"].endswith(f"/{size}")
    for header in ("bytes=9-3", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert made.live.get(path, headers={"Range": header}).content == whole.content, header
    for other in ('"other"', f"W/{etag}", "Sat, 01 Nov 2025 10:00:00 GMT"):
        assert made.live.get(path, headers={"Range": "bytes=0-1", "If-Range": other}).status_code == 200, other
    behind = made.live.get(path, headers={"Range": f"bytes={size}-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert made.live.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_exports_of_other_environments_and_other_names_do_not_exist(made: Made, account: Account) -> None:
    path, file = f"/exports/{made.masked['id']}", made.path()
    name = file.rpartition("/")[2]
    assert made.live.get(file).status_code == 200
    for client in (made.shop.account.test, account.live):
        for foreign in (path, file):
            assert client.get(foreign).status_code == 404
        assert client.delete(path).status_code == 404
        assert client.get("/exports").json()["data"] == []
    for unknown in (
        "/exports/exp_1",
        "/exports/exp_" + "0" * 26,
        path.swapcase(),
        f"/exports/{made.shop.ann['id']}",
        *(
            f"{path}/files/{wrong}"
            for wrong in (
                "x.parquet",
                "x",
                name.upper(),
                f"{name}%00",
                f"{name}%0A",
                f"1%2F{name}",
                f".%2F{name}",
                f"..%2F{made.whole['id']}%2F{name}",
                "..%2F..%2F..%2F..%2Fetc%2Fpasswd",
                "%2Fetc%2Fpasswd",
                f"%2e%2e%5c{name}",
            )
        ),
    ):
        for method in ("GET", "HEAD"):
            response = made.live.request(method, unknown)
            assert response.status_code == 404, (unknown, response.status_code)


def test_command_writes_the_same_files_and_deletes_the_export(
    service: Service,
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    account, out = made.shop.account, tmp_path / "out"
    consumers = consumers_command(account.database, monkeypatch, capsys)
    monkeypatch.setenv("EXPORTS_URL", service.exports_url)
    command = ("export", "--org", account.name, "--out", str(out))
    result = consumers(*command, "--format", "csv", "--personal", "--json")
    assert result.code == 0, result.err
    with opened(out) as database:
        made.shop.assert_equals(database)
    assert consumers(*command).code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    record = made.live.get(f"/exports/{json.loads(result.out)['id']}").json()
    assert (record["keyId"], record["state"], record["files"]) == (None, "expired", [])


def test_deleted_export_has_no_files(made: Made) -> None:
    listed = await_export(made.live, begin_export(made.live, format="csv", tables=["consumers"]))
    path, file = f"/exports/{listed['id']}", path_of(listed["files"][0])
    assert made.live.head(file).headers["Content-Type"] == MEDIA_TYPES["consumers-0001.csv"]
    deleted = made.live.delete(path).json()
    assert (deleted["state"], deleted["files"]) == ("expired", [])
    for method in ("GET", "HEAD"):
        assert made.live.request(method, file).status_code == 404
    assert made.live.get(path).json() == made.live.delete(path).json() == deleted
