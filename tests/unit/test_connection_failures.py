"""Reasons of failed connections to PostgreSQL, from the messages of psycopg."""

import psycopg
import pytest
import sqlalchemy as sa

from infra.database.failures import connection_failure

ONE = 'connection failed: connection to server at "10.0.0.5", port 5432 failed: '
OTHER = "- host: '10.0.0.4', port: '5432', hostaddr: …: " + ONE.replace(".5", ".4") + "session is read-only"
HEADING = "Multiple connection attempts failed. All failures were:"
REFUSED = "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (f"{ONE}{REFUSED}", "10.0.0.5: Connection refused"),
        (f"{ONE}SSL error: certificate verify failed", "10.0.0.5: SSL error: certificate verify failed"),
        (
            'connection failed: connection to server at "db1" (10.0.0.5), port 5432 failed: FATAL:  no such role\n',
            "db1: FATAL:  no such role",
        ),
        (
            f"{ONE}{REFUSED}\n{HEADING}\n{OTHER}\n- host: …: {ONE}{REFUSED}",
            "10.0.0.5: Connection refused; 10.0.0.4: session is read-only",
        ),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", "failed to resolve host 'db': "),
        ("connection is bad\nmore", "connection is bad"),
    ],
)
def test_each_host_has_its_reason(message: str, reason: str) -> None:
    error = psycopg.OperationalError(message)
    assert connection_failure(error).startswith(reason)
    assert connection_failure(sa.exc.OperationalError("SELECT", {}, error)) == connection_failure(error)
    assert "\n" not in connection_failure(error)
