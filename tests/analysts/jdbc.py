"""DuckDB's JDBC driver, as BI tools use it: a process of Java, without a Python package of DuckDB."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from infra.local import java
from infra.local.artifacts import Artifact, fetch
from infra.local.errors import LocalError

DRIVER = Artifact(
    "org.duckdb",
    "duckdb_jdbc",
    "2.0.0.1",
    "jar",
    80_297_452,
    "6cb8b0e0fc51b2e45aead2d2c1e1fd09dd10267db2966e69aaab0de67319f826",
)
PROGRAM = """
import json, sys
import jpype
jvm, jar, url, *queries = sys.argv[1:]
jpype.startJVM(jvm, "-Xmx256m", classpath=[jar])
statement = jpype.java.sql.DriverManager.getConnection(url).createStatement()
for query in queries:
    rows = statement.executeQuery(query)
    columns = range(1, rows.getMetaData().getColumnCount() + 1)
    table = []
    while rows.next():
        table.append([None if rows.getObject(n) is None else str(rows.getString(n)) for n in columns])
    print(json.dumps(table))
"""
VIRTUAL_MACHINES = ("lib/server/libjvm.so", "lib/server/libjvm.dylib")


def ask(url: str, *queries: str) -> list[list[list[Any]]]:
    """Run queries on a new connection, and return their rows as texts."""
    try:
        home, driver = java.find().home, fetch(DRIVER, platformdirs.user_cache_path("consumers"))
    except LocalError as error:
        pytest.skip(f"JDBC needs Java and DuckDB's driver: {error}")
    [machine] = [home / name for name in VIRTUAL_MACHINES if (home / name).exists()]
    command = [sys.executable, "-c", PROGRAM, str(machine), str(driver), url, *queries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def url_for(template: str, folder: Path) -> str:
    """Return the URL of the page for a folder of an export."""
    return template.strip().replace("/data/shop", str(folder))
