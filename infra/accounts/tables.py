"""The tables, for SQLAlchemy. The migrations make them; a test holds the two against each other."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

metadata = sa.MetaData()


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.text("present()")
    return sa.Column(name, pg.TIMESTAMP(timezone=True, precision=3), nullable=nullable, server_default=default)


organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("id", sa.Text, sa.FetchedValue(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("region", sa.Text),
    sa.Column("limit_reads", sa.Integer),
    sa.Column("limit_writes", sa.Integer),
    sa.Column("limit_batch", sa.Integer),
    _time("created_at"),
)
environments = sa.Table(
    "environments",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("organization_id", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    _time("created_at"),
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, sa.FetchedValue(), primary_key=True),
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("scopes", pg.ARRAY(sa.Text), nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    _time("last_used_at", nullable=True),
)
consumers = sa.Table(
    "consumers",
    metadata,
    sa.Column("id", sa.Text, sa.FetchedValue(), primary_key=True),
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("email_key", sa.Text, sa.FetchedValue()),
    sa.Column("phone", sa.Text),
    sa.Column("full_name", sa.Text),
    sa.Column("metadata", pg.JSONB(none_as_null=True)),
    sa.Column("external_id", sa.Text),
    sa.Column("total_orders", sa.Integer, nullable=False),
    sa.Column("total_order_value", sa.Numeric, nullable=False),
    _time("last_order_at", nullable=True),
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.FetchedValue()),
    _time("created_at"),
    _time("updated_at"),
)
orders = sa.Table(
    "orders",
    metadata,
    sa.Column("id", sa.Text, sa.FetchedValue(), primary_key=True),
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("consumer_id", sa.Text, nullable=False),
    sa.Column("external_id", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("amount", sa.Numeric, nullable=False),
    sa.Column("refunded_amount", sa.Numeric, nullable=False),
    sa.Column("currency_code", sa.Text, nullable=False),
    sa.Column("base_amount", sa.Numeric, nullable=False),
    sa.Column("items", pg.JSONB(none_as_null=True)),
    sa.Column("metadata", pg.JSONB(none_as_null=True)),
    _time("placed_at"),
    _time("created_at"),
    _time("updated_at"),
    sa.Column("counts", sa.Boolean, sa.FetchedValue(), nullable=False),
    sa.Column("value", sa.Numeric, sa.FetchedValue(), nullable=False),
)
generations = sa.Table(
    "generations",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("index_name", sa.Text, nullable=False, unique=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("document_version", sa.Integer, nullable=False),
    sa.Column("mapping_digest", sa.Text, nullable=False),
    _time("created_at"),
    _time("live_at", nullable=True),
    sa.Column("index_uuid", sa.Text),
    sa.Column("fields", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("is_paused", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("wanted", sa.Text),
    sa.Column("total", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("differences", sa.BigInteger),
    sa.Column("error", sa.Text),
    _time("filling_at", nullable=True),
    _time("refreshed_at", nullable=True),
    _time("verified_at", nullable=True),
    _time("ended_at", nullable=True),
    _time("keep_until", nullable=True),
    _time("lost_at", nullable=True),
    _time("removed_at", nullable=True),
    sa.Column("verify_position", sa.Text, nullable=False, server_default=sa.text("''")),
    _time("paused_at", nullable=True),
    sa.Column("rested", sa.Interval, nullable=False, server_default=sa.text("'0'")),
    sa.Column("seen_seq_no", sa.BigInteger, nullable=False, server_default=sa.text("-1")),
)
