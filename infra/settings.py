"""What the environment sets, read once and checked at start.

The three server addresses come from the environment; where one is not given there, from the file in
which running local servers note theirs. Every other setting has a default.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

ROOT = Path(__file__).resolve().parent.parent

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Limit = Annotated[int, msgspec.Meta(ge=0)]


class SettingsError(Exception):
    """A setting is missing or wrong; the message names the variable."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is the environment variable of the same name in capitals."""

    database_url: Annotated[str, msgspec.Meta(pattern=r"^postgres(ql)?://")]
    redis_url: Annotated[str, msgspec.Meta(pattern=r"^rediss?://")]
    opensearch_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^,]*(,https?://[^,]*)*$")]
    """Of several nodes each, with commas between them."""
    host: str = "127.0.0.1"
    port: Port = 8000
    api_workers: Count = 1
    """API processes."""
    worker_processes: Count = 1
    """Processes of each indexing worker; that of the bulk lane has two at least."""
    database_pool: Count = 10
    """Connections an API process keeps at the most."""
    index_prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,60}$")] = "consumers"
    """Start of every index and alias name, so that several services can share a cluster."""
    limit_reads: Limit = 1000
    """Requests a minute of an environment whose organization has no limits of its own; 0 is no limit."""
    limit_writes: Limit = 500
    limit_batch: Limit = 100
    log_level: Annotated[str, msgspec.Meta(pattern=r"^(debug|info|warning|error)$")] = "info"


def local_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where local servers keep their data: LOCAL_DIR, or `.local` in the project."""
    return Path(environ.get("LOCAL_DIR") or ROOT / ".local").resolve()


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: naming the variable that is missing or wrong.
    """
    given = {name: environ[name.upper()] for name in Settings.__struct_fields__ if environ.get(name.upper())}
    values = local_addresses(environ) | given
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error))) from error


def local_addresses(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Addresses of the local servers that run now, by field name; empty if none run."""
    try:
        return msgspec.json.decode((local_folder(environ) / "servers.json").read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _explain(problem: str) -> str:
    if "missing required field" in problem:
        name = problem.split("`")[1].upper()
        return f"{name} is not set, and no local servers run here: start them with `make up`, or set it"
    reason, _, path = problem.partition(" - at `$.")
    return f"{path.rstrip('`').upper()} is wrong: {reason[0].lower()}{reason[1:]}"
