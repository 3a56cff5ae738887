"""Passwords of compose.yaml, on the servers of the tests: the SQL of the role, and the command of Valkey."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import make_url

from infra.local import ports, postgres, valkey
from infra.local.servers import LocalServers
from infra.settings import ROOT
from tests.waiting import wait_until

ROLE = "consumers_service"
ROLE_SQL = ROOT / "infra" / "docker" / "roles.sql"


def run_role_sql(address: str, password: str) -> None:
    environ = os.environ | {"POSTGRES_SERVICE_PASSWORD": password}
    command = [str(postgres.PROGRAMS / "psql"), "--no-psqlrc", "--quiet", f"--file={ROLE_SQL}", address]
    subprocess.run(command, env=environ, check=True, stdin=subprocess.DEVNULL, timeout=60)


def role_of(address: str, password: str) -> tuple[Any, ...] | None:
    """Return the name of the role, and whether it is a superuser, may create roles, or may create databases."""
    url = make_url(address).set(username=ROLE, password=password)
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        return connection.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()


def test_role_of_the_service_has_its_password_and_no_rights(servers: LocalServers) -> None:
    address = servers.addresses["database_url"]
    try:
        for password in ("first'quoted", "second"):
            run_role_sql(address, password)
            assert role_of(address, password) == (ROLE, False, False, False)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            role_of(address, "first'quoted")
    finally:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"DROP ROLE IF EXISTS {ROLE}")


def test_valkey_of_compose_needs_its_password(tmp_path: Path) -> None:
    command = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["valkey"]["command"]
    (program,) = valkey.PROGRAMS.glob("*/valkey-server")
    port = ports.pick()
    shell, option, script = (part.replace("$$", "$") for part in command)
    environ = os.environ | {"VALKEYCLI_AUTH": "abc123", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    arguments = [shell, option, f"{script} --port {port} --bind {ports.LOOPBACK}"]
    with (
        subprocess.Popen(
            arguments, env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
        ) as server,
        redis.Redis(port=port, password="abc123") as client,
        redis.Redis(port=port) as stranger,
    ):
        try:
            wait_until(lambda: not ports.is_free(port), what="Valkey")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("save") == {"save": ""}
            with pytest.raises(redis.AuthenticationError):
                stranger.ping()
            assert b"abc123" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # the shell may have started Valkey as a process of its own
