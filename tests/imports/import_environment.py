"""An organization with its live environment, and imports of texts into it."""

import csv
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.imports import kinds
from infra.imports.exported import Environment
from infra.imports.formats import Format
from infra.imports.run import Counts, connect, find_environment, run
from infra.imports.staging import Db


class ImportEnvironment:
    """An environment to import into, with access to the stored rows."""

    def __init__(self, connection: Db, url: str, folder: Path) -> None:
        self.connection = connection
        self.url = url
        self.name = f"shop-{uuid4().hex}"
        self.path = folder / "file.csv"
        self.errors_path = folder / "file.errors.csv"
        (organization,) = self.row(
            "INSERT INTO organizations (name, currency, region) VALUES (%s, 'GBP', 'GB') RETURNING id", self.name
        )
        connection.execute(
            "INSERT INTO environments (organization_id, mode) SELECT %s, unnest(ARRAY['live', 'test'])", (organization,)
        )
        self.environment: Environment = find_environment(connection, self.name, "live")

    def imports(self, kind: kinds.Kind, text: str | bytes, **options: Any) -> Counts:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.import_file(kind, self.path, **{"processes": 0, **options})

    def import_file(self, kind: kinds.Kind, path: Path, **options: Any) -> Counts:
        # A separate connection, because the staging table lives as long as its connection.
        form = Format(**{name: options.pop(name) for name in Format.__struct_fields__ if name in options})
        with closing(connect(self.url)) as own:
            return run(own, path, kind, self.environment, form=form, **options)

    def consumers(self, text: str | bytes, **options: Any) -> Counts:
        return self.imports(kinds.CONSUMERS, text, **options)

    def orders(self, text: str | bytes, **options: Any) -> Counts:
        return self.imports(kinds.ORDERS, text, **options)

    def errors(self) -> list[list[str]]:
        """Return line and reasons of each row of the errors file; empty without an errors file."""
        if not self.errors_path.exists():
            return []
        with self.errors_path.open(newline="") as file:
            return [row[:2] for row in csv.reader(file)][1:]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), values or None).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...]:
        (row,) = self.rows(query, *values)
        return row

    def stored(self, columns: str, table: str = "consumers") -> list[tuple[Any, ...]]:
        """Return columns of the stored rows, in the order of insertion."""
        return self.rows(f"SELECT {columns} FROM {table} WHERE environment_id = %s ORDER BY id", self.environment.id)

    def changes(self) -> int:
        """Return the number of outbox rows; no drain removes rows here."""
        (count,) = self.row("SELECT count(*) FROM outbox WHERE environment_id = %s", self.environment.id)
        assert isinstance(count, int)
        return count
