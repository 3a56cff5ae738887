r"""The digest of an idempotency key may be taken by an answer of the day before.

A key is free 24 hours after its use, and the upkeep deletes its row later. If the consumers of both answers are deleted
in between, the second deletion failed: the digest of the key was already stored.

Revision ID: 0026
"""

from alembic import op

revision = "0026"
down_revision = "0025"

# As in migration 0013, with the deletion of the earlier answer.
ERASE = r"""
    CREATE OR REPLACE FUNCTION erase_replays() RETURNS trigger LANGUAGE plpgsql
        SET enable_seqscan = off SET enable_indexscan = off AS $$
    DECLARE
        ids text[] := (SELECT array_agg(id) FROM old_rows);
        held tid[];
    BEGIN
        -- A concurrent delete of another consumer in the same answer waits here, and then finds the answer empty.
        held := ARRAY (SELECT ctid FROM public.idempotency_keys WHERE consumer_ids && ids
                       ORDER BY environment_id, key FOR UPDATE);{free}
        UPDATE public.idempotency_keys
        SET key = E'\n' || encode(sha256(convert_to(key, 'UTF8')), 'hex'), status = 410, headers = '{}', body = '',
            consumer_ids = NULL
        WHERE ctid = ANY (held);
        RETURN NULL;
    END $$"""
FREE = r"""
        IF cardinality(held) > 0 THEN
            DELETE FROM public.idempotency_keys k USING public.idempotency_keys h
            WHERE h.ctid = ANY (held) AND k.environment_id = h.environment_id
                AND k.key = E'\n' || encode(sha256(convert_to(h.key, 'UTF8')), 'hex');
        END IF;"""


def upgrade() -> None:
    op.execute(ERASE.replace("{free}", FREE))


def downgrade() -> None:
    op.execute(ERASE.replace("{free}", ""))
