"""Hear of each round of the drain at once, from a channel of Redis, instead of asking the outbox again and again.

A round that nobody announces, or a lost announcement, delays a waiting request by a longer tick only
(`api/freshness.py`).
"""

import asyncio

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.freshness import Freshness
from infra.database.installation import InstallationMissing
from infra.logs import error_kind
from infra.queue import ROUNDS, key_prefix
from infra.redis_client import AsyncRedis
from infra.settings import Settings

log = structlog.get_logger()

LISTEN_SECONDS = 60.0
RETRY_SECONDS = 1.0


async def hear(settings: Settings, redis: AsyncRedis, freshness: Freshness) -> None:
    """Have the registered writes checked after each round, until the task is cancelled."""
    while True:
        try:
            await _hear(settings, redis, freshness)
        except (RedisError, SQLAlchemyError, InstallationMissing) as error:
            log.debug("rounds_not_heard", reason=error_kind(error))
        finally:
            freshness.hears_rounds = False
        await asyncio.sleep(RETRY_SECONDS)


async def _hear(settings: Settings, redis: AsyncRedis, freshness: Freshness) -> None:
    prefix = await asyncio.to_thread(key_prefix, settings)
    async with redis.pubsub() as channel:
        await channel.subscribe(prefix + ROUNDS)
        while True:
            # The first message confirms the subscription.
            if await channel.get_message(timeout=LISTEN_SECONDS):
                freshness.hears_rounds = True
                freshness.check_soon()
