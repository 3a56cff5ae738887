"""Reasons of failed connections to PostgreSQL, for operators."""

import re

HOST = re.compile(r'server at "(?P<host>[^"]+)".*?, port \d+ failed: (?P<reason>.+)')


def connection_failure(error: BaseException) -> str:
    """Say why each host refused a connection: `db1: session is read-only; db2: Connection refused`.

    Args:
        error: raised by psycopg, or by SQLAlchemy with the error of psycopg. Its message has names of hosts, roles and
            databases, and neither passwords nor data.
    """
    message = str(getattr(error, "orig", None) or error).strip()
    hosts = {match["host"]: match["reason"] for match in HOST.finditer(message)}
    return "; ".join(f"{host}: {reason}" for host, reason in hosts.items()) or message.partition("\n")[0]
