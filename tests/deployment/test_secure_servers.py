"""The service as in production: TLS to the three servers, an owner for migrations, and a plain role for the rest.

The certificates are for the name `localhost` only, and signed by an authority of this test.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import trustme
from redis import Redis

from infra import queue, settings
from infra.database import installation
from infra.database.engine import open_engine
from infra.index.client import open_client, open_reader
from infra.local.postgres import PROGRAMS
from infra.local.servers import LocalServers
from infra.settings import Settings
from tests.deployment.tls_proxy import HOST, LOOPBACK, TlsProxy
from tests.service import PatientService, Service, database_at, new_account

NAME = f"secure_{os.getpid()}"
OWNER, PLAIN = f"{NAME}_owner", f"{NAME}_plain"
PASSWORD = "p@ss/word"
IN_URL = "p%40ss%2Fword"


class Secured(NamedTuple):
    """The three servers behind TLS."""

    ports: dict[str, int]
    authority: str
    redis_login: str
    opensearch_login: str

    def environ(self, role: str = PLAIN, *, host: str = HOST, is_trusted: bool = True) -> dict[str, str]:
        """Return the addresses, with a host and with or without the authority that signed the certificates."""
        root = self.authority if is_trusted else "system"
        addresses = {name: f"{host}:{port}" for name, port in self.ports.items()}
        environ = {
            "DATABASE_URL": f"postgresql://{role}:{IN_URL}@{addresses['database_url']}/{NAME}"
            f"?sslmode=verify-full&sslrootcert={root}",
            "REDIS_URL": f"rediss://{self.redis_login}{addresses['redis_url']}/0",
            "OPENSEARCH_URL": f"https://{self.opensearch_login}{addresses['opensearch_url']}",
            "INDEX_PREFIX": NAME.replace("_", "-"),
        }
        if is_trusted:
            environ |= {"REDIS_URL": f"{environ['REDIS_URL']}?ssl_ca_certs={root}", "OPENSEARCH_CA": root}
        return environ


def login(address: str) -> str:
    """Return user and password of an address, with the at sign."""
    return f"{urlsplit(address).netloc.rpartition('@')[0]}@"


@pytest.fixture(scope="module")
def secured(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(file)
    addresses = servers.addresses
    with ExitStack() as stack:
        certificate = authority.issue_cert(HOST)
        proxies = {name: stack.enter_context(TlsProxy(url, certificate)) for name, url in addresses.items()}
        ports = {name: proxy.port for name, proxy in proxies.items()}
        yield Secured(ports, str(file), login(addresses["redis_url"]), login(addresses["opensearch_url"]))


def consumers(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("consumers")), *arguments]
    return subprocess.run(
        command,
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def faults(output: str) -> list[str]:
    """Return the checks of `consumers doctor` with a fault. The servers of tests may lose data in a crash: a fault."""
    return [line.split()[1] for line in output.splitlines() if line.startswith("fault")]


def create_database(connection: psycopg.Connection[Any], name: str) -> None:
    """Create a database for the two roles, as docs/deploying.md describes it."""
    locale = "ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C' TEMPLATE template0"
    for statement in (
        f"CREATE DATABASE {name} OWNER {OWNER} {locale}",
        f"REVOKE ALL ON DATABASE {name} FROM public",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {PLAIN}",
    ):
        connection.execute(statement.encode())


@pytest.fixture(scope="module")
def roles(servers: LocalServers, secured: Secured) -> Iterator[Secured]:
    """The servers with an empty database that belongs to a role without further rights, and a plain role."""
    with psycopg.connect(servers.addresses["database_url"], autocommit=True) as connection:
        for role in (OWNER, PLAIN):
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'".encode())
        create_database(connection, NAME)
        try:
            yield secured
        finally:
            connection.execute(f"DROP DATABASE {NAME} WITH (FORCE)".encode())
            connection.execute(f"DROP ROLE {OWNER}, {PLAIN}".encode())


@pytest.fixture(scope="module")
def migrated(roles: Secured) -> Secured:
    migration = consumers(roles.environ(OWNER), "migrate", "--grant-to", PLAIN)
    assert (migration.returncode, faults(migration.stderr)) == (0, ["postgresql.settings"])
    return roles


@pytest.fixture(scope="module")
def service(servers: LocalServers, migrated: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service, with the plain role."""
    environ = migrated.environ()
    with database_at(servers, environ["DATABASE_URL"], environ) as database:
        running = PatientService(database, tmp_path_factory.mktemp("service"))
        try:
            running.start_all()
            yield running
        finally:
            running.close()


def test_every_process_and_command_works(service: Service, tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text("externalId,fullName\nC-1,Imported Person\n")
    environ = service.database.environ
    with new_account(service) as account:
        made = account.live.post("/consumers", json={"fullName": "Ann Lee"}, headers={"Prefer": "wait=10"})
        assert (made.status_code, made.headers["Index-State"]) == (201, "searchable")
        for arguments in (
            ("import", "consumers", str(tmp_path / "customers.csv"), "--org", account.name),
            ("index", "rebuild", "--wait"),
            ("index", "verify"),
            ("alive", "live"),
            ("alive", "bulk"),
            ("alive", "clock"),
            ("key", "create", account.name, "--mode", "live"),
        ):
            command = consumers(environ, *arguments)
            assert command.returncode == 0, (arguments, command.stdout, command.stderr)
        account.settled()
        assert {each["fullName"] for each in account.live.get("/consumers").json()["data"]} == {
            "Ann Lee",
            "Imported Person",
        }
        assert account.live.delete(f"/consumers/{made.json()['id']}").status_code == 200
        assert account.live.get(f"{service.url}/health/ready").status_code == 200
    for name in ("api", "worker", "background", "beat"):
        assert "permission denied" not in service.log(name)


def test_doctor_checks_certificates_and_rights(service: Service, migrated: Secured) -> None:
    """The host name of the certificates is `localhost` only."""
    doctor = consumers(service.database.environ, "doctor")
    assert (faults(doctor.stdout), "warn " in doctor.stdout) == (["postgresql.settings"], False), doctor.stdout
    other = consumers(migrated.environ(host=LOOPBACK), "doctor", "--only", "encryption.certificates")
    assert other.returncode == 1
    for variable in ("DATABASE_URL", "REDIS_URL", "OPENSEARCH_URL"):
        assert f"{variable}: the certificate of {LOOPBACK} cannot be verified" in other.stdout


def test_plain_role_may_not_migrate(migrated: Secured) -> None:
    refused = consumers(migrated.environ(PLAIN), "migrate")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"the role {PLAIN} may not change the tables, because it does not own them: run `consumers migrate` with the "
        "owner's name and password in DATABASE_URL\n"
    )


def test_missing_role_is_reported(migrated: Secured) -> None:
    refused = consumers(migrated.environ(OWNER), "migrate", "--grant-to", "nobody_here")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("there is no role nobody_here in PostgreSQL: create it with CREATE ROLE")


def test_missing_rights_are_reported_in_one_line(migrated: Secured) -> None:
    with psycopg.connect(migrated.environ(OWNER)["DATABASE_URL"], autocommit=True) as owner:
        owner.execute(f"REVOKE SELECT ON organizations FROM {PLAIN}".encode())
        try:
            refused = consumers(migrated.environ(), "org", "list")
        finally:
            owner.execute(f"GRANT SELECT ON organizations TO {PLAIN}".encode())
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "the role in DATABASE_URL lacks a right (permission denied for table organizations): run `consumers migrate "
        "--grant-to ROLE` as the owner of the tables\n"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE own (id int)",
        "DROP TABLE consumers",
        "ALTER TABLE consumers DISABLE TRIGGER ALL",
        "TRUNCATE outbox",
        "DELETE FROM sealing_keys",
        "UPDATE sealing_keys SET secret = secret",
        "DELETE FROM alembic_version",
    ],
)
def test_plain_role_changes_neither_schema_nor_sealing_keys(migrated: Secured, statement: str) -> None:
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(migrated.environ()["DATABASE_URL"]) as connection, refused:
        connection.execute(statement.encode())


def test_plain_role_may_use_tables_of_later_migrations(migrated: Secured) -> None:
    with psycopg.connect(migrated.environ(OWNER)["DATABASE_URL"], autocommit=True) as owner:
        owner.execute("CREATE TABLE later (id serial, name text)")
        with psycopg.connect(migrated.environ()["DATABASE_URL"]) as connection:
            connection.execute("INSERT INTO later (name) VALUES ('new')")
            connection.execute("UPDATE later SET name = 'changed'")
            assert connection.execute("DELETE FROM later RETURNING name").fetchall() == [("changed",)]
        owner.execute("DROP TABLE later")


def test_backup_is_restored_by_the_owner(servers: LocalServers, service: Service, tmp_path: Path) -> None:
    """The programs of PostgreSQL are built without TLS, so they connect to the server itself."""
    parts = urlsplit(servers.addresses["database_url"])
    copy, backup = f"{NAME}_copy", str(tmp_path / "backup")
    source, target = (f"postgresql://{OWNER}:{IN_URL}@{parts.hostname}:{parts.port}/{name}" for name in (NAME, copy))
    restore = ["pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", f"--dbname={target}", backup]
    with psycopg.connect(servers.addresses["database_url"], autocommit=True) as connection:
        create_database(connection, copy)
        try:
            for program, *arguments in (["pg_dump", "--format=custom", f"--file={backup}", source], restore):
                subprocess.run([str(PROGRAMS / program), *arguments], check=True, timeout=60)
            owner = {name: value.replace(f"/{NAME}?", f"/{copy}?") for name, value in service.database.environ.items()}
            migration = consumers(
                owner | {"DATABASE_URL": owner["DATABASE_URL"].replace(PLAIN, OWNER)}, "migrate", "--grant-to", PLAIN
            )
            assert (migration.returncode, faults(migration.stderr)[-1]) == (0, "ownership.copied_database")
            [confirmation] = re.findall(r"UPDATE installation[^;]+", (settings.ROOT / "docs/backup.md").read_text())
            with psycopg.connect(target, autocommit=True) as restored:
                restored.execute(confirmation.encode())
                assert restored.execute(str(installation.IS_COPY).encode()).fetchone() == (False,)
            keys = [
                sealing_key(address) for address in (service.database.environ["DATABASE_URL"], owner["DATABASE_URL"])
            ]
            assert keys[0] == keys[1]
        finally:
            connection.execute(f"DROP DATABASE {copy} WITH (FORCE)".encode())


def sealing_key(address: str) -> bytes:
    with psycopg.connect(address) as connection:
        row = connection.execute("SELECT secret FROM sealing_keys").fetchone()
    assert row
    return bytes(row[0])


def query_database(chosen: Settings) -> None:
    engine = open_engine(chosen)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def ping_redis(chosen: Settings) -> None:
    with Redis.from_url(chosen.redis_url, retry=None) as client:
        client.ping()


def connect_celery(chosen: Settings) -> None:
    with closing(queue.celery(chosen)) as app, app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def ask_index(chosen: Settings) -> None:
    with open_client(chosen) as client:
        client.info()


def ask_index_asynchronously(chosen: Settings) -> None:
    async def ask() -> None:
        async with open_reader(chosen) as client:
            await client.info()

    asyncio.run(ask())


CLIENTS = [query_database, ping_redis, connect_celery, ask_index, ask_index_asynchronously]


@pytest.mark.parametrize("connect", CLIENTS)
def test_certificates_are_verified(roles: Secured, connect: Callable[[Settings], None]) -> None:
    connect(settings.load(roles.environ()))
    with pytest.raises(Exception, match="certificate verify failed"):
        connect(settings.load(roles.environ(is_trusted=False)))
    with pytest.raises(Exception, match=r"certificate is not valid for|does not match host name"):
        connect(settings.load(roles.environ(host=LOOPBACK)))


def test_servers_accept_tls_only(secured: Secured) -> None:
    """Otherwise the tests above would not show that every client uses TLS."""
    chosen = settings.load(secured.environ())
    unencrypted = chosen.redis_url.replace("rediss://", "redis://").partition("?")[0]
    with pytest.raises(redis.ConnectionError), Redis.from_url(unencrypted, retry=None) as client:
        client.ping()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(chosen.database_url.replace("verify-full", "disable"))
