"""The command `consumers import` as a process: exit codes, errors, and interruptions."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.servers import LocalServers
from tests.imports.import_environment import ImportEnvironment
from tests.waiting import wait_until

CONSUMERS = str(Path(sys.executable).with_name("consumers"))
ROWS = 60_000
CHUNK = 5_000


@pytest.fixture
def environ(servers: LocalServers, database_url: str) -> dict[str, str]:
    addresses = {**servers.addresses, "database_url": database_url}
    return {**os.environ, **{name.upper(): address for name, address in addresses.items()}}


@pytest.fixture
def large(shop: ImportEnvironment) -> Path:
    rows = (f"{n},person.{n}@shop.example,Person {n},+44 7400 {n:06}" for n in range(ROWS))
    shop.path.write_text("\n".join(["externalId,email,fullName,phone", *rows]))
    return shop.path


def run(environ: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CONSUMERS, "import", *arguments], env=environ, capture_output=True, text=True, timeout=300, check=False
    )


def test_exit_code_depends_on_rejected_rows(shop: ImportEnvironment, environ: dict[str, str]) -> None:
    options = ("--org", shop.name, "--column", "Name=fullName", "--column", "Notes=")
    shop.path.write_text("externalId,Name,Notes\n1,Ann,x\n2,\x07,y\n")
    result = run(environ, "consumers", shop.path, *options)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("2 rows read: 1 inserted, 0 updated, 0 unchanged, 1 rejected (")
    assert str(shop.errors_path) in result.stdout
    shop.path.write_text("externalId,Name,Notes\n1,Ann,x\n2,Bob,y\n")
    result = run(environ, "consumers", shop.path, *options, "--json")
    assert result.returncode == 0
    counts = {"read": 2, "inserted": 1, "updated": 0, "unchanged": 1, "rejected": 0, "errors_file": None}
    assert json.loads(result.stdout).items() >= counts.items()


def test_pipe_is_imported(shop: ImportEnvironment, environ: dict[str, str]) -> None:
    command = 'exec "$0" import consumers <(printf "email\\na@shop.example\\nwrong\\n") --org "$1"'
    result = subprocess.run(
        ["bash", "-c", command, CONSUMERS, shop.name],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=shop.path.parent,
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert "piped-consumers.errors.csv" in result.stdout
    assert (shop.path.parent / "piped-consumers.errors.csv").exists()
    assert shop.stored("email") == [("a@shop.example",)]


def test_lines_that_were_not_read_are_an_error(shop: ImportEnvironment, environ: dict[str, str]) -> None:
    shop.path.write_text('email;Vorname;Name\na@shop.example;Ann;Lee\nb@shop.example;"Bob;Ray\nc@shop.example;;\n')
    result = run(environ, "consumers", shop.path, "--org", shop.name, "--column", 'fullName="Vorname"+"Name"')
    assert result.returncode == 1
    assert result.stderr.startswith("Line 3: a quote opens and never closes, so line 3 to 4 (2 in all) was not read")
    assert shop.stored("full_name") == [("Ann Lee",)]


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({}, ["--org", "nobody"], "There is no organization 'nobody'"),
        ({}, ["--column", "fullName"], "--column takes HEADER=FIELD"),
        ({}, ["--delimiter", "ab"], "--delimiter takes one character, or tab, not 'ab'"),
        ({"DATABASE_URL": "mysql://x"}, [], "DATABASE_URL is invalid"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, [], "The database failed: connection failed"),
    ],
)
def test_fatal_error_is_one_line_with_exit_code_2(
    shop: ImportEnvironment, environ: dict[str, str], changed: dict[str, str], options: list[str], message: str
) -> None:
    shop.path.write_text("externalId\n1\n")
    result = run({**environ, **changed}, "consumers", shop.path, "--org", shop.name, *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr
    assert shop.stored("id") == []


@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_interrupted_import_leaves_whole_chunks_and_can_rerun(
    shop: ImportEnvironment, environ: dict[str, str], large: Path, signal_number: signal.Signals, status: int
) -> None:
    process = subprocess.Popen(
        [CONSUMERS, "import", "consumers", large, "--org", shop.name], env=environ, stdout=subprocess.PIPE
    )
    wait_until(lambda: len(shop.stored("1")) >= CHUNK, what="the first chunk")
    process.send_signal(signal_number)
    process.communicate(timeout=60)  # ends once its worker processes have ended, because they share the output
    assert process.returncode == status
    # A chunk in the middle of its commit may still be stored.
    active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    wait_until(lambda: shop.row(active) == (0,), what="the import's sessions to end")
    stored = len(shop.stored("1"))
    assert 0 < stored < ROWS
    assert stored % CHUNK == 0
    result = run(environ, "consumers", large, "--org", shop.name, "--json")
    assert result.returncode == 0
    counts = json.loads(result.stdout)
    assert (counts["unchanged"], counts["inserted"]) == (stored, ROWS - stored)
    assert len(shop.stored("1")) == shop.changes() == ROWS
