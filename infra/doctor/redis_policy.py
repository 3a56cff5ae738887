"""Checks of Redis' memory and persistence. Redis holds only wake-ups and counters of rate limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.doctor.checks import Check, Finding, Servers

FULL_SHARE = 0.9


def policy(servers: Servers) -> Iterator[Finding]:
    """Find settings and states of Redis with lost or refused wake-ups."""
    yield from of_info(servers.redis.info())


def of_info(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the findings of the answer to INFO, because managed servers refuse CONFIG GET."""
    if info.get("role") == "slave":
        yield Finding("REDIS_URL leads to a replica, which accepts no writes", "Name the primary, or the Sentinels")
    if (eviction := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        yield Finding(
            f"maxmemory-policy is {eviction}, so Redis may delete wake-ups and counters of rate limits",
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf or the parameters of the managed server",
        )
    maximum, used = info.get("maxmemory", 0), info.get("used_memory", 0)
    if maximum and used >= FULL_SHARE * maximum:
        yield Finding(
            f"{used >> 20} of {maximum >> 20} MiB of maxmemory are in use; then Redis refuses wake-ups",
            "Raise maxmemory, or look for another program that uses this server",
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok" or info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "Redis cannot write to its disk, and may refuse all writes until it can",
            'Free disk space, or turn persistence off, which is not needed: save "", appendonly no',
        )
    elif info.get("aof_enabled"):
        yield Finding(
            "Redis writes to its disk (appendonly is yes), which slows it down and is not needed",
            "CONFIG SET appendonly no, and in redis.conf",
            is_warning=True,
        )


CHECKS: tuple[Check, ...] = (policy,)
