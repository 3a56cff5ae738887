"""Checks of PostgreSQL: encoding, settings, replication, archive, and number of connections."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from infra.doctor.checks import Check, Finding, Servers

PERSONAL_DATA = "Logs of other servers, in docs/personal-data.md, says what would be logged"
USED_SHARE = 0.8
"""From this share of connections in use, a release or a fail-over may run out of connections."""
WATCHING = 5
"""Connections of an API process beside its pool."""
INDEXER = 2 + 2 * 10 + 2 * 8
"""Maximum of connections of a worker `live`, a worker `bulk` with two processes, and two processes of beat."""
RETAINED_GIB = 10
"""With more WAL, an unused slot fills the disk sooner or later."""

ENCODING = sa.text("""
    SELECT pg_encoding_to_char(encoding) AS encoding, datlocprovider AS provider,
        coalesce(datlocale, datcollate) AS locale, datcollversion AS version,
        pg_database_collation_actual_version(oid) AS actual_version
    FROM pg_database WHERE datname = current_database()""")
SETTINGS = sa.text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
STANDBYS = sa.text("SELECT sync_state FROM pg_stat_replication")
SLOTS = sa.text("""
    SELECT slot_name AS name, active AS is_active, wal_status = 'lost' AS is_lost,
        (pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) / 1073741824)::int AS retained_gib
    FROM pg_replication_slots WHERE NOT pg_is_in_recovery()""")
ARCHIVER = sa.text("""
    SELECT current_setting('archive_mode') <> 'off'
            AND last_failed_time > coalesce(last_archived_time, '-infinity') AS is_failing,
        failed_count
    FROM pg_stat_archiver""")
# Sessions only: the processes of the server and the standbys have other limits.
CONNECTIONS = sa.text("""
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - current_setting('reserved_connections')::int AS usable,
        (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL) AS used,
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS of_database,
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS of_role""")


class Setting(NamedTuple):
    """A setting, its right values, and the effect of other values."""

    name: str
    values: tuple[str, ...]
    effect: str
    is_warning: bool = False


EXPECTED = (
    Setting("fsync", ("on",), "a crash of the machine can destroy the database"),
    Setting("full_page_writes", ("on",), "a crash of the machine can destroy the database"),
    Setting(
        "synchronous_commit",
        ("on", "local", "remote_write", "remote_apply"),
        "a crash of the server loses changes that clients were told are stored",
    ),
    Setting("default_transaction_read_only", ("off",), "every write fails"),
    Setting("autovacuum", ("on",), "deleted rows stay, and the outbox slows down"),
    Setting("track_counts", ("on",), "autovacuum does not run"),
    Setting("track_activities", ("on",), "the status cannot tell whether a worker is active"),
    Setting("log_error_verbosity", ("terse",), f"the log has rows. {PERSONAL_DATA}", is_warning=True),
    Setting("log_min_error_statement", ("panic",), f"the log has statements. {PERSONAL_DATA}", is_warning=True),
    Setting("log_parameter_max_length", ("0",), f"the log has parameters. {PERSONAL_DATA}", is_warning=True),
    Setting("log_parameter_max_length_on_error", ("0",), f"the log has parameters. {PERSONAL_DATA}", is_warning=True),
    Setting("log_statement", ("none", "ddl"), f"the log has statements. {PERSONAL_DATA}", is_warning=True),
    Setting("log_min_duration_statement", ("-1",), f"the log has statements. {PERSONAL_DATA}", is_warning=True),
    Setting("log_min_duration_sample", ("-1",), f"the log has statements. {PERSONAL_DATA}", is_warning=True),
)
REPLICATION = ("synchronous_standby_names", "synchronous_commit")


def encoding(servers: Servers) -> Iterator[Finding]:
    """Find a database with another encoding, another collation, or a changed collation."""
    with servers.engine.connect() as connection:
        yield from of_encoding(connection.execute(ENCODING).one()._asdict())


def of_encoding(row: Mapping[str, Any]) -> Iterator[Finding]:
    if row["encoding"] != "UTF8":
        yield Finding(
            f"The database has the encoding {row['encoding']}, so that names of many scripts are refused",
            "Create a database with ENCODING 'UTF8', then copy the data with pg_dump",
        )
    if row["version"] != row["actual_version"]:
        yield Finding(
            f"The collation {row['locale']} was {row['version']} and is now {row['actual_version']}, so indexes may be "
            "in the wrong order",
            "Run REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION",
        )
    if row["provider"] != "b":
        yield Finding(
            f"The database has the collation {row['locale']} of the operating system or of ICU, whose order changes "
            "with upgrades",
            "Create new databases with LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
            is_warning=True,
        )


def settings(servers: Servers) -> Iterator[Finding]:
    """Find unsafe settings of PostgreSQL: for changes, or for personal data in the log."""
    with servers.engine.connect() as connection:
        rows = connection.execute(SETTINGS, {"names": [setting.name for setting in EXPECTED]})
        yield from of_settings({row.name: row.setting for row in rows})


def of_settings(values: Mapping[str, str]) -> Iterator[Finding]:
    for setting in EXPECTED:
        value = values.get(setting.name)
        if value is not None and value not in setting.values:
            yield Finding(
                f"{setting.name} is {value}: {setting.effect}",
                f"ALTER SYSTEM SET {setting.name} = '{setting.values[0]}', then SELECT pg_reload_conf(). Databases and "
                "roles may have their own values (ALTER DATABASE, ALTER ROLE)",
                setting.is_warning,
            )


def replication(servers: Servers) -> Iterator[Finding]:
    """Find a standby in place of the primary, asynchronous standbys, and slots with much WAL."""
    with servers.engine.connect() as connection:
        in_recovery = connection.execute(sa.text("SELECT pg_is_in_recovery()")).scalar_one()
        rows = connection.execute(SETTINGS, {"names": list(REPLICATION)})
        values = {row.name: row.setting for row in rows}
        standbys = list(connection.execute(STANDBYS).scalars())
        slots = [row._asdict() for row in connection.execute(SLOTS)]
    if in_recovery:
        yield Finding("DATABASE_URL leads to a standby, which accepts no writes", "Name the primary, or all hosts")
        return
    yield from of_standbys(values["synchronous_standby_names"], values["synchronous_commit"], standbys)
    yield from of_slots(slots)


def of_standbys(names: str, commit: str, states: Iterable[str | None]) -> Iterator[Finding]:
    """Yield the findings of standbys.

    Args:
        names: the setting synchronous_standby_names.
        commit: the setting synchronous_commit.
        states: of the connected standbys; None without the right to see it.
    """
    states = list(states)
    if not names and states:
        yield Finding(
            f"None of the {len(states)} connected standbys is synchronous, so a fail-over loses the last changes",
            "Set synchronous_standby_names, or accept the loss: the service notices it, and corrects the index",
            is_warning=True,
        )
    if names and commit in {"off", "local"}:
        yield Finding(
            f"synchronous_standby_names is {names}, but has no effect, because synchronous_commit is {commit}",
            "ALTER SYSTEM SET synchronous_commit = 'on', then SELECT pg_reload_conf()",
        )
    if names and None not in states and not {"sync", "quorum"} & set(states):
        yield Finding(
            f"No standby of synchronous_standby_names ({names}) is connected, so every write waits",
            "Start the standby, or take it out of synchronous_standby_names",
        )


def of_slots(slots: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    for slot in slots:
        if slot["is_lost"]:
            yield Finding(
                f"The replication slot {slot['name']} has lost WAL that its client still needs",
                "Build the standby or the archive anew, then drop the slot",
            )
        elif not slot["is_active"] and (slot["retained_gib"] or 0) >= RETAINED_GIB:
            yield Finding(
                f"The unused replication slot {slot['name']} keeps {slot['retained_gib']} GiB of WAL",
                f"Start its client, or SELECT pg_drop_replication_slot('{slot['name']}')",
            )


def archive(servers: Servers) -> Iterator[Finding]:
    """Find a failing archive of WAL: later changes are in no backup."""
    with servers.engine.connect() as connection:
        row = connection.execute(ARCHIVER).one()
    if row.is_failing:
        yield Finding(
            f"The latest attempt to archive WAL failed ({row.failed_count} in all), so backups lack the latest changes",
            "Correct archive_command; the log of PostgreSQL has its message",
        )


def connection_limit(servers: Servers) -> Iterator[Finding]:
    """Find low limits of connections."""
    with servers.engine.connect() as connection:
        row = connection.execute(CONNECTIONS).one()
    chosen = servers.settings
    yield from of_connections(row._asdict(), api=chosen.api_workers * (chosen.database_pool + WATCHING))


def of_connections(row: Mapping[str, int], *, api: int) -> Iterator[Finding]:
    """Yield the findings of the limits; `api` is the maximum of connections of an API with these settings."""
    limits = {
        "max_connections, without the reserved ones,": row["usable"],
        "the limit of the database (ALTER DATABASE … CONNECTION LIMIT)": row["of_database"],
        "the limit of the role (ALTER ROLE … CONNECTION LIMIT)": row["of_role"],
    }
    needed = api + INDEXER
    for name, limit in limits.items():
        if limit < 0:
            continue
        if row["used"] >= USED_SHARE * limit:
            yield Finding(
                f"{row['used']} of {limit} connections are in use; {name} is {limit}",
                "Raise the limit, or lower DATABASE_POOL: docs/deploying.md has the connections of each process",
            )
        elif needed > limit:
            yield Finding(
                f"One process of each kind may use {needed} connections; {name} is {limit}",
                "Raise the limit, or lower DATABASE_POOL: docs/deploying.md has the connections of each process",
            )


CHECKS: tuple[Check, ...] = (encoding, settings, replication, archive, connection_limit)
