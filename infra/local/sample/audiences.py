"""Generate sample audiences, the same at every call."""

from datetime import datetime
from random import Random
from typing import Any, NamedTuple

from infra.local.sample.consumers import SEED, START, ulid

GOLD = [{"field": "metadata.loyalty.tier", "operator": "EQUALS", "values": ["gold"]}]


class Audience(NamedTuple):
    """A row of `audiences`, without the environment."""

    id: str
    name: str
    """Of a static audience: its members are the consumers with this tag."""
    type: str
    rules: list[dict[str, Any]] | None
    created_at: datetime


def audiences() -> list[Audience]:
    """Return two static audiences, and a dynamic one."""
    random = Random(SEED + 2)  # noqa: S311 (nothing secret)
    chosen = (("newsletter", "STATIC", None), ("vip", "STATIC", None), ("Gold members", "DYNAMIC", GOLD))
    return [Audience(ulid(random, "aud_", START), name, kind, rules, START) for name, kind, rules in chosen]
