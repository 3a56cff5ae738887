"""pgsync in a separate virtual environment, on a separate PostgreSQL with logical decoding and the shop's rows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg
from opensearchpy import OpenSearch
from redis import Redis

from infra.index import mapping
from infra.local.servers import KEEPING, LocalServers
from infra.settings import ROOT
from tests.bench.report import progress
from tests.bench.shop import Shop
from tests.waiting import wait_until

VERSION = "7.3.0"
HOME = ROOT / ".local" / "bench" / f"pgsync-{VERSION}"
TOTALS, DOCUMENTS = (Path(__file__).with_name(name) for name in ("totals.txt", "documents.txt"))
"""Plugins: the first adds the totals, the second builds this service's documents with its code."""
PLUGIN_PACKAGES = ("email-validator", "iso4217", "msgspec", "phonenumbers", "python-ulid")
"""Packages needed by the second plugin."""
DATABASE, INDEX = "peer", "peer"
LIMIT_SECONDS = 600
EQUAL_POLLS = 300
"""Polls with an unchanged index that count as idle; longer than any pause with pending work."""
COLUMNS = "id, environment_id, version, email, phone, full_name, metadata, external_id, created_at, updated_at"
ORDER_COLUMNS = "id, consumer_id, amount, placed_at, environment_id, currency_code, base_amount, created_at, updated_at"
TABLES = """
    CREATE TABLE consumers (
        id text PRIMARY KEY, environment_id int NOT NULL, version bigint NOT NULL, email text, phone text,
        full_name text, metadata jsonb, external_id text, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE orders (
        id text PRIMARY KEY, consumer_id text NOT NULL, amount numeric NOT NULL,
        placed_at timestamptz NOT NULL DEFAULT now(), environment_id int NOT NULL, currency_code text NOT NULL,
        base_amount numeric NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now())"""
KEYS = """
    ALTER TABLE orders ADD FOREIGN KEY (consumer_id) REFERENCES consumers ON DELETE CASCADE;
    CREATE INDEX ON orders (consumer_id)"""
SCHEMA = [
    {
        "database": DATABASE,
        "index": INDEX,
        "plugins": ["Totals"],
        "nodes": {
            "table": "consumers",
            "columns": COLUMNS.split(", "),
            "children": [
                {
                    "table": "orders",
                    "columns": ["id", "amount", "placed_at"],
                    "relationship": {
                        "variant": "object",
                        "type": "one_to_many",
                        "foreign_key": {"child": ["consumer_id"], "parent": ["id"]},
                    },
                }
            ],
        },
    }
]


class Peer(NamedTuple):
    """A pgsync with filled tables and nothing synced yet."""

    address: str
    """The address of the database."""
    search: OpenSearch
    environ: dict[str, str]
    folder: Path

    def _start(self, log: IO[str], name: str, *options: str) -> subprocess.Popen[bytes]:
        command = [str(HOME / "bin" / name), "-c", "schema.json", *options]
        return subprocess.Popen(command, env=self.environ, cwd=self.folder, stdout=log, stderr=log)

    def run(self, name: str) -> None:
        """Run a command of pgsync to the end.

        Raises:
            RuntimeError: the command failed; the message has the end of the log.
        """
        with (self.folder / f"{name}.log").open("w") as log:
            process = self._start(log, name)
            try:
                process.wait(LIMIT_SECONDS)
            finally:
                # Only needed after a timeout or an interrupt.
                process.kill()
                process.wait()
        if process.returncode:
            raise RuntimeError(f"{name} failed: {(self.folder / f'{name}.log').read_text()[-1000:]}")

    @contextmanager
    def following(self) -> Iterator[None]:
        """Sync changes in the background."""
        with (self.folder / "daemon.log").open("w") as log:
            daemon = self._start(log, "pgsync", "-d")
            try:
                yield
                assert daemon.poll() is None, (self.folder / "daemon.log").read_text()[-1000:]
            finally:
                daemon.kill()
                daemon.wait()

    def prepare(self) -> None:
        """Create the index with this service's mapping, plus pgsync's own field `_meta`."""
        own = mapping.MAPPING["properties"] | {"_meta": {"type": "object", "enabled": False}}
        settings = {name: value for name, value in mapping.INDEX_SETTINGS.items() if name != "refresh_interval"}
        self.search.indices.create(
            index=INDEX, body={"settings": settings, "mappings": {"dynamic": "strict", "properties": own}}
        )

    def settled(self, equal_polls: int = EQUAL_POLLS) -> None:
        """Wait until the index is unchanged for a number of polls."""
        counts: list[str] = []

        def is_idle() -> bool:
            self.search.indices.refresh(index=INDEX)
            stats = self.search.indices.stats(index=INDEX, metric="indexing")["_all"]["total"]["indexing"]
            counts.append(str(stats["index_total"] + stats["delete_total"]))
            return len(counts) > equal_polls and len(set(counts[-equal_polls:])) == 1

        wait_until(is_idle, 120, "pgsync to be idle")


def installed() -> None:
    """Install pgsync once.

    Raises:
        RuntimeError: the installation failed.
    """
    if (HOME / "installed").exists():
        return
    progress(f"installing pgsync {VERSION}")
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    packages = [f"pgsync=={VERSION}", *(f"{name}=={version(name)}" for name in PLUGIN_PACKAGES)]
    for command in ([sys.executable, "-m", "venv", str(HOME)], [*pip, *packages]):
        process = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        if process.returncode:
            raise RuntimeError(f"pgsync {VERSION} cannot be installed: {process.stderr[-500:]}")
    (HOME / "installed").touch()


@contextmanager
def opened(shop: Shop, servers: LocalServers, folder: Path, consumers: int, plugin: Path = TOTALS) -> Iterator[Peer]:
    """Create a pgsync with the tables of some consumers of the large environment."""
    installed()
    folder.mkdir()
    addresses = {name: servers.addresses[name.lower()] for name in ("REDIS_URL", "OPENSEARCH_URL")}
    with ExitStack() as stack:
        own = stack.enter_context(LocalServers(folder / "servers", KEEPING, environ=addresses))
        with psycopg.connect(own.postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET wal_level = logical")
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
        own.postgres.stop()
        own.postgres.start()
        address = urlunsplit(urlsplit(own.postgres.url)._replace(path=f"/{DATABASE}"))
        fill(shop, address, consumers)
        search = stack.enter_context(OpenSearch(addresses["OPENSEARCH_URL"], timeout=60))
        stack.callback(search.indices.delete, index=INDEX, params={"ignore_unavailable": "true"})
        (folder / "plugins").mkdir()
        (folder / "plugins" / "__init__.py").touch()
        (folder / "plugins" / "totals.py").write_text(plugin.read_text())
        (folder / "schema.json").write_text(json.dumps(SCHEMA))
        redis = urlunsplit(urlsplit(addresses["REDIS_URL"])._replace(path="/14"))
        # Delete the checkpoint, so that the next pgsync starts from the beginning.
        stack.callback(stack.enter_context(Redis.from_url(redis)).flushdb)
        environ = {
            "PG_URL": address,
            "REDIS_URL": redis,
            "ELASTICSEARCH_URL": addresses["OPENSEARCH_URL"],
            "ELASTICSEARCH": "false",
            "OPENSEARCH": "true",
            "REDIS_CHECKPOINT": "true",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "PATH": os.environ["PATH"],
            "GENERAL_LOGGING_LEVEL": "WARNING",
            "CONSOLE_LOGGING_HANDLER_MIN_LEVEL": "WARNING",
        }
        yield Peer(address, search, environ, folder)


def fill(shop: Shop, address: str, consumers: int) -> None:
    chosen = f"SELECT id FROM consumers WHERE environment_id = {shop.large.id} ORDER BY id LIMIT {consumers}"
    with psycopg.connect(shop.address) as source, psycopg.connect(address, autocommit=True) as target:
        target.execute(TABLES)
        for table, columns, where in (
            ("consumers", COLUMNS, f"id IN ({chosen})"),
            ("orders", ORDER_COLUMNS, f"consumer_id IN ({chosen})"),
        ):
            out = f"COPY (SELECT {columns} FROM {table} WHERE {where}) TO STDOUT".encode()
            into = f"COPY {table} ({columns}) FROM STDIN".encode()
            with source.cursor().copy(out) as rows, target.cursor().copy(into) as copy:
                for row in rows:
                    copy.write(row)
        target.execute(KEYS)
        target.execute("VACUUM ANALYZE")
