"""The tables of an export: columns, types, units, and SQL. The field dictionary is made of these declarations.

The rows are read by `COPY … TO STDOUT (FORMAT csv)`, column by column as text (`Column.read`), and typed afterwards by
DuckDB (`Column.typed`). A column with personal data is read only for an export with personal data, so no file of
another export holds such a value, temporary files included. Domains of few consumers are replaced by DuckDB.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from infra.exports.attributes import Attribute

TableName = Literal["consumers", "orders", "audiences", "members"]
TABLES: tuple[TableName, ...] = get_args(TableName)
MONEY = "DECIMAL(19,4)"
TIME = "TIMESTAMPTZ"
OTHER_DOMAIN = "(other)"
MIN_DOMAIN_CONSUMERS = 5
"""A domain of fewer consumers is not shown, because it may belong to a person."""
SHOWN_DOMAINS = "shown_domains"
"""The table of DuckDB with the domains shown without personal data."""


class Column(NamedTuple):
    """A column of an export."""

    name: str
    type: str
    """The type in DuckDB and Parquet."""
    read: str
    """The SQL expression for PostgreSQL."""
    text: str
    """The description, with the unit."""
    is_personal: bool = False
    typed: str | None = None
    """The SQL expression for DuckDB, of the text `{0}`; None: the text has the form of the type."""

    @property
    def is_text(self) -> bool:
        """Whether DuckDB reads the column as text, because it converts the value afterwards."""
        return self.typed is not None or self.type == "VARCHAR"


class Table(NamedTuple):
    """A table of an export."""

    name: TableName
    text: str
    columns: tuple[Column, ...]
    source: str
    """The part of the statement after `SELECT columns`, with `{environment}` for the number of the environment."""


def _items() -> str:
    """Return the lines of an order as the API shows them: with exact quantities (`infra/order_items.py`)."""
    return """CASE WHEN o.items @? '$[*].exactQuantity' THEN (
        SELECT jsonb_agg(CASE WHEN line.item ? 'exactQuantity'
            THEN (line.item - 'exactQuantity') || jsonb_build_object('quantity', line.item -> 'exactQuantity')
            ELSE line.item END ORDER BY line.number)
        FROM jsonb_array_elements(o.items) WITH ORDINALITY AS line (item, number)) ELSE o.items END"""


PHONE_COUNTRY = Column(
    "phone_country",
    "VARCHAR",
    # Replaced by the country while the row is copied (`indexer/exports/spool.py`), so read first.
    # A regular expression would take four times as long.
    "CASE WHEN btrim(split_part(c.phone, ' x', 1), '+0123456789') = '' THEN split_part(c.phone, ' x', 1) END",
    "Country of the phone number, as two letters of ISO 3166. Null for numbers that are not in E.164.",
)
CONSUMERS = Table(
    "consumers",
    "Persons who buy: one row for each consumer.",
    (
        Column("id", "VARCHAR", "c.id", "The id of the consumer: a pseudonym."),
        Column("email", "VARCHAR", "coalesce(c.email_as_sent, c.email)", "The e-mail address.", is_personal=True),
        Column("phone", "VARCHAR", "c.phone", "The phone number: in E.164 where possible.", is_personal=True),
        Column("full_name", "VARCHAR", "c.full_name", "The whole name.", is_personal=True),
        Column("external_id", "VARCHAR", "c.external_id", "The merchant's own id.", is_personal=True),
        Column("has_email", "BOOLEAN", "c.email IS NOT NULL", "Whether the consumer has an e-mail address."),
        Column("has_phone", "BOOLEAN", "c.phone IS NOT NULL", "Whether the consumer has a phone number."),
        Column("has_name", "BOOLEAN", "c.full_name IS NOT NULL", "Whether the consumer has a name."),
        Column("has_external_id", "BOOLEAN", "c.external_id IS NOT NULL", "Whether the consumer has an external id."),
        Column(
            "email_domain",
            "VARCHAR",
            "CASE WHEN strpos(c.email, '@') > 0 THEN lower(split_part(c.email, '@', -1)) END",
            "Domain of the e-mail address, in lower case and in Unicode. Without personal data, a domain of fewer than "
            f"{MIN_DOMAIN_CONSUMERS} consumers is {OTHER_DOMAIN}.",
        ),
        PHONE_COUNTRY,
        Column("metadata", "VARCHAR", "c.metadata", "The whole metadata, as JSON.", is_personal=True),
        Column(
            "total_orders", "INTEGER", "c.total_orders", "Number of orders that count: status CREATED or COMPLETED."
        ),
        Column(
            "total_order_value",
            MONEY,
            "c.total_order_value",
            "Exact value of these orders after refunds, in the environment's currency.",
        ),
        Column("first_order_at", TIME, "first.placed_at", "Time of the oldest of these orders, in UTC."),
        Column("last_order_at", TIME, "c.last_order_at", "Time of the newest of these orders, in UTC."),
        Column("created_at", TIME, "c.created_at", "Time of creation, in UTC."),
        Column("updated_at", TIME, "c.updated_at", "Time of the last change, totals and memberships included, in UTC."),
    ),
    """
    FROM consumers c LEFT JOIN (
        SELECT consumer_id, min(placed_at) AS placed_at FROM orders
        WHERE environment_id = {environment} AND counts GROUP BY consumer_id) first ON first.consumer_id = c.id
    WHERE c.environment_id = {environment} ORDER BY c.id""",
)
ORDERS = Table(
    "orders",
    "Orders of consumers, in every status.",
    (
        Column("id", "VARCHAR", "o.id", "The id of the order."),
        Column("consumer_id", "VARCHAR", "o.consumer_id", "The consumer: an id of the table consumers."),
        Column("external_id", "VARCHAR", "o.external_id", "The merchant's own id of the order.", is_personal=True),
        Column("status", "VARCHAR", "o.status", "CREATED, COMPLETED, CANCELLED or REFUNDED."),
        Column("amount", MONEY, "o.amount", "Amount of the order, in the currency of currency_code."),
        Column("refunded_amount", MONEY, "o.refunded_amount", "Refunded part of the amount, in the same currency."),
        Column("currency_code", "VARCHAR", "o.currency_code", "Currency of amount and refunded_amount (ISO 4217)."),
        Column("base_amount", MONEY, "o.base_amount", "The amount in the environment's currency."),
        Column(
            "value",
            MONEY,
            "o.value",
            "base_amount × (amount − refunded_amount) / amount, rounded half-even to 4 decimals, in the environment's "
            "currency; 0 for an order that does not count.",
        ),
        Column("counts", "BOOLEAN", "o.counts", "Whether the order counts: status CREATED or COMPLETED."),
        Column("placed_at", TIME, "o.placed_at", "Time of the order, in UTC."),
        Column("created_at", TIME, "o.created_at", "Time at which the order was created here, in UTC."),
        Column("updated_at", TIME, "o.updated_at", "Time of the last change of the order, in UTC."),
        Column(
            "items",
            "VARCHAR",
            _items(),
            "The lines as a JSON array of productId, variantId, quantity and unitAmount; the view order_items has a "
            "row for each line.",
        ),
        Column("metadata", "VARCHAR", "o.metadata", "The whole metadata of the order, as JSON.", is_personal=True),
    ),
    "FROM orders o WHERE o.environment_id = {environment} ORDER BY o.id",
)
AUDIENCES = Table(
    "audiences",
    "Groups of consumers.",
    (
        Column("id", "VARCHAR", "a.id", "The id of the audience."),
        Column("name", "VARCHAR", "a.name", "The name."),
        Column("type", "VARCHAR", "a.type", "STATIC or SYNCED_LIST: members are stored; DYNAMIC: rules select them."),
        Column("created_at", TIME, "a.created_at", "Time of creation, in UTC."),
    ),
    "FROM audiences a WHERE a.environment_id = {environment} AND a.deleted_at IS NULL ORDER BY a.id",
)
MEMBERS = Table(
    "members",
    "Members of audiences: one row for each consumer of each audience.",
    (
        Column("audience_id", "VARCHAR", "m.audience_id", "The audience: an id of the table audiences."),
        Column("consumer_id", "VARCHAR", "m.consumer_id", "The consumer: an id of the table consumers."),
        Column(
            "added_at", TIME, "m.added_at", "Time at which the member was added, in UTC. Null for DYNAMIC audiences."
        ),
    ),
    """
    FROM audience_members m JOIN audiences a ON a.id = m.audience_id AND a.deleted_at IS NULL
    WHERE m.environment_id = {environment} ORDER BY m.audience_id, m.consumer_id""",
)
ALL: dict[TableName, Table] = {table.name: table for table in (CONSUMERS, ORDERS, AUDIENCES, MEMBERS)}


def columns_of(table: Table, attributes: Sequence[Attribute], *, personal: bool) -> list[Column]:
    """Return the columns of a table in an export.

    Args:
        table: of the export.
        attributes: the declared attributes of the organization.
        personal: whether the export has personal data.
    """
    columns = [_masked(column) if not personal else column for column in table.columns]
    chosen = [column for column in columns if personal or not column.is_personal]
    return chosen + [_attribute(attribute) for attribute in attributes if table is CONSUMERS]


def _masked(column: Column) -> Column:
    if column.name != "email_domain":
        return column
    shown = (
        f"CASE WHEN {{0}} IS NULL OR {{0}} IN (SELECT domain FROM {SHOWN_DOMAINS}) THEN {{0}} ELSE '{OTHER_DOMAIN}' END"
    )
    return column._replace(typed=shown)


def _attribute(attribute: Attribute) -> Column:
    """Return the column of a declared attribute. A value of another type is null."""
    value = _value(attribute.path)
    kinds = {
        "text": ("VARCHAR", "'string', 'number', 'boolean'", None),
        # Metadata stored by SQL may have a number out of range, which would be infinite.
        "number": ("DOUBLE", "'number'", "CASE WHEN isfinite(TRY_CAST({0} AS DOUBLE)) THEN {0}::DOUBLE END"),
        "boolean": ("BOOLEAN", "'boolean'", None),
    }
    kind, allowed, typed = kinds[attribute.type]
    read = f"CASE WHEN jsonb_typeof({value}) IN ({allowed}) THEN {value} #>> '{{}}' END"
    text = f"metadata.{attribute.path}, declared as {attribute.type}. Null if absent or of another type."
    return Column(attribute.column, kind, read, text, typed=typed)


def _value(path: str) -> str:
    """Return the SQL expression of a value in metadata. A dot leads into an object, or belongs to the key."""
    key = f"c.metadata -> {_literal(path)}"
    if "." not in path:
        return f"({key})"
    keys = ", ".join(map(_literal, path.split(".")))
    return f"coalesce({key}, c.metadata #> ARRAY[{keys}])"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def read_order(columns: Sequence[Column]) -> list[Column]:
    """Return the columns in the order in which they are read: the phone number's country first."""
    return sorted(columns, key=lambda column: column.name != PHONE_COUNTRY.name)


def select(table: Table, columns: Sequence[Column], environment: int) -> str:
    """Return the SELECT statement for the rows of a table."""
    expressions = ", ".join(column.read for column in read_order(columns))
    return f"SELECT {expressions} {table.source.format(environment=environment)}"
