"""The two roles of PostgreSQL: the owner of the tables, for migrations, and a plain role for everything else."""

import sqlalchemy as sa

from infra.errors import ExplainedError

OWNS_TABLES = sa.text("""
    SELECT has_schema_privilege(current_schema(), 'CREATE')
        AND (SELECT coalesce(bool_and(pg_has_role(relowner, 'USAGE')), true)
            FROM pg_class WHERE oid = to_regclass('alembic_version')),
        current_user""")
ROLE_EXISTS = sa.text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
    # Written by `consumers migrate` only, and by the function `begin_epoch`.
    "REVOKE INSERT, UPDATE, DELETE ON alembic_version, epochs, installation, sealing_keys FROM {role}",
    # Tables of later migrations.
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE ON SEQUENCES TO {role}",
)


class RoleError(ExplainedError):
    """A role of PostgreSQL is missing, or is not the owner of the tables."""


def require_owner(connection: sa.Connection) -> None:
    """Check that the role of the connection may change the schema.

    Raises:
        RoleError: the role is not the owner of the tables.
    """
    is_owner, role = connection.execute(OWNS_TABLES).one()
    if not is_owner:
        raise RoleError(
            f"the role {role} may not change the tables, because it does not own them: run `consumers migrate` with "
            "the owner's name and password in DATABASE_URL"
        )


def grant(connection: sa.Connection, role: str) -> None:
    """Grant a role the rights for all processes and commands but `consumers migrate`, on later tables as well.

    Raises:
        RoleError: the role does not exist.
    """
    if not connection.execute(ROLE_EXISTS, {"role": role}).scalar_one():
        raise RoleError(f"there is no role {role} in PostgreSQL: create it with CREATE ROLE … LOGIN PASSWORD …")
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = connection.execute(sa.text("SELECT current_schema()")).scalar_one()
    for statement in GRANTS:
        connection.exec_driver_sql(statement.format(role=quote(role), schema=quote(schema)))
