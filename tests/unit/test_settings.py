"""Settings that are invalid are reported with the name of the variable."""

from pathlib import Path

import pytest

from infra import settings

ADDRESSES = {
    "DATABASE_URL": "postgresql://127.0.0.1/consumers",
    "REDIS_URL": "redis://127.0.0.1",
    "OPENSEARCH_URL": "https://127.0.0.1",
}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "OPENSEARCH_CA",
            "/nowhere.pem",
            "OPENSEARCH_CA is invalid: /nowhere.pem is not a file with certificates in PEM",
        ),
        ("OPENSEARCH_CA", __file__, f"OPENSEARCH_CA is invalid: {__file__} is not a file with certificates in PEM"),
        ("OPENSEARCH_URL", "search.example.com:9200", "OPENSEARCH_URL is invalid: "),
        ("REDIS_URL", "valkey://127.0.0.1", "REDIS_URL is invalid: "),
        ("DATABASE_POOL", "0", "DATABASE_POOL is invalid: "),
    ],
)
def test_invalid_variable_is_named(tmp_path: Path, name: str, value: str, problem: str) -> None:
    environ = ADDRESSES | {"LOCAL_DIR": str(tmp_path), name: value}
    with pytest.raises(settings.SettingsError) as failure:
        settings.load(environ)
    assert str(failure.value).startswith(problem)
