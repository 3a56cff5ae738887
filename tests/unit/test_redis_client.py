"""REDIS_URL: a single server, or the Sentinels that name the server."""

from typing import Any

import pytest
from kombu.connection import Connection

from infra.redis_client import broker_url, server_of
from infra.settings import load

ADDRESSES = {"DATABASE_URL": "postgresql://there", "OPENSEARCH_URL": "http://there"}
LOGIN = {"username": "user", "password": "p@ss"}


@pytest.mark.parametrize(
    ("url", "options", "sentinels", "service", "sentinel_options"),
    [
        ("redis://there:6380/2", {"db": 2}, [], "", {}),
        ("redis://user:p%40ss@there/0", {"db": 0} | LOGIN, [], "", {}),
        ("redis+sentinel://one,other:5/queue", {"db": 0}, [("one", 26379), ("other", 5)], "queue", {}),
        ("redis+sentinel://user:p%40ss@one/queue/3", {"db": 3} | LOGIN, [("one", 26379)], "queue", {}),
        (
            "redis+sentinel://:p%40ss@[::1]:7/queue?sentinel_password=other",
            {"db": 0, "password": "p@ss"},
            [("::1", 7)],
            "queue",
            {"password": "other"},
        ),
    ],
)
def test_url_gives_server_and_sentinels(
    url: str,
    options: dict[str, Any],
    sentinels: list[tuple[str, int]],
    service: str,
    sentinel_options: dict[str, Any],
) -> None:
    server = server_of(load(ADDRESSES | {"REDIS_URL": url}))
    assert {"db": 0} | server.options == options
    assert (server.sentinels, server.service, server.is_encrypted) == (sentinels, service, False)
    assert server.sentinel_options == sentinel_options | {"ssl": False, "retry": None}


@pytest.mark.parametrize(
    ("url", "host", "login", "database"),
    [
        ("redis://there", "there", (None, None), "0"),
        ("redis://user:p%40ss@there:6380/2?health_check_interval=5", "there", ("user", "p@ss"), "2"),
        ("redis://there?username=user&password=p%40ss&db=2", "there", ("user", "p@ss"), "2"),
        ("redis+sentinel://:p%40ss@one,other/queue/3?sentinel_password=x", "one", (None, "p@ss"), "3"),
    ],
)
def test_celery_reads_login_and_database_and_no_other_option(
    url: str, host: str, login: tuple[str | None, str | None], database: str
) -> None:
    address = broker_url(server_of(load(ADDRESSES | {"REDIS_URL": url})))
    broker = Connection(address)  # type: ignore[no-untyped-call]  # kombu is partly typed
    assert (broker.hostname, broker.userid, broker.password, broker.virtual_host) == (host, *login, database)


@pytest.mark.parametrize("scheme", ["rediss://there", "rediss+sentinel://there/queue"])
def test_certificate_authority_is_used_for_server_and_sentinels(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.settings._require_certificates", lambda *_: None)
    server = server_of(load(ADDRESSES | {"REDIS_URL": scheme, "REDIS_CA": "/ca.pem"}))
    assert server.is_encrypted
    assert server.options["ssl_ca_certs"] == server.sentinel_options["ssl_ca_certs"] == "/ca.pem"
