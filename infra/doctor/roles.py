"""Checks of the service's role in PostgreSQL."""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from infra.database.activity import PREFIX
from infra.doctor.checks import Check, Finding, Servers

WRITTEN_BY_OWNER = ("alembic_version", "epochs", "installation", "sealing_keys")
NAMED_TABLES = 3

RIGHTS = sa.text("""
    SELECT current_user AS role, array_agg(c.relname ORDER BY c.relname) FILTER (WHERE NOT (
            CASE c.relkind
                WHEN 'S' THEN has_sequence_privilege(c.oid, 'USAGE')
                ELSE has_table_privilege(c.oid, 'SELECT') AND (c.relname = ANY(:written_by_owner)
                    OR has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
                        AND has_table_privilege(c.oid, 'DELETE'))
            END)) AS lacking,
        coalesce(bool_or(pg_has_role(c.relowner, 'USAGE')), false) AS is_owner,
        has_database_privilege(current_database(), 'TEMPORARY') AS has_temporary,
        (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser
    FROM pg_class c WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind IN ('r', 'p', 'S')""")
OTHER_ROLES = sa.text("""
    SELECT DISTINCT usename FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE :parts AND query_start IS NULL
        AND NOT pg_has_role(usesysid, 'USAGE') ORDER BY usename""")


def rights(servers: Servers) -> Iterator[Finding]:
    """Find missing and needless rights of the role."""
    with servers.engine.connect() as connection:
        row = connection.execute(RIGHTS, {"written_by_owner": list(WRITTEN_BY_OWNER)}).one()
    yield from of_rights(row._asdict())


def of_rights(row: Mapping[str, Any]) -> Iterator[Finding]:
    role, lacking = row["role"], row["lacking"] or []
    if lacking:
        names = ", ".join(lacking[:NAMED_TABLES]) + (", …" if len(lacking) > NAMED_TABLES else "")
        yield Finding(
            f"The role {role} lacks rights on {len(lacking)} tables or sequences ({names})",
            f"Run `consumers migrate --grant-to {role}` with the role that owns the tables",
        )
    if not row["has_temporary"]:
        yield Finding(
            f"The role {role} may not make temporary tables, so imports fail",
            f"GRANT TEMPORARY ON DATABASE … TO {role}",
        )
    if row["is_superuser"] or row["is_owner"]:
        kind = "is a superuser" if row["is_superuser"] else "owns the tables"
        yield Finding(
            f"The role {role} {kind}; API and workers need no such right",
            "Use a role of its own for everything but `consumers migrate`: Roles of PostgreSQL, in docs/deploying.md",
            is_warning=True,
        )


def one_role(servers: Servers) -> Iterator[Finding]:
    """Find workers with another role, because their activity is hidden."""
    with servers.engine.connect() as connection:
        others = connection.execute(OTHER_ROLES, {"parts": f"{PREFIX}%"}).scalars()
        for role in others:
            yield Finding(
                f"A worker or beat uses the role {role}, whose activity the role of this command may not see",
                "Use one role for API, workers, beat and commands: others would take a working process for silent",
            )


CHECKS: tuple[Check, ...] = (rights, one_role)
