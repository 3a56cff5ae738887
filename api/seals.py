"""The seals of all environments in an API process (`infra/seals.py`)."""

import asyncio

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.database import sealing_keys
from infra.database.sealing_keys import SealingKeyMissing
from infra.logs import error_kind
from infra.seals import Keyring

log = structlog.get_logger()

START_SECONDS = 2.0
"""How long the start of a process waits for the database."""


class Seals:
    """The seals of all environments. A process has a single instance, and reads the keys once."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._keyring: Keyring | None = None

    async def keyring(self) -> Keyring:
        """Return the keys; read them unless that has been done.

        Raises:
            SealingKeyMissing: the database has no key.
            SQLAlchemyError: the database does not answer.
        """
        if self._keyring is None:
            async with self._engine.connect() as connection:
                self._keyring = Keyring(await connection.run_sync(sealing_keys.read))
        return self._keyring

    async def start(self) -> None:
        """Read the keys at the start of the process.

        If the database does not answer, the process starts all the same, and the first request reads the keys.

        Raises:
            SealingKeyMissing: the database has no key.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.keyring()
        except SealingKeyMissing as error:
            log.error("sealing_key_missing", reason=str(error))  # noqa: TRY400 (the process ends with the trace)
            raise
        except (OperationalError, PoolTimeoutError, TimeoutError) as error:
            log.warning("sealing_key_not_read", reason=error_kind(error))
