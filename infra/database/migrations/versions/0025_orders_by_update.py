"""An index for lists of orders by the time of their last change.

Revision ID: 0025
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('orders_by_update')")


def upgrade() -> None:
    # Orders are written while the index is built. The build waits for transactions that began earlier, and blocks no
    # query meanwhile, so it may wait as long as the migrations may take. Without a transaction, SET is for the session.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")
        # An interrupted build leaves an index that is not valid. PostgreSQL completes a build whose client was killed.
        if not op.get_bind().execute(IS_VALID).scalar_one_or_none():
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS orders_by_update")
            op.execute("CREATE INDEX CONCURRENTLY orders_by_update ON orders (environment_id, updated_at DESC, id DESC)")
        op.execute("SET lock_timeout = '1s'")


def downgrade() -> None:
    op.execute("DROP INDEX orders_by_update")
