"""The owner of the read alias's index: nothing is read from an index that belongs to another installation.

`infra/index/ownership.py` has the reason. The check is a small request each second, so a read costs nothing.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from api.errors import unavailable
from infra.database import installation
from infra.database.installation import InstallationMissing
from infra.index.client import OpenSearchError
from infra.index.naming import read_alias
from infra.index.ownership import CHECK_SECONDS, OWNER_ONLY, ForeignIndexError, owners, refuse_foreign_index
from infra.settings import Settings

log = structlog.get_logger()


class IndexOwner:
    """Knows whether the read alias leads to an index of this installation. A single instance in each process."""

    def __init__(self, settings: Settings, search: Any) -> None:
        """Take the resources.

        Args:
            settings: with the index prefix.
            search: the client of OpenSearch, with answers as JSON text.
        """
        self._settings, self._search = settings, search
        self._alias = read_alias(settings.index_prefix)
        self._task: asyncio.Task[None] | None = None
        self.is_foreign = False

    async def start(self) -> None:
        """Check the index, and check again each second until `close`.

        Raises:
            ForeignIndexError: the index belongs to another installation.
        """
        try:
            await asyncio.to_thread(refuse_foreign_index, self._settings)
        except ForeignIndexError as error:
            log.error("index_refused", reason=str(error))  # noqa: TRY400 (the process ends with the trace)
            raise
        self._task = asyncio.create_task(self._check_regularly())

    def require_own(self) -> None:
        """Refuse to read a foreign index.

        Raises:
            Problem: 503.
        """
        if self.is_foreign:
            raise unavailable("Search")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _check_regularly(self) -> None:
        while True:
            # Without an answer, the last answer holds.
            with suppress(OpenSearchError, DBAPIError, InstallationMissing, msgspec.MsgspecError):
                await self._check()
            await asyncio.sleep(CHECK_SECONDS)

    async def _check(self) -> None:
        response = await self._search.indices.get_mapping(index=self._alias, params=OWNER_ONLY)
        own = await asyncio.to_thread(installation.id_of, self._settings)
        foreign = {name: owner for name, owner in owners(response).items() if owner not in {None, own}}
        if foreign and not self.is_foreign:
            for name, owner in foreign.items():
                log.error("index_refused", reason=str(ForeignIndexError(name, owner, own)))
        self.is_foreign = bool(foreign)
