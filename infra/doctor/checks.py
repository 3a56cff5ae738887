"""Checks of a deployment, for `consumers doctor`: settings and states of the servers that break a guarantee.

Each module of this package has the checks of a subject, and lists them in a tuple `CHECKS`. A check is a function that
yields a finding for each fault: the fault, and how to correct the fault. `catalog.py` names the
modules. A check only reads, and needs no data of consumers.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import msgspec
import redis.exceptions
import sqlalchemy as sa
from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import OpenSearchException
from redis import Redis
from redis.exceptions import RedisError

from infra import logs
from infra.database.engine import open_engine
from infra.database.failures import connection_failure
from infra.database.installation import UNDEFINED_TABLE, InstallationMissing
from infra.index.client import open_client
from infra.redis_client import open_redis
from infra.settings import Settings, SettingsError

SECONDS = 5
EXPECTED = (OpenSearchException, RedisError, sa.exc.SQLAlchemyError, OSError, SettingsError, InstallationMissing)
"""Errors of a check with a finding of their own. All further errors are bugs."""
NO_ANSWER: dict[str, tuple[type[Exception], ...]] = {
    "engine": (sa.exc.InterfaceError, sa.exc.TimeoutError),
    "search": (NoAnswer,),
    "redis": (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError),
}


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """A fault of the deployment. Both texts are single sentences without a full stop, and hold no password."""

    problem: str
    """The fault, with the value that was read."""
    advice: str
    """The correction: the setting and its value, or the command."""
    is_warning: bool = False
    """Whether no guarantee is broken: a risk, or a choice to make knowingly. Exit status 0, unlike with a fault."""


class Servers:
    """Connections to the servers, opened by the first check that needs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: dict[str, Any] = {}
        self._silent: dict[str, Exception] = {}

    @property
    def engine(self) -> sa.Engine:
        return cast("sa.Engine", self._server("engine", open_engine))

    @property
    def search(self) -> OpenSearch:
        return cast("OpenSearch", self._server("search", open_client))

    @property
    def redis(self) -> Redis:
        return cast("Redis", self._server("redis", partial(open_redis, seconds=SECONDS, retry=None)))

    def _server(self, name: str, connect: Callable[[Settings], Any]) -> Any:
        """Return the connections to a server.

        Raises:
            Exception: the error of an earlier check, because each further check would wait for the same server.
        """
        if error := self._silent.get(name):
            raise error
        if name not in self._opened:
            self._opened[name] = connect(self.settings)
        return self._opened[name]

    def note(self, error: Exception) -> None:
        """Note the error of a check. A server without an answer is not asked again."""
        if isinstance(error, sa.exc.OperationalError) and getattr(error.orig, "sqlstate", None) is None:
            self._silent["engine"] = error
        for name, kinds in NO_ANSWER.items():
            if isinstance(error, kinds):
                self._silent[name] = error

    def nodes(self) -> Iterator[tuple[str, dict[str, Any] | str]]:
        """Yield host and port of each address of OpenSearch, with the node's answer or the kind of the error."""
        for address in self.settings.opensearch_url.split(","):
            settings = msgspec.structs.replace(self.settings, opensearch_url=address)
            parts = urlsplit(address)
            answer: dict[str, Any] | str
            try:
                with closing(open_client(settings)) as client:
                    answer = client.info(params={"request_timeout": SECONDS})
            except OpenSearchException as error:
                answer = logs.error_kind(error)
            yield f"{parts.hostname}:{parts.port or ''}".rstrip(":"), answer

    def close(self) -> None:
        """Close the opened connections."""
        for name, server in self._opened.items():
            (server.dispose if name == "engine" else server.close)()


Check: TypeAlias = Callable[[Servers], Iterable[Finding]]


class Result(msgspec.Struct, frozen=True):
    """The result of a check."""

    check: str
    """Module and function, such as `nodes.isolation_settings`."""
    ok: bool
    """Whether there is no fault. There may be warnings."""
    findings: list[Finding]


def run(checks: Iterable[Check], settings: Settings) -> Iterator[Result]:
    """Run checks one after the other; yield the result of each check.

    A check whose server does not answer has a finding that says so.
    """
    servers = Servers(settings)
    try:
        for check in checks:
            findings = _findings(check, servers)
            yield Result(name_of(check), all(finding.is_warning for finding in findings), findings)
    finally:
        servers.close()


def name_of(check: Check) -> str:
    """Return the name of a check: module and function."""
    return f"{check.__module__.rpartition('.')[2]}.{check.__name__}"


def _findings(check: Check, servers: Servers) -> list[Finding]:
    try:
        return list(check(servers))
    except EXPECTED as error:
        servers.note(error)
        return [_explained(error)]
    except Exception as error:  # noqa: BLE001 (an answer that no check expects must not stop the other checks)
        problem = f"The check failed: {type(error).__name__}: {error}"
        return [Finding(problem, "Report this line: it is a fault of the check, and not of the deployment")]


def _explained(error: Exception) -> Finding:
    """Make the finding of a check that could not be done."""
    match error:
        case OpenSearchException():
            finding = _unanswered("OpenSearch", "OPENSEARCH_URL", error)
        case RedisError():
            finding = _unanswered("Redis", "REDIS_URL", error)
        case sa.exc.ProgrammingError() if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:
            finding = Finding("The database lacks a table of this release", "Run `consumers migrate`")
        case sa.exc.OperationalError() if getattr(error.orig, "sqlstate", None) is None:
            problem = f"The database did not answer this check ({connection_failure(error)})"
            finding = Finding(problem, "Start the server, or correct DATABASE_URL and the rights of its user")
        case sa.exc.SQLAlchemyError():
            finding = _unanswered("The database", "DATABASE_URL", error)
        case OSError():
            # The files of certificates are read by the drivers, except here.
            problem = f"A file of the settings cannot be read ({error.filename or logs.error_kind(error)})"
            finding = Finding(problem, "Correct the file, or its name in the settings")
        case _:
            # Such a message ends with the correction.
            problem, _, advice = str(error).rpartition(": ")
            finding = Finding(problem, advice[:1].upper() + advice[1:])
    return finding


def _unanswered(server: str, variable: str, error: Exception) -> Finding:
    """Make the finding of a server that does not answer. The message of the error may hold the address."""
    problem = f"{server} did not answer this check ({logs.error_kind(error)})"
    return Finding(problem, f"Start the server, or correct {variable} and the rights of its user")
