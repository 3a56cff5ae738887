"""Description of the machine and the servers."""

import os
import platform
import re
import subprocess
from pathlib import Path

import psycopg
import redis
from opensearchpy import OpenSearch

from infra.local.servers import LocalServers
from infra.settings import ROOT


def commit() -> str:
    """Return the measured commit, with a plus if files differ."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return result.stdout.decode().strip() or "unknown"


def load() -> str:
    return " ".join(f"{average:.1f}" for average in os.getloadavg())


def described(servers: LocalServers) -> list[tuple[str, str]]:
    addresses = servers.addresses
    with psycopg.connect(addresses["database_url"]) as connection:
        (postgres,) = connection.execute("SHOW server_version").fetchone() or ("?",)
    with redis.Redis.from_url(addresses["redis_url"]) as queue:
        facts = queue.info("server")
    with OpenSearch(addresses["opensearch_url"]) as search:
        node = next(iter(search.nodes.info(metric="jvm")["nodes"].values()))
    processor = _match_in_file("/proc/cpuinfo", r"model name\s*: (.+)") or platform.machine()
    memory = int(_match_in_file("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / 2**20
    heap = node["jvm"]["mem"]["heap_max_in_bytes"] / 2**20
    return [
        ("processor", f"{processor}, {os.cpu_count()} cores"),
        ("memory", f"{memory:.1f} GiB"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("PostgreSQL", str(postgres)),
        ("Valkey", str(facts.get("valkey_version", facts["redis_version"]))),
        ("OpenSearch", f"{node['version']}, heap {heap:.0f} MiB"),
        ("Java", f"{node['jvm']['version']} ({node['jvm']['vm_name']})"),
    ]


def _match_in_file(file: str, pattern: str) -> str | None:
    path = Path(file)
    match = re.search(pattern, path.read_text()) if path.exists() else None
    return match[1] if match else None
