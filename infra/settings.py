"""Settings from environment variables, read once and validated at start.

The addresses of the three servers come from the environment. Missing addresses come from a file written by the running
local servers. All further settings have defaults.
"""

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

import msgspec

from infra.errors import ExplainedError

ROOT = Path(__file__).resolve().parent.parent

HIGHEST_PORT = 65_535
METRICS_PORT_OFFSET = 1000
Port = Annotated[int, msgspec.Meta(ge=1, le=HIGHEST_PORT)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Limit = Annotated[int, msgspec.Meta(ge=0)]
Shards = Annotated[int, msgspec.Meta(ge=1, le=1024)]
POSTGRESQL = r"^postgres(ql)?://"
FORMS = {
    "DATABASE_URL": "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    "DATABASE_SESSION_URL": "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    "REDIS_URL": "redis://:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS",
    "OPENSEARCH_URL": "https://USER:PASSWORD@HOST:PORT or http://HOST:PORT, for each node, separated by commas",
}
"""Forms of addresses, for messages."""

CLUSTER = re.compile(r"^rediss?[+]?cluster", re.IGNORECASE)
NO_CLUSTER = (
    "Redis Cluster is not supported, because it keeps the keys of a queue on several nodes: use a single server, or "
    "Redis Sentinel (redis+sentinel://HOST:PORT,HOST:PORT/SERVICE)"
)


class SettingsError(ExplainedError):
    """A setting is missing or invalid. The message names the variable."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings. The environment variable of a field has the name of the field in capitals."""

    database_url: Annotated[str, msgspec.Meta(pattern=POSTGRESQL)]
    """Address of PostgreSQL. Several hosts, separated by commas: connections go to the host that accepts writes."""
    database_session_url: Annotated[str, msgspec.Meta(pattern=POSTGRESQL)] | None = None
    """Address of PostgreSQL itself, if DATABASE_URL is that of a pooler in transaction mode, such as PgBouncer. Then
    only the requests of the API use the pooler."""
    redis_url: Annotated[str, msgspec.Meta(pattern=r"^rediss?(\+sentinel)?://")]
    """Address of Redis: `redis://`, or the Sentinels in `redis+sentinel://host:port,host:port/SERVICE/DATABASE`."""
    redis_ca: str | None = None
    """File with the certificates of the authorities that Redis' certificate is verified with; for `rediss://`."""
    opensearch_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^,]*(,https?://[^,]*)*$")]
    """Addresses of the nodes, separated by commas, with user and password if the nodes need them."""
    opensearch_ca: str | None = None
    """File with the certificates of the authorities that OpenSearch's certificate is verified with; for `https://`."""
    opensearch_certificate: str | None = None
    """File with the certificate and the private key of this client, if OpenSearch asks for a certificate."""
    opensearch_aws_region: str | None = None
    """Region of a managed domain of AWS: requests are signed with the credentials that the tools of AWS use."""
    host: str = "127.0.0.1"
    """Address the API listens on."""
    port: Port = 8000
    """Port the API listens on."""
    metrics_host: str = "127.0.0.1"
    """Address that `/metrics` and `/health/…` are served on, for operators."""
    metrics_port: Port | None = None
    """Port of `/metrics` and `/health/…`; by default PORT + 1000."""
    client_seconds: Count = 10
    """Time for a client to send its headers, or to send or receive the next 64 KiB of a body."""
    idle_seconds: Count = 75
    """Time that a connection stays open between two requests. A proxy must close its connections earlier."""
    stop_delay_seconds: Limit = 5
    """How long the API serves on after SIGTERM, while `/health/ready` is 503 and balancers take it out."""
    api_workers: Count = 1
    """Number of API processes."""
    worker_processes: Count = 1
    """Number of processes of each indexing worker. The worker of the bulk lane has at least two."""
    database_pool: Count = 10
    """Maximum of database connections of an API process. An environment uses at most half of them at a time."""
    concurrent_searches: Count = 4
    """Searches of an environment that an API process runs at a time; more wait up to 2 seconds, then a 429."""
    dynamic_audiences: Count = 200
    """Maximum of dynamic audiences of an environment."""
    audience_rules_bytes: Count = 1_048_576
    """Maximum of bytes of all rules of an environment's dynamic audiences."""
    index_prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,60}$")] = "consumers"
    """Prefix of every index and alias name, so several services can share a cluster."""
    index_shards: Shards = 1
    """Primary shards of an index. A rebuild changes them."""
    index_replicas: Limit | None = None
    """Replicas of each shard. By default one where the cluster has a second node."""
    serve_incomplete_index: bool = False
    """While the index is lost, answer lists and searches from a restored index, or from the index that is being built,
    with `Index-Stale: true` instead of 503."""
    limit_reads: Limit = 1000
    """Read requests per minute of an environment, or an operator key; 0 is unlimited. Organizations may have others."""
    limit_writes: Limit = 500
    """Write requests per minute, likewise."""
    limit_batch: Limit = 100
    """Batch requests per minute, likewise."""
    limit_unauthorized: Limit = 60
    """Requests per minute without a valid key from a client's address; 0 is unlimited."""
    trusted_proxies: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f.:/, ]*$")] = ""
    """Addresses and networks of the proxies before the API, separated by commas. Only they may name the client's
    address, in `X-Forwarded-For`."""
    limit_stored_mib: Limit = 102_400
    """MiB of rows that an environment may store; 0 is unlimited. Organizations may have others."""
    idempotency_mib: Limit = 1024
    """MiB of responses stored for idempotency keys, per environment and day; 0 is unlimited."""
    changes_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 30
    """Days that the feeds of changes go back."""
    exports_url: Annotated[str, msgspec.Meta(pattern=r"^(file|s3|gs|az)://")] | None = None
    """Store for the files of exports, the same for API and workers: `file:///FOLDER` for a shared folder, or
    `s3://BUCKET/PREFIX` for an S3-compatible store, whose access is in the usual variables (AWS_ACCESS_KEY_ID, …).
    Without a store, there are no exports."""
    exports_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 24
    """Hours that the files of an export are kept."""
    liveness_file: str | None = None
    """File that a worker or beat touches each second while it advances, for probes; each process needs its own."""
    log_level: Annotated[str, msgspec.Meta(pattern=r"^(debug|info|warning|error)$")] = "info"
    """Least severe level to log."""

    @property
    def session_url(self) -> str:
        """The address of PostgreSQL for connections that keep a session: all but those of the API's requests."""
        return self.database_session_url or self.database_url

    @property
    def operations_port(self) -> int:
        """The port of `/metrics` and `/health/…`."""
        return self.metrics_port or self.port + METRICS_PORT_OFFSET


def local_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the local servers' data: LOCAL_DIR, or `.local` in the project."""
    return Path(environ.get("LOCAL_DIR") or ROOT / ".local").resolve()


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: a variable is missing or invalid.
    """
    variables = {name: environ[name.upper()] for name in Settings.__struct_fields__ if environ.get(name.upper())}
    values = local_addresses(environ) | variables
    if CLUSTER.match(values.get("redis_url", "")):
        raise SettingsError(f"REDIS_URL is invalid: {NO_CLUSTER}")
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error))) from error
    for variable, file in (("OPENSEARCH_CA", settings.opensearch_ca), ("REDIS_CA", settings.redis_ca)):
        if file:
            _require_certificates(variable, file)
    if settings.opensearch_certificate:
        _require_certificate_with_key("OPENSEARCH_CERTIFICATE", settings.opensearch_certificate)
    _check_redis_url(settings.redis_url)
    if settings.operations_port == settings.port or settings.operations_port > HIGHEST_PORT:
        raise SettingsError(f"METRICS_PORT is invalid: expected a port other than PORT, at most {HIGHEST_PORT}")
    return settings


def local_addresses(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the addresses of the running local servers by field name; empty if none runs."""
    try:
        return msgspec.json.decode((local_folder(environ) / "servers.json").read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _require_certificates(variable: str, file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise SettingsError(f"{variable} is invalid: {file} is not a file with certificates in PEM format") from error


def _require_certificate_with_key(variable: str, file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password="")
    except OSError as error:
        raise SettingsError(
            f"{variable} is invalid: {file} is not a file with a certificate and its private key, without password, in "
            "PEM format"
        ) from error


def _check_redis_url(url: str) -> None:
    """Check the parts of REDIS_URL.

    Raises:
        SettingsError: the message says what is missing, and does not quote the URL, which may hold a password.
    """
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    if "sentinel" in parts.scheme:
        if not parts.path.strip("/") or not all(hosts.split(",")):
            expected = (
                "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, where SERVICE is the name of the server for Sentinel"
            )
            raise SettingsError(f"REDIS_URL is invalid: expected {expected}")
    elif "," in hosts:
        raise SettingsError(
            "REDIS_URL is invalid: expected one host; several hosts are Sentinels, in redis+sentinel://"
        )
    if dict(parse_qsl(parts.query)).get("ssl_cert_reqs", "required") != "required":
        raise SettingsError(
            "REDIS_URL is invalid: ssl_cert_reqs must be `required`, because certificates are always verified: "
            "set REDIS_CA to the file of the authority"
        )


def _explain(problem: str) -> str:
    if "missing required field" in problem:
        name = problem.split("`")[1].upper()
        return f"{name} is not set, and no local servers run here: start them with `make up`, or set {name}"
    reason, _, path = problem.partition(" - at `$.")
    name = path.rstrip("`").upper()
    if name in FORMS:
        return f"{name} is invalid: expected {FORMS[name]}"
    return f"{name} is invalid: {reason[0].lower()}{reason[1:]}"
