"""pgsync, installed for itself, over a PostgreSQL of its own, as it needs logical decoding, with the shop's rows."""

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
"""Plugins: one that adds the totals; and one that makes documents as this service's are, with the code for that."""
CODE = ("msgspec", "phonenumbers")
"""What that code is made with."""
DATABASE, INDEX = "peer", "peer"
LIMIT_SECONDS = 600
STILL = 300
"""Looks at an index that does not change: more seconds than it ever stood still with something to do."""
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
    """One whose tables are filled, and that has synced nothing yet."""

    address: str
    """Of its database."""
    search: OpenSearch
    environ: dict[str, str]
    folder: Path

    def _start(self, log: IO[str], name: str, *more: str) -> subprocess.Popen[bytes]:
        command = [str(HOME / "bin" / name), "-c", "schema.json", *more]
        return subprocess.Popen(command, env=self.environ, cwd=self.folder, stdout=log, stderr=log)

    def run(self, name: str) -> None:
        """Run one of its commands to its end.

        Raises:
            RuntimeError: with the end of what it said.
        """
        with (self.folder / f"{name}.log").open("w") as log:
            ended = self._start(log, name)
            try:
                ended.wait(LIMIT_SECONDS)
            finally:
                # Of one that takes too long, or when the run is ended meanwhile; else it is over.
                ended.kill()
                ended.wait()
        if ended.returncode:
            raise RuntimeError(f"{name} failed: {(self.folder / f'{name}.log').read_text()[-1000:]}")

    @contextmanager
    def following(self) -> Iterator[None]:
        """It syncs what changes meanwhile."""
        with (self.folder / "daemon.log").open("w") as log:
            daemon = self._start(log, "pgsync", "-d")
            try:
                yield
                assert daemon.poll() is None, (self.folder / "daemon.log").read_text()[-1000:]
            finally:
                daemon.kill()
                daemon.wait()

    def prepare(self) -> None:
        """Make its index as this service's are; with room for what pgsync keeps in each document for itself."""
        own = mapping.MAPPING["properties"] | {"_meta": {"type": "object", "enabled": False}}
        settings = {name: value for name, value in mapping.INDEX_SETTINGS.items() if name != "refresh_interval"}
        self.search.indices.create(
            index=INDEX, body={"settings": settings, "mappings": {"dynamic": "strict", "properties": own}}
        )

    def settled(self, still: int = STILL) -> None:
        """Wait until the index stays as it is for so many looks."""
        seen: list[str] = []

        def is_still() -> bool:
            self.search.indices.refresh(index=INDEX)
            stats = self.search.indices.stats(index=INDEX, metric="indexing")["_all"]["total"]["indexing"]
            seen.append(str(stats["index_total"] + stats["delete_total"]))
            return len(seen) > still and len(set(seen[-still:])) == 1

        wait_until(is_still, 120, "the peer to come to rest")


def installed() -> None:
    """Install it once.

    Raises:
        RuntimeError: it cannot be had.
    """
    if (HOME / "installed").exists():
        return
    progress(f"installing pgsync {VERSION}")
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    wanted = [f"pgsync=={VERSION}", *(f"{name}=={version(name)}" for name in CODE)]
    for command in ([sys.executable, "-m", "venv", str(HOME)], [*pip, *wanted]):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        if ended.returncode:
            raise RuntimeError(f"pgsync {VERSION} cannot be installed: {ended.stderr[-500:]}")
    (HOME / "installed").touch()


@contextmanager
def opened(shop: Shop, servers: LocalServers, folder: Path, consumers: int, plugin: Path = TOTALS) -> Iterator[Peer]:
    """A peer with the tables of the large environment, as many consumers of it."""
    installed()
    folder.mkdir()
    given = {name: servers.addresses[name.lower()] for name in ("REDIS_URL", "OPENSEARCH_URL")}
    with ExitStack() as stack:
        own = stack.enter_context(LocalServers(folder / "servers", KEEPING, environ=given))
        with psycopg.connect(own.postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET wal_level = logical")
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
        own.postgres.stop()
        own.postgres.start()
        address = urlunsplit(urlsplit(own.postgres.url)._replace(path=f"/{DATABASE}"))
        fill(shop, address, consumers)
        search = stack.enter_context(OpenSearch(given["OPENSEARCH_URL"], timeout=60))
        stack.callback(search.indices.delete, index=INDEX, params={"ignore_unavailable": "true"})
        (folder / "plugins").mkdir()
        (folder / "plugins" / "__init__.py").touch()
        (folder / "plugins" / "totals.py").write_text(plugin.read_text())
        (folder / "schema.json").write_text(json.dumps(SCHEMA))
        redis = urlunsplit(urlsplit(given["REDIS_URL"])._replace(path="/14"))
        # How far it is; the next one begins anew.
        stack.callback(stack.enter_context(Redis.from_url(redis)).flushdb)
        environ = {
            "PG_URL": address,
            "REDIS_URL": redis,
            "ELASTICSEARCH_URL": given["OPENSEARCH_URL"],
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
