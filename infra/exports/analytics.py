"""`analytics.sql`: a script for DuckDB with a view for each table of an export, and comments on every column.

`duckdb -init analytics.sql`, started in the folder of the export, is all that an analyst or a BI tool needs. The field
dictionary in docs/analysts.md is made from the same declarations.
"""

from collections.abc import Mapping, Sequence

from infra.exports.requests import Format
from infra.exports.tables import ALL, Column, TableName

LINE_TYPE = (
    '[{"productId": "VARCHAR", "variantId": "VARCHAR", "quantity": "DECIMAL(13,3)", "unitAmount": "DECIMAL(19,4)"}]'
)
LINES = f"""\
CREATE OR REPLACE VIEW order_items AS
SELECT id AS order_id, consumer_id, status, counts, placed_at, currency_code, line.productId AS product_id,
    line.variantId AS variant_id, line.quantity, line.unitAmount AS unit_amount
FROM (SELECT *, unnest(from_json(items, '{LINE_TYPE}')) AS line FROM orders);
COMMENT ON VIEW order_items IS 'The lines of orders: one row for each line.';
COMMENT ON COLUMN order_items.unit_amount IS 'Amount of a unit, in the currency of currency_code, or null.';
"""
FIELDS = """\
CREATE OR REPLACE VIEW fields AS SELECT * FROM (VALUES
    {rows}) AS f (table_name, column_name, type, description);
"""


def files_of(table: str, file_format: Format) -> str:
    """Return the pattern of the names of a table's files."""
    return f"{table}-*.{file_format}"


def read(file_format: Format, files: str, columns: Sequence[Column], csv_options: str = "") -> str:
    """Return the SQL expression that reads files of an export with the exact types.

    Args:
        file_format: of the files.
        files: an SQL expression: a text with a pattern, or a list of texts.
        columns: of the table.
        csv_options: further options for CSV, each after a comma.
    """
    if file_format == "parquet":
        return f"read_parquet({files})"
    return (
        f"read_csv({files}, auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', "
        f"nullstr = '', allow_quoted_nulls = false, parallel = false{csv_options}, columns = {struct(columns)})"
    )


def struct(columns: Sequence[Column], *, typed: bool = True) -> str:
    """Return the columns as an argument of `read_csv`, with their types or, if not `typed`, as they are in a spool."""
    types = {column.name: column.type if typed or not column.is_text else "VARCHAR" for column in columns}
    return "{" + ", ".join(f"{quoted(name)}: '{kind}'" for name, kind in types.items()) + "}"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def script(file_format: Format, tables: Mapping[TableName, Sequence[Column]], about: str) -> str:
    """Return the script for an export.

    Args:
        file_format: of the files.
        tables: of the export, with their columns.
        about: a line about the export.
    """
    parts = [f"-- {about}\n-- Run in the folder of the files: duckdb -init analytics.sql\n", "SET TimeZone = 'UTC';\n"]
    rows = []
    for name, columns in tables.items():
        files = literal(files_of(name, file_format))
        source = read(file_format, files, columns)
        parts.append(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {source};\n")
        parts.append(f"COMMENT ON VIEW {name} IS {literal(ALL[name].text)};\n")
        for column in columns:
            parts.append(f"COMMENT ON COLUMN {name}.{quoted(column.name)} IS {literal(column.text)};\n")
            rows.append(f"({', '.join(map(literal, (name, column.name, column.type, column.text)))})")
    if "orders" in tables:
        parts.append(LINES)
    parts.append(FIELDS.format(rows=",\n    ".join(rows)))
    return "".join(parts)
