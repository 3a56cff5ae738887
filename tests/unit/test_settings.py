"""Invalid settings are reported with the name of the variable; settings that depend on each other."""

import pytest

from infra.settings import SettingsError, load

ADDRESSES = {"DATABASE_URL": "postgresql://there", "REDIS_URL": "redis://there", "OPENSEARCH_URL": "http://there"}


@pytest.mark.parametrize(
    ("ports", "operations_port"),
    [
        ({}, 9000),
        ({"PORT": "8001"}, 9001),
        ({"METRICS_PORT": "9100"}, 9100),
        ({"PORT": "9000", "METRICS_PORT": "8000"}, 8000),
    ],
)
def test_port_for_operators_is_near_that_for_clients(ports: dict[str, str], operations_port: int) -> None:
    assert load(ADDRESSES | ports).operations_port == operations_port


@pytest.mark.parametrize(
    "ports", [{"METRICS_PORT": "8000"}, {"PORT": "65000"}, {"METRICS_PORT": "0"}, {"METRICS_PORT": "x"}]
)
def test_unusable_port_for_operators_is_refused(ports: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="METRICS_PORT is invalid"):
        load(ADDRESSES | ports)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "OPENSEARCH_CA",
            "/nowhere.pem",
            "OPENSEARCH_CA is invalid: /nowhere.pem is not a file with certificates in PEM",
        ),
        ("OPENSEARCH_CA", __file__, f"OPENSEARCH_CA is invalid: {__file__} is not a file with certificates in PEM"),
        ("OPENSEARCH_URL", "search.example.com:9200", "OPENSEARCH_URL is invalid: expected https://USER:PASSWORD@HOST"),
        (
            "OPENSEARCH_URL",
            "https://u:p@one:9200,two:9200",
            "OPENSEARCH_URL is invalid: expected https://USER:PASSWORD",
        ),
        ("REDIS_URL", "valkey://there", "REDIS_URL is invalid: expected redis://:PASSWORD@HOST"),
        ("REDIS_URL", "redis+cluster://there", "REDIS_URL is invalid: Redis Cluster is not supported"),
        ("REDIS_URL", "rediscluster://there", "REDIS_URL is invalid: Redis Cluster is not supported"),
        ("REDIS_URL", "redis://one,other", "REDIS_URL is invalid: expected one host; several hosts are Sentinels"),
        ("REDIS_URL", "redis+sentinel://one,other", "REDIS_URL is invalid: expected redis+sentinel://HOST:PORT,HOST"),
        ("REDIS_URL", "rediss://there?ssl_cert_reqs=none", "REDIS_URL is invalid: ssl_cert_reqs must be `required`"),
        ("REDIS_CA", "/nowhere.pem", "REDIS_CA is invalid: /nowhere.pem is not a file with certificates in PEM"),
        ("DATABASE_SESSION_URL", "db.example.com", "DATABASE_SESSION_URL is invalid: expected postgresql://"),
        ("DATABASE_POOL", "0", "DATABASE_POOL is invalid: "),
        ("INDEX_SHARDS", "0", "INDEX_SHARDS is invalid: "),
        ("INDEX_SHARDS", "1025", "INDEX_SHARDS is invalid: "),
        ("INDEX_REPLICAS", "-1", "INDEX_REPLICAS is invalid: "),
    ],
)
def test_invalid_variable_is_named(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsError) as failure:
        load(ADDRESSES | {name: value})
    assert str(failure.value).startswith(problem)
