"""Rows of `audiences`: the columns read, and the conversion to the API's type."""

from typing import Any

import msgspec
import sqlalchemy as sa

from api.audiences.rules import Rule
from api.audiences.schemas import Audience
from infra.wire import raw, time

COLUMNS = "a.id, a.name, a.description, a.metadata::text, a.type, a.rules::text, a.created_at, a.updated_at"
VISIBLE = "a.environment_id = :environment_id AND a.deleted_at IS NULL"
"""Condition for an environment's audiences. The row of a deleted audience remains until its members are removed."""

decode_rules = msgspec.json.Decoder(list[Rule]).decode


def audience_of(row: sa.Row[Any]) -> Audience:
    return Audience(
        id=row.id,
        name=row.name,
        description=row.description,
        metadata=raw(row.metadata),
        type=row.type,
        # jsonb does not keep the order of keys: decoding and encoding restores the order of the contract.
        rules=msgspec.Raw(msgspec.json.encode(decode_rules(row.rules))) if row.rules else None,
        created_at=time(row.created_at),
        updated_at=time(row.updated_at),
    )
