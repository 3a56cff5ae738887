"""Random consumers that are hard to compare: nulls, values equal but for case, look-alikes."""

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import sqlalchemy as sa

from tests.filter_expressions import DATES, EMAILS, KEYS, LONG, MOMENTS, NAMES, NUMBERS, PHONES

INSERT = sa.text("""
    INSERT INTO consumers (environment_id, email, phone, full_name, external_id, metadata, total_orders,
        total_order_value, last_order_at, created_at, updated_at)
    SELECT :environment, p->>'email', p->>'phone', p->>'fullName', p->>'externalId', NULLIF(p->'metadata', 'null'),
        (p->>'totalOrders')::int, (p->>'totalOrderValue')::numeric, (p->>'lastOrderAt')::timestamptz,
        (p->>'createdAt')::timestamptz, (p->>'updatedAt')::timestamptz
    FROM jsonb_array_elements(CAST(:people AS jsonb)) AS p""")
WORTHS = [Decimal(number) for number in ("0", "0.0001", "5", "10", "1234.5", "89999999999999.9999", "90000000000000")]
LARGEST = 28_000
"""Maximum size of metadata in bytes."""

_encode = msgspec.json.Encoder(decimal_format="number").encode


def person(chance: Random) -> dict[str, Any]:
    """Return a random consumer as the API shows it, with numbers as Decimals."""
    return {
        "email": chance.choice([None, *EMAILS]),
        "phone": chance.choice([None, *PHONES]),
        "fullName": chance.choice([None, *NAMES]),
        "externalId": chance.choice([None, *NAMES]),
        "metadata": chance.choice([None, {}, *[_metadata(chance)] * 6]),
        "totalOrders": chance.choice([0, 1, 5, 10, 2**31 - 2]),
        "totalOrderValue": chance.choice(WORTHS),
        "lastOrderAt": chance.choice([None, *MOMENTS]),
        "createdAt": chance.choice(MOMENTS),
        "updatedAt": chance.choice(MOMENTS),
    }


def _metadata(chance: Random) -> dict[str, Any]:
    """Return random metadata within the size limit, which includes the spaces of jsonb."""
    while len(_encode(metadata := _object(chance, 3))) > LARGEST:
        pass
    return metadata


def _object(chance: Random, depth: int) -> dict[str, Any]:
    return {key: _value(chance, depth) for key in chance.sample(KEYS, chance.randint(0, 5))}


def _value(chance: Random, depth: int) -> Any:
    kind = chance.choice("TTTTTNNNNNBBZL{{{[[[" if depth else "TTNNBZ")
    match kind:
        case "{":
            return _object(chance, depth - 1)
        case "[":
            return [_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
        case "T":
            return chance.choice([*NAMES, *NUMBERS, *DATES, "true", "False", "", "gold"])
        case "L":
            return LONG
        case "N":
            # JSON parsers cannot read numbers such as 1e999.
            return Decimal(chance.choice([number for number in NUMBERS if number != "1e999"]))
        case _:
            return {"B": chance.random() < 0.5, "Z": None}[kind]


def fill(connection: sa.Connection, environment: int, people: Sequence[dict[str, Any]]) -> None:
    """Insert consumers; a duplicate email or external id becomes null."""
    taken: set[tuple[str, str]] = set()
    stored = []
    for one in people:
        own = dict(one)
        for field, key in (("email", str(one["email"]).lower()), ("externalId", str(one["externalId"]))):
            if (field, key) in taken:
                own[field] = None
            taken.add((field, key))
        stored.append(own)
    connection.execute(INSERT, {"environment": environment, "people": _encode(stored).decode()})
